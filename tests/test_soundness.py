"""Measured error <= row bound <= tol: every method, every drawn problem, every row, no slack."""

import itertools
from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subquad
from subquad.arrays.arithmetic import product_up
from subquad.exp_poly.degree import estimated_degree
from subquad.head.problem import Problem
from subquad.methods.exact import ExactParameters
from subquad.methods.method import Proposal, storage_term, stored_norm_bound
from subquad.methods.polynomial.sums import LOGIT_BOUND_MAX, LOGIT_BOUND_MIN, parameters_for
from subquad.methods.thresholds.support_basis import SplitParameters, SupportBasis
from tests import oracle
from tests.methods.refusals import COMPUTE, EXACT, POLYNOMIAL, exact_bound, heads_of
from tests.methods.table import AUTO, ROWS, WITH_AUTO, over
from tests.strategies import Recipe, recipes


def attend(data, rates, **options):
    """Return the Result or the ToleranceError of one call; the inputs must come out unchanged."""
    before = [x.copy() for x in data[:3]]
    try:
        return subquad.attention(
            data.Q,
            data.K,
            data.V,
            tol=data.tol,
            scale=data.scale,
            key_mask=data.key_mask,
            rates=rates,
            **options,
        )
    except subquad.ToleranceError as error:
        return error
    finally:
        for x, old in zip(data[:3], before, strict=True):
            assert np.array_equal(x, old)


def assert_sound(data, result, a_priori=True):
    """Check shape and dtype, and measured error <= row bound <= tol, head by head, row by row.

    And <= the bound of the plan, unless that was for other data.
    """
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in data[:3]))
    n, d_v = data.Q.shape[-2], data.V.shape[-1]
    assert result.output.shape == (*lead, n, d_v)
    assert result.output.dtype == data.Q.dtype
    assert result.certificate.row_bounds.shape == (*lead, n)
    heads = oracle.heads(data.Q, data.K, data.V, data.key_mask)
    for (index, Q, K, V), planned in zip(heads, result.plan.heads, strict=True):
        bounds = result.certificate.row_bounds[index]
        assert np.all(oracle.row_errors(result.output[index], Q, K, V, data.true_scale) <= bounds)
        assert np.all(bounds <= data.tol)
        if a_priori:
            assert bounds.max() <= planned.chosen.bound, "the a priori bound is the larger one"
    assert result.certificate.bound == result.certificate.row_bounds.max()


def cheap(made) -> bool:
    """Return whether the plan, taken at its word, runs in under a second."""
    return all(h.chosen is None or h.seconds(h.chosen) < 0.3 for h in made.heads)


def affordable(data, rates, row) -> bool:
    """Return whether the plan of a method is cheap: r may be huge.

    Most have every pair exact at worst, and no drawn problem has many.
    """
    if not row.plan_first:
        return True
    made = subquad.plan(
        data.Q,
        data.K,
        data.V,
        tol=data.tol,
        scale=data.scale,
        key_mask=data.key_mask,
        rates=rates,
        method=row.method,
    )
    return cheap(made)


def check_all_drawn(row, rates):
    """Draw problems, check every answer; a refusal must be true, and few of them."""
    seen = Counter()

    @given(recipe=recipes())
    def check(recipe):
        data = recipe.build()
        if not affordable(data, rates, row):
            return
        result = attend(data, rates, method=row.method, allow_exact=row.allow_exact)
        seen["drawn"] += 1
        if isinstance(result, subquad.ToleranceError):
            seen["refused"] += 1
            assert row.may_refuse(data), str(result)
        else:
            assert_sound(data, result)

    check()
    assert seen["refused"] <= row.refused_at_most * seen["drawn"]


def test_auto_is_sound(rates):
    check_all_drawn(AUTO, rates)


@over(ROWS)
def test_every_method_is_sound(row, rates):
    """Nothing falls back on `exact` unannounced; a method refuses only what it cannot prove."""
    check_all_drawn(row, rates)


@over(WITH_AUTO)
def test_a_plan_run_on_other_data_is_sound_or_refused(row, rates):
    """Rows of other sizes, each side apart, so that units and thresholds no longer fit."""
    seen = Counter()
    times = st.sampled_from((0.1, 0.5, 1.0, 1.5, 3.0, 30.0))

    @given(recipe=recipes(), q=times, k=times)
    def check(recipe, q, k):
        data = recipe.build()
        options = {"scale": data.scale, "key_mask": data.key_mask, "rates": rates}
        made = subquad.plan(data.Q, data.K, data.V, tol=data.tol, method=row.method, **options)
        if not cheap(made):
            return
        with np.errstate(over="ignore"):
            Q, K = (x * x.dtype.type(by) for x, by in ((data.Q, q), (data.K, k)))
        other = data._replace(Q=Q, K=K, V=np.roll(data.V, 1, axis=-2))
        if not (np.isfinite(Q).all() and np.isfinite(K).all()):
            return
        try:
            result = made.run(other.Q, other.K, other.V, key_mask=other.key_mask)
        except subquad.ToleranceError:
            seen["refused"] += 1
            return
        seen["ran"] += 1
        assert_sound(other, result, a_priori=False)

    check()
    assert seen["ran"] >= 5


def assert_run_sound(head, method, parameters, dtype, rows=slice(None)):
    """Check a run with forced parameters: each row against its own certificate, before storage.

    Of long heads the error is measured on some rows alone.
    """
    output, terms = method.run(head, parameters).finish()
    bounds = sum(term.value for term in (*terms, storage_term(head.stats, dtype)))
    true = oracle.attention(head.Q[rows], head.K, head.V, head.scale)
    assert np.all(np.abs(output[rows] - true).max(axis=1) <= bounds[rows])
    a_priori = sum(float(term.value) for term in method.certify(head.stats, parameters))
    assert np.all(bounds <= a_priori)
    return bounds


def single_head(recipe: Recipe):
    return heads_of(recipe.build())[0]


@settings(max_examples=settings().max_examples // 2)
@given(recipe=recipes(leads=(0,)), degree=st.integers(0, 5), dtype=st.sampled_from(COMPUTE))
def test_every_degree_has_its_own_true_certificate(recipe, degree, dtype):
    """The degree need not suit tol: a loose certificate must be as true as a tight one."""
    head = single_head(recipe)
    logit_bound = max(stored_norm_bound(head.stats.logit_bound, dtype), LOGIT_BOUND_MIN)
    p = parameters_for(degree, min(logit_bound, LOGIT_BOUND_MAX), dtype, head.stats.d)
    if logit_bound > LOGIT_BOUND_MAX or not p.polynomial.upper < 1.0:
        assert not sum(float(t.value) for t in POLYNOMIAL.certify(head.stats, p)) <= 2.0
    else:
        assert_run_sound(head, POLYNOMIAL, p, dtype)


@settings(max_examples=settings().max_examples // 2)
@given(
    recipe=recipes(leads=(0,)),
    degree=st.integers(1, 4),
    dtype=st.sampled_from(COMPUTE),
    criterion=st.sampled_from(("norm", "entry")),
    shares=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
)
def test_every_split_has_its_own_true_certificate(recipe, degree, dtype, criterion, shares):
    """Thresholds anywhere in the data, not where the cost model would put them."""
    head = single_head(recipe)
    rows, d = head.rows, head.stats.d
    sides = {
        "norm": (rows.query_norms, rows.key_norms),
        "entry": (rows.query_entries, rows.key_entries),
    }[criterion]
    t_q, t_k = (
        float(np.quantile(x, s, method="lower")) for x, s in zip(sides, shares, strict=True)
    )
    large = [int((x > t).sum()) for x, t in zip(sides, (t_q, t_k), strict=True)]
    logit_bound = stored_norm_bound(product_up(1.0 if criterion == "norm" else d, t_q, t_k), dtype)
    small = parameters_for(degree, max(min(logit_bound, 60.0), LOGIT_BOUND_MIN), dtype, d)
    p = SplitParameters(criterion, t_q, t_k, *large, small)
    if logit_bound > 60.0 or not small.polynomial.upper < 1.0:
        return
    assert_run_sound(head, SupportBasis(), p, dtype)


def test_the_oracle_is_exact_enough():
    """Its own error is far below any bound: 60 digits agree to within 1/1000 of the exact bound."""

    @settings(max_examples=20)
    @given(recipe=recipes(leads=(0,)))
    def check(recipe):
        head = single_head(recipe)
        rows = slice(0, 3)
        if len(head.K) > 90:
            return
        ours = oracle.attention(head.Q[rows], head.K, head.V, head.scale)
        true = oracle.attention_mp(head.Q[rows], head.K, head.V, head.scale)
        error = max(
            abs(float(oracle.mpmath.mpf(str(a)) - b))
            for a, b in zip(ours.ravel(), itertools.chain(*true), strict=True)
        )
        assert error <= 1e-3 * exact_bound(head.stats)

    check()


# n = m = 65,536 with keys along the queries, so that sums of absolute values are attained.

LONG = 65_536


@lru_cache(maxsize=1)
def aligned(dtype, logit_bound):
    """Return (head, rows, their exact output): Q, K on one line, V of the sign of the logit."""
    rng = np.random.default_rng(int(10 * logit_bound))
    axis = np.array([0.5, -0.5, 0.5, 0.5])
    q_sign, k_sign = rng.choice([-1.0, 1.0], (2, LONG, 1))
    noise = 1e-3 * rng.standard_normal((2, LONG, 4))
    size = np.sqrt(logit_bound / 1.03)
    Q, K = size * (q_sign * axis + noise[0]), size * (k_sign * axis + noise[1])
    V = np.concatenate([k_sign + 0.1 * rng.standard_normal((LONG, 1)), 1.0 - (k_sign > 0)], axis=1)
    Q, K, V = (x.astype(dtype) for x in (Q, K, V))
    head = Problem(Q, K, V, scale=1.0).heads[0]
    rows = rng.choice(LONG, 64, replace=False)
    return head, rows, oracle.attention(Q[rows], K, V, 1.0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("logit_bound", [0.5, 2.0, 4.0])
def test_long_aligned_sums(dtype, logit_bound, rates):
    head, rows, true = aligned(dtype, logit_bound)
    stats = head.stats
    assert logit_bound / 1.05 <= stats.logit_bound <= logit_bound
    for compute in COMPUTE:
        bound = max(stored_norm_bound(stats.logit_bound, compute), LOGIT_BOUND_MIN)
        degree = estimated_degree(bound, 1e-6)
        p = parameters_for(degree, bound, compute, stats.d)
        output, terms = POLYNOMIAL.run(head, p).finish()
        bounds = sum(t.value for t in (*terms, storage_term(stats, compute)))[rows]
        assert np.all(np.abs(output[rows] - true).max(axis=1) <= bounds)
        sums = terms[2].value[rows].max()
        # The rounding bites, and what it costs is what the design says it costs.
        assert (1e-5 < sums < 2e-2) if compute == "float32" else (1e-13 < sums < 1e-9)
        few = Problem(head.Q[rows], head.K, head.V, scale=1.0).heads[0]
        output, terms = EXACT.run(few, ExactParameters(compute)).finish()
        bounds = sum(t.value for t in (*terms, storage_term(stats, compute)))
        assert np.all(np.abs(output - true).max(axis=1) <= bounds)
    result = subquad.attention(head.Q, head.K, head.V, tol=2e-2, scale=1.0, rates=rates)
    error = np.abs(oracle.in_units(result.output[rows], head.V) - true).max(axis=1)
    assert np.all(error <= result.certificate.row_bounds[rows])
    assert result.certificate.bound <= 2e-2


# Named instances: what the planner chooses, by a fixed cost model.


def chosen(made):
    return {str(head.chosen.method.name) for head in made.heads}


def test_bounded_logits_choose_the_polynomial(rates):
    made = subquad.plan(n=65_536, d=8, logit_bound=0.5, tol=1e-2, rates=rates)
    assert chosen(made) == {"polynomial"}
    assert made.heads[0].chosen.parameters.degree == 2


def test_gaussian_heads_choose_exact(rates):
    Q, K, V = np.random.default_rng(0).standard_normal((3, 1024, 64))
    assert chosen(subquad.plan(Q, K, V, tol=1e-2, rates=rates)) == {"exact"}


def outliers():
    rng = np.random.default_rng(1)
    Q, K, V = rng.standard_normal((3, 16_384, 8))
    Q, K = (x / np.linalg.norm(x, axis=1, keepdims=True) * np.sqrt(0.5) for x in (Q, K))
    Q[::1000] *= 20.0
    K[::1000] *= 20.0
    return Q, K, V


def test_outliers_choose_the_support_basis_by_norm(rates):
    Q, K, V = outliers()
    made = subquad.plan(Q, K, V, tol=1e-2, scale=1.0, rates=rates)
    best = made.heads[0].chosen
    assert (best.method.name, best.parameters.criterion) == ("support_basis", "norm")
    assert (best.parameters.large_queries, best.parameters.large_keys) == (17, 17)
    polynomial = [o for o in made.heads[0].options if o.method.name == "polynomial"]
    assert not isinstance(polynomial[0], Proposal)


def test_one_large_tolerance_is_met_by_the_mid_range(rates):
    """Within 1 of value_radius a polynomial of degree 0 or 1 does, whatever the length."""
    made = subquad.plan(n=2**20, d=64, logit_bound=0.5, tol=1.0, rates=rates)
    assert chosen(made) == {"polynomial"}
    assert made.heads[0].chosen.parameters.degree <= 1


def test_a_constant_column_comes_back_exactly(rates):
    rng = np.random.default_rng(3)
    for dtype in ("float16", "float32", "float64"):
        Q, K, V = rng.standard_normal((3, 200, 4)).astype(dtype)
        Q, V[:, 1] = Q / 16, 1.0 / 3.0  # small logits, so that every method certifies
        for row in ROWS.values():
            result = subquad.attention(Q, K, V, tol=0.1, method=row.method, rates=rates)
            assert np.array_equal(result.output[:, 1], V[:, 1])


@over(WITH_AUTO)
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e153, 1e250])
def test_all_zero_queries_are_a_mean_at_any_scale(row, scale, rates):
    """A row of zeros has norm 0; padding it against underflow must not make it large."""
    rng = np.random.default_rng(4)
    Q, K, V = np.zeros((9, 2)), rng.standard_normal((61, 2)), rng.standard_normal((61, 2))
    result = subquad.attention(Q, K, V, tol=1e-9, scale=scale, method=row.method, rates=rates)
    assert np.all(oracle.row_errors(result.output, Q, K, V, scale) <= result.certificate.row_bounds)
    assert result.certificate.bound <= result.plan.heads[0].chosen.bound
