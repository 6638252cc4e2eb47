"""The basis and what it is off by; sets of steep spectra; soundness, refusals, corners."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subquad
from subquad.arrays.formats import FORMATS
from subquad.features import feature_dimension
from subquad.head.basis import measure_rotation, rotated
from subquad.head.problem import Problem
from subquad.methods.anisotropic.method import Anisotropic
from subquad.methods.anisotropic.proof import AnisotropicParameters
from subquad.methods.method import Proposal, Refusal, storage_term, stored_norm_bound
from tests import oracle
from tests.strategies import recipes

METHOD = Anisotropic()
COMPUTE = ("float32", "float64")


def head(decay=0.5, n=1500, m=1500, d=32, reach=2.0, seed=0, mix=False):
    """Return Q, K, V of norm product `reach`, coordinates falling by `decay` on both sides."""
    rng = np.random.default_rng(seed)
    Q, K = (rng.standard_normal((x, d)) * decay ** np.arange(d) for x in (n, m))
    K -= K.mean(axis=0)
    Q, K = (x * math.sqrt(reach) / np.linalg.norm(x, axis=1).max() for x in (Q, K))
    if mix:  # the same logits in an ill-chosen basis
        M = rng.standard_normal((d, d)) + 3.0 * np.eye(d)
        Q, K = Q @ M, K @ np.linalg.inv(M).T
    return Q, K, rng.standard_normal((m, 3))


def stats_of(Q, K, V, scale=1.0):
    return Problem(Q, K, V, scale=scale).heads[0].stats


def offer(data, tol=1e-2, **sizes):
    stats = dataclasses.replace(stats_of(*data), **sizes)
    (found,) = METHOD.fit(stats, tol, subquad.TYPICAL)
    return found


def check(Q, K, V, tol, scale=1.0, method=METHOD):
    result = subquad.attention(Q, K, V, tol=tol, scale=scale, method=method, rates=subquad.TYPICAL)
    error = oracle.row_errors(result.output, Q, K, V, scale)
    assert np.all(error <= result.certificate.row_bounds)
    assert result.certificate.bound <= result.plan.heads[0].chosen.bound <= tol
    return result


@pytest.mark.parametrize(("decay", "most"), [(0.5, 600), (0.7, 50_000)])
def test_steep_spectra(decay, most):
    """Isotropic needs degree 6 at B = 2, whatever the spectrum."""
    found = offer(head(decay), n=10**6, m=10**6)
    assert isinstance(found, Proposal)
    assert found.parameters.r <= most < feature_dimension(32, 6)


def test_a_flat_spectrum_is_refused_with_the_number_it_would_take():
    found = offer(head(0.85), n=10**6, m=10**6)
    assert isinstance(found, Refusal)
    assert "needs at least " in found.reason
    assert int(found.reason.split()[3].replace(",", "")) > 65_536
    Q, K, V = head(0.85)
    chosen = subquad.plan(Q, K, V, tol=1e-2, scale=1.0, rates=subquad.TYPICAL).heads[0].chosen
    assert chosen.method.name != "anisotropic"


def test_the_basis_is_found_again():
    """Logits of a steep spectrum in a basis that hides it: nearly as few monomials."""
    plain, mixed = (offer(head(0.5, mix=mix)).parameters.r for mix in (False, True))
    assert mixed <= 2 * plain


def test_the_basis_balances_both_second_moments():
    Q, K, _ = head(0.8, d=6, mix=True)
    plain = (1.0, np.zeros(6), 1.0)
    r = measure_rotation(Q, K, plain, plain, 50.0, 50.0)
    rotated_rows = (Q @ r.query_basis, K @ r.key_basis)
    q, k = (x.T @ x / len(x) for x in rotated_rows)  # the sample is all rows
    for moments in (q, k):
        off = moments - np.diag(np.diag(moments))
        assert np.abs(off).max() <= 1e-4 * np.diag(moments).max()
    ratio = np.diag(q) / np.diag(k)
    assert np.allclose(np.log2(ratio), np.round(np.log2(ratio)), atol=1e-3)  # powers of two
    products = r.query_reach * r.key_reach
    assert np.all(np.diff(products) <= 0.0)
    assert np.all((r.query_reach / r.key_reach < 4.1) & (r.query_reach / r.key_reach > 0.24))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(-6.0, 6.0), st.sampled_from(COMPUTE))
def test_the_departure_of_the_basis_is_bounded(seed, d, log_condition, dtype):
    """In extended precision: |x.y - q.k| <= distortion |q| |k|, however bad the spectra."""
    rng = np.random.default_rng(seed)
    spread = 10.0 ** (log_condition * rng.random(d))
    M = rng.standard_normal((d, d))
    Q, K = (rng.standard_normal((40, d)) @ M) * spread, rng.standard_normal((50, d)) / spread
    Q, K = Q / np.linalg.norm(Q, axis=1).max(), K / np.linalg.norm(K, axis=1).max()
    plain = (1.0, np.zeros(d), 1.0)
    r = measure_rotation(Q, K, plain, plain, 1.0, 1.0)
    X, Y = rotated(Q, plain, r.query_basis, dtype), rotated(K, plain, r.key_basis, dtype)
    assert np.all(np.abs(X) <= stored_norm_bound(r.query_reach, dtype))
    assert np.all(np.abs(Y) <= stored_norm_bound(r.key_reach, dtype))
    q, k, x, y = (a.astype(np.longdouble) for a in (Q, K, X, Y))
    norms = np.linalg.norm(Q, axis=1)[:, None] * np.linalg.norm(K, axis=1)
    assert np.all(np.abs(x @ y.T - q @ k.T) <= r.distortion(FORMATS[dtype].u) * norms * (1 + 1e-12))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_sound_on_steep_heads(dtype):
    for decay, reach in ((0.5, 2.0), (0.3, 6.0), (0.7, 0.5)):
        data = (x.astype(dtype) for x in head(decay, 300, 400, 12, reach, mix=dtype != "float16"))
        check(*data, 3e-2)


def test_tight_tolerances_in_float64():
    result = check(*head(0.3, 1500, 1500, 6, reach=0.3), 1e-9)
    assert result.plan.heads[0].chosen.parameters.dtype == "float64"


def test_a_tail_without_slack():
    """One query and one key at the corner of the box: the weight is off by the whole tail."""
    axis = np.array([[0.8, 0.6, 0.4]])
    Q, K = np.concatenate([axis, -axis]), np.concatenate([axis, -axis])
    problem = Problem(Q, K, np.array([[1.0], [-1.0]]), scale=1.0).heads[0]
    for r in (1, 4, 9):
        box = tuple((axis[0] ** 2).tolist())
        p = METHOD.parameters(problem.stats, r, "float64")
        partial = METHOD.run(problem, p)
        weights = np.exp(Q @ K.T).sum(axis=1)
        error = np.abs(partial.normaliser * 2.0**partial.log_shift - weights)
        bound = partial.error * 2.0**partial.log_shift
        assert np.all(error <= bound)
        assert math.fsum(p.box) >= math.fsum(box) * (1 - 1e-12)


@settings(max_examples=settings().max_examples // 2)
@given(recipe=recipes(leads=(0,)), r=st.integers(1, 60), dtype=st.sampled_from(COMPUTE))
def test_every_set_has_its_own_true_certificate(recipe, r, dtype):
    """The set need not suit tol: a loose certificate must be as true as a tight one."""
    data = recipe.build()
    made = Problem(data.Q, data.K, data.V, scale=data.scale, key_mask=data.key_mask)
    problem = made.heads[0]
    if problem.stats.rotation is None:
        return
    p = METHOD.parameters(problem.stats, r, dtype)
    a_priori = sum(float(t.value) for t in METHOD.certify(problem.stats, p))
    output, terms = METHOD.run(problem, p).finish()
    bounds = sum(t.value for t in (*terms, storage_term(problem.stats, dtype)))
    assert np.all(bounds <= a_priori)
    exact = oracle.attention(problem.Q, problem.K, problem.V, problem.scale)
    known = np.isfinite(bounds)
    assert np.all(np.abs(output - exact).max(axis=1)[known] <= bounds[known])


@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (1, 70, 3), (70, 1, 3), (2, 3, 1), (5, 4, 9)])
def test_few_rows(n, m, d):
    rng = np.random.default_rng(n + m + d)
    Q, K, V = (0.5 * rng.standard_normal(s) for s in ((n, d), (m, d), (m, 2)))
    check(Q, K, V, 1e-3)


def test_degenerate_rows():
    rng = np.random.default_rng(0)
    Q, K, V = (0.25 * rng.standard_normal((50, 4)) for _ in range(3))
    for data in (
        (0 * Q, K, V),
        (Q, 0 * K, V),
        (Q[:1].repeat(9, 0), K[:1].repeat(9, 0), V[:9]),
        (Q * [1, 0, 1, 1], K * [1, 1, 0, 1], V),
        (1e-200 * Q, K, V),
        (Q * 1e150, K * 1e-150, V),
        (Q, K + 1e3, V),
    ):
        check(*data, 1e-2)


def test_large_logits_are_refused_at_once():
    Q, K, V = (3.0 * x for x in np.random.default_rng(0).standard_normal((3, 200, 16)))
    stats = stats_of(Q, K, V)
    assert stats.rotation is None
    found = offer((Q, K, V))
    assert isinstance(found, Refusal)
    assert found.reason == "the box is too large for any set"
    unknown = AnisotropicParameters(3, 2, "float64", (0.5, 0.25))
    assert not sum(float(t.value) for t in METHOD.certify(stats, unknown)) <= 2.0


def test_without_data_it_asks_for_them():
    made = subquad.plan(n=100, d=4, logit_bound=0.5, tol=1e-2, method=METHOD, rates=subquad.TYPICAL)
    assert "give data" in made.heads[0].options[0].reason


def test_a_plan_runs_again_on_other_data():
    """The set is that of the plan, its tail that of the new box."""
    Q, K, V = head(0.5, 200, 300, 8)
    made = subquad.plan(Q, K, V, tol=1e-2, scale=1.0, method=METHOD, rates=subquad.TYPICAL)
    result = made.run(0.9 * Q, K, V)
    assert np.all(
        oracle.row_errors(result.output, 0.9 * Q, K, V, 1.0) <= result.certificate.row_bounds
    )
    with pytest.raises(subquad.ToleranceError, match="plan again"):
        made.run(2.0 * Q, K, V)
    with pytest.raises(subquad.ToleranceError, match="plan again"):
        made.run(50.0 * Q, K, V)
