"""One constant of a bound changed, in memory: some claim must be refuted, or the bound is untested.

Each mutation makes a proved bound smaller than it is, a degree too low or an interval too short.
"""

import pytest

from proofs_checks import registry
from proofs_checks.claim import decide
from subquad.bounds import rounding, softmax
from subquad.exp_poly import ExpPolynomial, degree, enclosure, reference
from tests.proofs_checks.mutate import changed_code, code_of

MUTATIONS = [
    (softmax.output_bound, "a_ >= 1.0, 2.0 * e_", "a_ >= 1.0, 1.98 * e_", "additive-sharp"),
    (softmax.output_bound, "boundary = 2.0 * e_", "boundary = 1.98 * e_", "output-bound"),
    (softmax.output_bound, "e_ * (3.0 - e_)", "e_ * (2.9 - e_)", "output-bound"),
    (softmax.output_bound, "/ roots**2)", "/ roots**2.02)", "ratio-sharp"),
    (softmax.ratio_bound_inverse, "(4.0 + bound", "(3.99 + bound", "ratio-sharp"),
    (softmax.logit_perturbation_bound, "delta / 2.0", "delta / 2.02", "logit-perturbation"),
    (softmax.normaliser_lower_bound, "exp(-xp", "exp(-0.99 * xp", "normaliser-jensen"),
    (rounding.gamma, "dtype=xp.float64) * u", "dtype=xp.float64) * u / 2.0", "rounding-gamma"),
    (rounding.exact_sum_error, "return 2.0 *", "return 1.98 *", "rounding-exact-sums"),
    (rounding.exact_logit_error, "gamma(d, form.u)", "gamma(d / 2, form.u)", "rounding-logits"),
    (rounding.polynomial_sum_error, "return 2.0 *", "return 1.9 *", "rounding-polynomial"),
    (rounding.storage_error, "(u_out + ", "(0.99 * u_out + ", "rounding-storage"),
    (
        rounding.conversion_error,
        "(20.0 + 4.0 * value_ratio)",
        "(2.0 + 0.4 * value_ratio)",
        "rounding-storage",
    ),
    (ExpPolynomial._scaled.func, "factor = 1 - ", "factor = 1 + ", "scaled-ratio"),
    (enclosure.errors_at_extrema, "[-B, B, *roots]", "[B, *roots]", "enclosure-sound"),
    (enclosure.errors_at_extrema, "[-B, B, *roots]", "[-B, B]", "fitted-majorant"),
    (
        enclosure._largest_error,
        "hi = error.abs_upper()",
        "hi = error.abs_upper() * 0.99",
        "enclosure-sound",
    ),
    (degree._reaches, "[1] <= eps", "[1] <= 3 * eps", "minimal-degree-table"),
    (
        reference.levelled_error,
        "abs(signed) / total",
        "abs(signed) / total * 1.01",
        "relative-error-size",
    ),
]


def name(mutation):
    function, old, new, _ = mutation
    return f"{function.__qualname__}: {old} to {new}"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=name)
def test_a_changed_constant_turns_a_claim_red(mutation):
    function, old, new, claim = mutation
    with code_of(function, changed_code(function, old, new)):
        record = decide(registry.CLAIMS[claim])
    assert record.found.verdict == "refuted", record.found.detail


def test_the_code_is_put_back():
    function, old, new, claim = MUTATIONS[0]
    before = float(function(0.5, 1.0))
    with code_of(function, changed_code(function, old, new)):
        assert float(function(0.5, 1.0)) < before
    assert float(function(0.5, 1.0)) == before
    assert decide(registry.CLAIMS[claim]).as_expected
