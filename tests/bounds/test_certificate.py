"""The bound is its terms; it moves when an input of it moves; NaN is never within a tolerance."""

import dataclasses
import json
import math

import numpy as np
import pytest

import subquad
from subquad import methods
from subquad.bounds.certificate import Certificate, Term, total
from subquad.methods import Method
from subquad.methods.polynomial import sums as polynomial_module
from tests.methods.table import ROWS, over

TERMS = ("truncation", "logits", "sums", "storage")


def heads(seed=0, offset=0.0, size=0.3, n=300, m=400):
    rng = np.random.default_rng(seed)
    Q, K = size * rng.standard_normal((2, n, 6)), size * rng.standard_normal((2, m, 6))
    return Q, K, rng.standard_normal((2, m, 3)) + offset


@over(ROWS)
def test_bound_is_recomputed_from_its_terms(row, rates):
    result = subquad.attention(*heads(size=0.1), tol=1e-2, method=row.method, rates=rates)
    c = result.certificate
    assert tuple(t.name for t in c.terms) == TERMS
    assert all(t.claim for t in c.terms)
    rows = sum(np.broadcast_to(t.value, (2, 300)) for t in c.terms)
    assert np.array_equal(c.row_bounds, rows)
    assert c.bound == rows.max() <= 1e-2
    assert np.array_equal(total(c.terms, c.row_bounds), rows)


def a_priori(**sizes):
    """Return the Terms of a fixed polynomial, by name."""
    stats = (
        subquad.plan(
            **{
                "n": 1000,
                "d": 6,
                "logit_bound": 1.0,
                "dtype": "float32",
                "tol": 1.0,
                "rates": subquad.TYPICAL,
            }
            | sizes
        )
        .heads[0]
        .stats
    )
    bound = methods.method.stored_norm_bound(stats.logit_bound, "float32")
    p = polynomial_module.parameters_for(4, bound, "float32", 6)
    return {t.name: t.value for t in subquad.METHODS["polynomial"].certify(stats, p)}


def test_logit_bound_moves_truncation_and_logits():
    low, high = a_priori(logit_bound=1.0), a_priori(logit_bound=1.5)
    assert high["truncation"] > 5.0 * low["truncation"]
    assert high["logits"] > 1.4 * low["logits"]
    assert high["storage"] == low["storage"]


def test_length_moves_sums():
    short, long = a_priori(m=100), a_priori(m=10**9)
    assert long["sums"] > short["sums"]
    assert long["truncation"] == short["truncation"]


def test_degree_outside_its_interval_is_infinite(rates):
    stats = subquad.plan(n=99, d=6, logit_bound=2.0, tol=1.0, rates=rates).heads[0].stats
    p = polynomial_module.parameters_for(4, 1.9, "float64", 6)
    assert subquad.METHODS["polynomial"].certify(stats, p)[0].value == math.inf


@over(ROWS)
def test_an_offset_of_V_moves_storage_alone(row, rates):
    here, there = (
        subquad.attention(
            *(x.astype(np.float32) for x in heads(offset=offset)),
            tol=0.2,
            method=row.method,
            rates=rates,
        )
        for offset in (0.0, 1e4)
    )
    before, after = ({t.name: t.worst() for t in r.certificate.terms} for r in (here, there))
    assert after["storage"] > 1e3 * before["storage"]
    if here.plan.heads[0].chosen.parameters == there.plan.heads[0].chosen.parameters:
        assert after["truncation"] == before["truncation"]


def test_a_changed_formula_is_seen(monkeypatch, rates):
    """The printed bound comes from the lemma itself, not from a copy of it."""
    before = subquad.attention(*heads(), tol=1e-1, method="polynomial", rates=rates).certificate
    sums = polynomial_module.polynomial_sum_error
    monkeypatch.setattr(polynomial_module, "polynomial_sum_error", lambda *a: 10.0 * sums(*a))
    after = subquad.attention(*heads(), tol=1e-1, method="polynomial", rates=rates).certificate
    assert after.terms[2].worst() > 9.0 * before.terms[2].worst()
    assert after.bound > before.bound


def test_json_says_what_the_certificate_says(rates):
    c = subquad.attention(*heads(), tol=1e-2, rates=rates).certificate
    record = json.loads(c.to_json())
    assert record["bound"] == c.bound
    assert record["holds"] == "always"
    assert record["unit"] == "value_radius"
    assert [t["name"] for t in record["terms"]] == list(TERMS)
    assert [t["worst"] for t in record["terms"]] == [t.worst() for t in c.terms]
    assert record["assumptions"] == list(c.assumptions) != []


def test_print_shows_every_term_and_assumption(rates):
    c = subquad.attention(*heads(), tol=1e-2, rates=rates).certificate
    text = str(c)
    assert text.startswith(f"bound {c.bound:.3e} of value_radius, holds always")
    for term in c.terms:
        assert f"{term.name:<12} {term.worst():.3e}   claim {term.claim}" in text
    for assumption in c.assumptions:
        assert f"assuming {assumption}" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda Q, K, V: (Q, K, V + 1e9), "rounding to float64 of values .* in size"),
        (lambda Q, K, V: (Q, K, V * 1e-318), "rounding to float64 of values .* subnormal"),
        (lambda Q, K, V: (Q * 1e8, K, V), r"rounding in float64 at logits up to \d"),
    ],
)
def test_a_refusal_of_exact_names_its_largest_term(change, words, rates):
    """An offset of V or subnormal V is not put down to the logits, which are small there."""
    arrays = change(*heads())
    with pytest.raises(subquad.ToleranceError, match=words) as caught:
        subquad.attention(*arrays, tol=1e-9, method="exact", rates=rates)
    assert ("at logits" in str(caught.value)) == ("logits" in words)


def test_a_refusal_of_exact_for_its_many_keys(rates):
    made = subquad.plan(
        n=9, m=2**50, d=4, logit_bound=1e-3, dtype="float64", tol=1e-9, method="exact", rates=rates
    )
    (refusal,) = made.heads[0].options
    assert refusal.reason == "rounding in float64 of sums over 1,125,899,906,842,624 keys"


def test_what_holds_arrays_is_compared_by_identity(rates):
    """No `==` that raises or has to choose an entry, and all of it can be a key of a dict."""
    first, again = (subquad.attention(*heads(), tol=1e-2, rates=rates) for _ in range(2))
    for find in (
        lambda r: r,
        lambda r: r.certificate,
        lambda r: r.certificate.terms[0],
        lambda r: r.plan,
        lambda r: r.plan.heads[0],
    ):
        one, other = find(first), find(again)
        assert one == one and one != other
        assert len({one, other, one}) == 2
    assert first.certificate.terms != again.certificate.terms


def test_nan_is_not_within_any_tolerance():
    terms = (Term("sums", "x", np.array([1e-3, np.nan])), Term("storage", "x", 1e-6))
    c = Certificate(terms, total(terms, terms[0].value))
    assert math.isnan(c.bound)
    assert not c.bound <= 2.0
    assert math.isnan(terms[0].worst())


class BrokenTerm(Method):
    """The exact method with one term of its certificate replaced, in the plan or in the run."""

    name = "broken"

    def __init__(self, value, *, in_plan):
        self.exact, self.value, self.in_plan = subquad.METHODS["exact"], value, in_plan

    def fit(self, stats, tol, rates):
        for offer in self.exact.fit(stats, tol, rates):
            terms = self.certify(stats, offer.parameters)
            yield dataclasses.replace(offer, method=self, terms=terms)

    def certify(self, stats, parameters):
        terms = self.exact.certify(stats, parameters)
        value = self.value if self.in_plan else terms[0].value
        return dataclasses.replace(terms[0], value=value), *terms[1:]

    def work(self, stats, parameters):
        return self.exact.work(stats, parameters)

    def run(self, head, parameters):
        partial = self.exact.run(head, parameters)
        error = partial.error.copy()
        error[3] = self.value
        return dataclasses.replace(partial, error=error, ratio=partial.ratio + 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("in_plan", [False, True])
def test_a_nan_or_infinite_term_raises(value, in_plan, rates):
    """Found in the plan, no method is chosen; found in the run, nothing is returned."""
    Q, K, V = heads()
    broken = BrokenTerm(value, in_plan=in_plan)
    with pytest.raises(subquad.ToleranceError) as caught:
        subquad.attention(Q, K, V, tol=2.0, method=broken, rates=rates)
    assert ("no allowed method" in str(caught.value)) == in_plan
    assert ("nothing is returned" in str(caught.value)) != in_plan
