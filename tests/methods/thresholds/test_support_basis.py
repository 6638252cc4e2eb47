"""The split into large and small rows and keys: the identity behind it, thresholds, counts."""

import dataclasses
import re

import numpy as np
import pytest

import subquad
from subquad import SupportBasis
from subquad.head.problem import Problem
from subquad.methods.method import Refusal
from subquad.methods.thresholds.support_basis import CRITERIA
from tests import oracle


def head(n=400, m=500, d=5, outliers=20, seed=0, offset=0.0, size=0.5):
    """Return Q, K, V; norms about `size`, every `outliers`-th row 30 times that."""
    rng = np.random.default_rng(seed)
    Q, K = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    Q, K = (size * x / np.linalg.norm(x, axis=1, keepdims=True) for x in (Q, K))
    if outliers:
        Q[::outliers] *= 30.0
        K[::outliers] *= 30.0
    return Q + offset, K + offset, rng.standard_normal((m, 2))


def split_matrices(S, large_rows, large_keys):
    """Return (S_s, S_L): the logits of small rows with small keys, and all the others."""
    small = ~large_rows[:, None] & ~large_keys[None, :]
    return np.where(small, S, 0.0), np.where(small, 0.0, S)


def test_the_matrix_identity_of_the_paper():
    """exp(S_s) + exp(S_L) - 1 = exp(S) entry by entry, where the supports are disjoint."""
    rng = np.random.default_rng(0)
    Q, K, _ = head(30, 40, outliers=0, size=2.0)
    S = Q @ K.T
    rows, keys = rng.random(30) < 0.3, rng.random(40) < 0.3
    small, large = split_matrices(S, rows, keys)
    assert np.array_equal(small + large, S)
    together = np.exp(small) + np.exp(large) - 1.0
    np.testing.assert_allclose(together, np.exp(S), rtol=1e-13, atol=1e-13)


def test_the_identity_fails_when_entries_are_split():
    """Splitting the entries of Q and K, not whole rows, leaves cross terms and no identity."""
    Q, K, _ = head(30, 40)
    q_large, k_large = np.abs(Q) > 0.3, np.abs(K) > 0.3
    assert q_large.any(axis=1).sum() > q_large.all(axis=1).sum(), "some rows are truly split"
    small = np.where(q_large, 0.0, Q) @ np.where(k_large, 0.0, K).T
    large = np.where(q_large, Q, 0.0) @ np.where(k_large, K, 0.0).T
    S = Q @ K.T
    assert np.abs(np.exp(small) + np.exp(large) - 1.0 - np.exp(S)).max() > 0.1


def run(Q, K, V, tol, method, **options):
    result = subquad.attention(Q, K, V, tol=tol, method=method, rates=subquad.TYPICAL, **options)
    error = oracle.row_errors(result.output, Q, K, V, 1.0 / np.sqrt(Q.shape[1]))
    assert np.all(error <= result.certificate.row_bounds)
    assert result.certificate.bound <= tol
    return result


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.51, 1.0, 1e9])
def test_a_given_threshold(criterion, threshold):
    """0: everything is large. 1e9: nothing is. Whatever it is, counts are as predicted."""
    Q, K, V = head(outliers=0 if threshold == 1e9 else 20)
    result = run(Q, K, V, 1e-2, SupportBasis(criterion=criterion, threshold=threshold))
    p = result.plan.heads[0].chosen.parameters
    problem = Problem(Q, K, V).heads[0].views[result.plan.heads[0].chosen.view]
    rows, unit = problem.rows, (problem.stats.query_unit, problem.stats.key_unit)
    sides = {
        "norm": (rows.query_norms, rows.key_norms),
        "entry": (rows.query_entries, rows.key_entries),
    }[criterion]
    counted = [int((x > threshold * u).sum()) for x, u in zip(sides, unit, strict=True)]
    assert [p.large_queries, p.large_keys] >= counted
    if len(Q) <= 64:
        assert [p.large_queries, p.large_keys] == counted
    if threshold == 0.0:
        assert (p.large_queries, p.large_keys) == (400, 500)
    if threshold == 1e9:
        assert (p.large_queries, p.large_keys) == (0, 0)


def test_a_threshold_that_leaves_large_logits_is_refused_for_that_reason():
    """Logits of 15 * 15 / sqrt(5) = 101 are left to the polynomial; rounding is not to blame."""
    Q, K, V = head()
    with pytest.raises(subquad.ToleranceError) as caught:
        run(Q, K, V, 1e-2, SupportBasis(criterion="norm", threshold=100.0))
    assert "rounding of the exact part" not in str(caught.value)


def test_counts_are_exact_where_every_rank_is_kept():
    Q, K, V = head(60, 50, outliers=10)
    result = run(Q, K, V, 1e-2, SupportBasis(criterion="norm", threshold=2.0))
    p = result.plan.heads[0].chosen.parameters
    assert (p.large_queries, p.large_keys) == (6, 5)


def test_thresholds_are_in_the_units_of_the_input():
    """The same head 2**20 times larger, scale 2**-40: the same split at 2**20 the threshold."""
    Q, K, V = head(60, 50, outliers=10)
    big = 2.0**20
    one = SupportBasis(criterion="norm", threshold=2.0)
    other = SupportBasis(criterion="norm", threshold=2.0 * big)
    a, b = (
        subquad.plan(q, k, V, tol=1e-2, scale=s, method=m, rates=subquad.TYPICAL).heads[0].chosen
        for q, k, s, m in ((Q, K, 0.5, one), (Q * big, K * big, 0.5 / big**2, other))
    )
    assert (a.parameters.large_queries, a.parameters.large_keys) == (6, 5)
    assert (b.parameters.large_queries, b.parameters.large_keys) == (6, 5)
    assert a.bound == b.bound


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 70), (70, 1), (2, 3)])
def test_few_rows(n, m, criterion):
    rng = np.random.default_rng(n + m)
    Q, K, V = rng.standard_normal((n, 4)), rng.standard_normal((m, 4)), rng.standard_normal((m, 3))
    run(Q, K, V, 1e-3, SupportBasis(criterion=criterion))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_equal_magnitudes(criterion):
    """No order to split by: all rows on a cube's corners, of one norm and one largest entry."""
    rng = np.random.default_rng(0)
    Q, K = rng.choice([-0.5, 0.5], (2, 300, 4))
    V = rng.standard_normal((300, 2))
    run(Q, K, V, 1e-2, SupportBasis(criterion=criterion))
    centre = np.abs(K - K.mean(axis=0)).max()
    run(Q, K, V, 1e-2, SupportBasis(criterion=criterion, threshold=float(centre)))


def test_a_common_offset_of_the_keys_is_free():
    plain, moved = head(), head(offset=3.0)
    p = [
        run(*x, 1e-2, SupportBasis(criterion="norm")).plan.heads[0].chosen.parameters
        for x in (plain, (plain[0], moved[1], plain[2]))
    ]
    assert p[0].large_keys == p[1].large_keys
    assert p[0].small.degree == p[1].small.degree


def test_norm_beats_entry_and_polynomial_on_outliers():
    Q, K, V = head(4000, 4000, d=8, outliers=400)
    made = subquad.plan(Q, K, V, tol=1e-2, method="support_basis", rates=subquad.TYPICAL)
    norm, entry = made.heads[0].options
    assert [o.parameters.criterion for o in (norm, entry)] == ["norm", "entry"]
    assert made.heads[0].seconds(norm) < made.heads[0].seconds(entry)
    assert (norm.parameters.large_queries, norm.parameters.large_keys) == (10, 10)
    auto = subquad.plan(Q, K, V, tol=1e-2, rates=subquad.TYPICAL).heads[0]
    same, entry = (o for o in auto.options if o.method.name == "support_basis")
    assert same.parameters == norm.parameters and auto.chosen.method.name != "polynomial"
    assert isinstance(entry, Refusal) and entry.reason == "costs at least as much as by norm"


def test_large_rows_are_exact():
    """Their error is that of the exact method: rounding alone, ten thousand times below tol."""
    Q, K, V = head(600, 500)
    result = run(Q, K, V, 1e-2, SupportBasis(criterion="norm"))
    truncation = result.certificate.terms[0].value
    assert np.all(truncation[::20] == 0.0)
    assert np.count_nonzero(truncation) >= 570 - 1


def test_a_wrong_logit_bound_is_never_certified():
    """Parameters whose polynomial is for fewer logits than the split leaves: infinite terms."""
    Q, K, V = head()
    problem = Problem(Q, K, V).heads[0]
    method = SupportBasis(criterion="norm")
    offer = next(iter(method.fit(problem.stats, 1e-2, subquad.TYPICAL)))
    p = offer.parameters
    wrong = dataclasses.replace(
        p, small=dataclasses.replace(p.small, logit_bound=p.small.logit_bound * 0.9)
    )
    assert not sum(float(t.value) for t in method.certify(problem.stats, wrong)) <= 2.0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"criterion": "rows"},
            ValueError,
            "`criterion` is 'rows'; the criteria are both, norm, entry.",
        ),
        ({"threshold": -0.25}, ValueError, "`threshold` is -0.25; it must be a number of at least"),
        ({"threshold": float("nan")}, ValueError, "`threshold` is nan; it must be"),
        ({"threshold": "big"}, TypeError, "`threshold` is 'big' of type str; pass a real number."),
    ],
)
def test_bad_parameters(options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        SupportBasis(**options)
