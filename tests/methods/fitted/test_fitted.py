"""Fitted polynomials: true row bounds on any data, rows above tol exact, gains as announced."""

import dataclasses
import gc
import math
import re
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subquad
from experiments.harness import instances
from subquad.exp_poly.majorant import fit_pair
from subquad.head.problem import Problem, measure_head
from subquad.head.sides import OrderStatistics
from subquad.methods.exact import ExactParameters
from subquad.methods.fitted.choice import (
    DEGREES,
    FITTED_LOGIT_BOUND_MAX,
    GROUPS,
    FittedParameters,
    group_edges,
    key_cuts,
    predicted,
)
from subquad.methods.fitted.method import Fitted
from subquad.methods.fitted.sums import grouped, rows_partial, small_key_state
from subquad.methods.method import Proposal, Refusal, storage_term
from tests import oracle
from tests.strategies import recipes


def single_head(Q, K, V, scale=None):
    return Problem(Q, K, V, scale=scale).heads[0]


def parameters(head, degree, dtype="float64", level=2.0, share=1.0):
    """Return parameters by force; the keys above the quantile `share` of the norms are exact."""
    rows = head.rows
    cut = float(np.quantile(rows.key_norms, share, method="lower"))
    edges = group_edges(rows.query_norms.max(), np.quantile(rows.query_norms, 0.1), cut)
    return FittedParameters(degree, edges, dtype, 1, 0.0, level, cut)


def row_bounds(head, p):
    """Return the output of a forced run and each row's own bound, nothing sent elsewhere."""
    output, terms = Fitted().run(head, p).finish()
    return output, sum(t.value for t in (*terms, storage_term(head.stats, p.dtype))), terms


def assert_sound(head, p):
    output, bounds, _ = row_bounds(head, p)
    error = np.abs(output - oracle.attention(head.Q, head.K, head.V, head.scale)).max(axis=1)
    assert np.all((error <= bounds) | np.isinf(bounds))
    return bounds, error


@pytest.mark.parametrize(
    ("degree", "dtype"), [(2, "float32"), (4, "float64"), (4, "float32"), (6, "float64")]
)
@pytest.mark.parametrize("share", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("offset", [0.0, 5.0])
@pytest.mark.parametrize("name", ["subgaussian", "heavy_tail", "outliers", "planted"])
def test_row_bounds_are_true(name, offset, share, degree, dtype):
    Q, K, V, scale = instances.FAMILIES[name](300, 4, m=500, d_v=3)
    head = single_head(0.5 * Q + offset, K - offset, V, scale)
    for view in head.views:
        bounds, _ = assert_sound(view, parameters(view, degree, dtype, share=share))
        assert (name, offset) != ("subgaussian", 0.0) or np.isfinite(bounds).all()


@settings(max_examples=settings().max_examples // 2)
@given(
    recipe=recipes(leads=(0,)),
    degree=st.sampled_from(DEGREES),
    shares=st.floats(0.0, 1.0),
    small=st.floats(0.0, 1.0),
)
def test_drawn_problems_have_true_row_bounds(recipe, degree, shares, small):
    """Any groups, any data, any keys exact: a bound may be infinite, never too small."""
    data = recipe.build()
    problem = Problem(data.Q, data.K, data.V, scale=data.scale, key_mask=data.key_mask)
    head = problem.heads[0]
    if head.stats.d ** min(degree, 4) > 5000:
        return
    p = dataclasses.replace(
        parameters(head, degree, share=small),
        edges=tuple(np.quantile(head.rows.query_norms, [shares / 2.0, shares], method="lower")),
    )
    bounds, _ = assert_sound(head, p)
    assert np.isinf(bounds[head.rows.query_norms > p.edges[-1]]).all()


def test_the_additive_bound_is_attained():
    """Most keys where m is nearly 0, a few where the error is the majorant: within a factor 2."""
    rng = np.random.default_rng(0)
    logits = np.clip(0.1 * rng.standard_normal((8, 2000)), -1.0, 1.0)
    pair = fit_pair(2, 1.0, np.stack([(logits**k).sum(axis=1) for k in range(3)], axis=1))
    x = np.linspace(-1.0, 1.0, 20_001)
    value = np.polynomial.polynomial.polyval
    error, m = np.exp(x) - value(x, pair.polynomial), value(x, pair.majorant)
    home = np.argmin(m)
    far = np.argmax(np.where(np.abs(error) > 0.999 * m, m, 0.0))
    assert m[home] < 1e-3 * m[far]
    counts = (1950, 50)
    x, sign = x[[home, far]], np.sign(error[far])
    sums = np.array([np.dot(counts, x**k) for k in range(3)])
    computed = np.array(counts) * value(x, pair.polynomial)
    bound = 2.0 * (sums @ pair.majorant) / computed.sum()
    true = np.array(counts) * np.exp(x)
    V = np.array([-sign, sign])
    measured = abs(V @ computed / computed.sum() - V @ true / true.sum())
    assert 0.0 < measured <= bound <= 1.2 * measured


def test_the_error_of_a_row_is_the_sum_of_the_majorant():
    """Nothing is lost on the way: 2 m . sums / normaliser, next to nothing added for rounding."""
    Q, K, V, scale = instances.subgaussian(200, 4, sigma=0.5)
    head = single_head(Q, K, V, scale)
    rows, p = np.arange(200), parameters(head, 4)
    largest = float(head.rows.query_norms.max()), float(head.rows.key_norms.max())
    state, logit_bound = small_key_state(head, p, largest[0], rows, largest[1])
    logits = head.frame.queries(Q, "float64") @ head.frame.keys(K, "float64").T
    weights = head.frame.key_weights(K)[0]
    weights = np.ones(200) if weights is None else weights
    sums = np.stack([logits**k @ weights for k in range(5)], axis=1)
    pair = fit_pair(4, logit_bound, sums)
    partial = rows_partial(head, rows, state, pair, "float64", logit_bound)
    assert np.allclose(partial.error, sums @ pair.majorant, rtol=1e-6)
    true = np.abs(np.exp(logits) - np.polynomial.polynomial.polyval(logits, pair.polynomial))
    assert np.all(true @ weights <= partial.error)
    # But for a few rows on all of whose logits |exp - p| happens to be small: there more is lost.
    lost = partial.error / (true @ weights)
    assert np.median(lost) < 2.0
    assert np.quantile(lost, 0.97) < 3.0
    truncation = partial.finish()[1][0].value
    assert np.allclose(truncation, 2.0 * (sums @ pair.majorant) / (sums @ pair.polynomial))


def test_rows_above_tol_go_exact(rates):
    Q, K, V, scale = instances.subgaussian(6000, 4, sigma=0.4)
    Q[::500] *= 3.0
    tol = 1e-3
    result = subquad.attention(Q, K, V, tol=tol, scale=scale, method=Fitted(), rates=rates)
    chosen, bounds = result.plan.heads[0].chosen, result.certificate.row_bounds
    assert chosen.parameters.degree in DEGREES
    truncation = result.certificate.terms[0].value
    exact = truncation == 0.0
    assert 0 < exact.sum() < 600
    assert abs(exact.mean() - chosen.parameters.exact_share) < 0.01
    assert bounds.max() <= tol
    assert bounds.max() <= chosen.bound
    rows = np.union1d(np.flatnonzero(exact), np.arange(0, 6000, 25))
    error = oracle.row_errors(result.output, Q, K, V, scale, rows)
    assert np.all(error <= bounds[rows])
    assert error[exact[rows]].max() < 1e-12 < error[~exact[rows]].max()


def test_far_cheaper_than_exact_where_the_split_by_norm_gains_little(rates):
    """Gaussian, d = 64, sigma 0.3, n = 65,536, tol 1e-2: the plan, by count."""
    Q, K, V, scale = instances.subgaussian(65_536, 64, sigma=0.3, dtype=np.float32)
    made = subquad.plan(Q, K, V, tol=1e-2, scale=scale, method=Fitted(), rates=rates)
    chosen = made.heads[0].chosen
    pairs = 65_536**2 * (2 * 64 + 2 * 65 + 20)
    assert pairs / chosen.work.flops >= 15.0
    assert chosen.parameters.exact_share < 0.02


@pytest.mark.parametrize(("d", "wanted"), [(8, 200.0), (64, 15.0)])
def test_a_few_huge_keys_do_not_defeat_it(d, wanted, rates):
    """One key in 1,000 twenty times larger, n = 65,536: by count, and nothing without the cut."""
    Q, K, V, scale = instances.outliers(65_536, d, beta=0.5, dtype=np.float32)
    made = subquad.plan(Q, K, V, tol=1e-2, scale=scale, method=Fitted(), rates=rates)
    chosen = made.heads[0].chosen
    pairs = 65_536**2 * (2 * d + 2 * (d + 1) + 20)
    assert pairs / chosen.work.flops >= wanted
    assert 66 <= chosen.parameters.large_keys <= 70
    assert chosen.parameters.exact_share < 0.002
    stats = single_head(Q, K, V, scale).stats
    blind = min(p.exact_share for p in predicted(stats, chosen.parameters.degree, 1e-2))
    assert blind > 0.9


def test_huge_keys_are_exact_and_rows_bounded(rates):
    Q, K, V, scale = instances.outliers(8000, 4, beta=0.5)
    result = subquad.attention(Q, K, V, tol=1e-2, scale=scale, method=Fitted(), rates=rates)
    chosen, bounds = result.plan.heads[0].chosen, result.certificate.row_bounds
    assert chosen.parameters.large_keys == 8
    assert "8 keys exact, " in str(chosen.parameters)
    rows = oracle.some_rows(np.linalg.norm(Q, axis=1), every=25)
    assert np.all(oracle.row_errors(result.output, Q, K, V, scale, rows) <= bounds[rows])
    assert bounds.max() <= chosen.bound <= 1e-2
    exact = result.certificate.terms[0].value == 0.0
    assert abs(exact.mean() - chosen.parameters.exact_share) < 0.002


def test_cuts_lie_under_gaps():
    norms = np.concatenate([np.full(900, 0.8), np.linspace(0.9, 1.0, 93), np.full(7, 20.0)])
    stats = OrderStatistics.of(norms)
    assert key_cuts(stats) == [(math.inf, 0), (1.0, 7)]
    assert key_cuts(OrderStatistics.of(np.ones(1000))) == [(math.inf, 0)]
    assert key_cuts(OrderStatistics.of(np.array([3.0]))) == [(math.inf, 0)]


def test_rows_that_go_exact_cost_what_float64_costs():
    """The fallback runs in float64 whatever the plan's dtype."""
    stats = single_head(*instances.subgaussian(500, 4)).stats
    p = FittedParameters(2, (1.0,), "float32", 15, 0.5, 1e-2)
    work = Fitted().work(stats, p)
    assert (work.pairs, work.wide_pairs) == (0.0, 0.5 * 500 * 500)
    slow = subquad.Rates(subquad.TYPICAL.float32, subquad.Speed(*[1.0] * 5))
    assert slow.seconds(work) > 0.5 * 500 * 500


def test_where_nothing_pays_it_is_no_offer_and_runs_by_name(rates):
    Q, K, V, scale = instances.subgaussian(400, 16)
    made = subquad.plan(Q, K, V, tol=1e-3, scale=scale, rates=rates)
    (ours,) = (o for o in made.heads[0].options if o.method.name == "fitted")
    assert isinstance(ours, Refusal)
    stats = made.heads[0].stats
    (told,) = Fitted().fit(stats, 1e-3, rates, budget=1.0)
    assert isinstance(told, Refusal)
    assert told.reason == "no degree saves: every row would go exact"
    (dear,) = Fitted().fit(stats, 1e-3, rates, budget=1e-9)
    assert isinstance(dear, Refusal) and dear.reason.startswith("at least ")
    result = subquad.attention(Q, K, V, tol=1e-3, scale=scale, method="fitted", rates=rates)
    chosen = result.plan.heads[0].chosen
    assert chosen.parameters.exact_share == 1.0 and "every row exact" in str(chosen.parameters)
    exact = next(iter(subquad.METHODS["exact"].fit(stats, 1e-3, rates)))
    assert rates.seconds(chosen.work) > rates.seconds(exact.work)
    assert np.all(oracle.row_errors(result.output, Q, K, V, scale) <= result.certificate.row_bounds)


def test_queries_past_any_degree_are_in_no_group():
    """On other data keys may be larger than planned: such rows are left to the exact method."""
    norms = np.array([0.5, 3.0, 1.0, 15.9, 16.1, 0.2])
    groups = grouped(norms, (0.5, 2.0, 1e9), 1.0)
    assert [g.tolist() for g in groups] == [[0, 5], [2], [1, 3]]
    assert grouped(norms, (0.5, 2.0), 100.0) == []
    Q, K, V, scale = instances.subgaussian(200, 4, sigma=0.3)
    head = single_head(Q, 900.0 * K, V, scale)
    bounds, _ = assert_sound(head, dataclasses.replace(parameters(head, 2), edges=(1e9,)))
    assert np.isinf(bounds).all()


def test_exact_keys_bring_the_logit_error_of_the_exact_method():
    head = single_head(*instances.outliers(600, 4, fraction=0.02))
    _, bounds, terms = row_bounds(head, parameters(head, 4, "float32", share=0.97))
    exact = subquad.METHODS["exact"].run(head, ExactParameters("float32")).finish()[1]
    served = np.isfinite(bounds)
    assert served.mean() > 0.9
    assert np.all(terms[1].value[served] >= exact[1].value[served] * (1.0 - 1e-9))


def test_queries_out_of_reach_of_any_degree_are_refused(rates):
    Q, K, V, scale = instances.subgaussian(400, 16, sigma=6.0)
    made = subquad.plan(Q, K, V, tol=1e-2, scale=scale, method=Fitted(), rates=rates)
    (option,) = made.heads[0].options
    assert isinstance(option, Refusal)
    assert option.reason.startswith("nine queries in ten may reach logits past 16")


@pytest.mark.parametrize(
    ("n", "m", "d", "d_v"),
    [(1, 1, 1, 1), (1, 50, 3, 2), (50, 1, 3, 2), (5, 5, 1, 1), (9, 61, 2, 4)],
)
@pytest.mark.parametrize("size", [0.0, 1e-12, 0.3, 3.0])
def test_degenerate_shapes_and_sizes(n, m, d, d_v, size, rates):
    rng = np.random.default_rng(1)
    Q, K, V = size * rng.standard_normal((n, d)), rng.standard_normal((m, d)), np.ones((m, d_v))
    V[:, 0] = rng.standard_normal(m)
    result = subquad.attention(Q, K, V, tol=1e-6, method=Fitted(), rates=rates)
    assert np.all(
        oracle.row_errors(result.output, Q, K, V, 1.0 / np.sqrt(d)) <= result.certificate.row_bounds
    )
    head = single_head(Q, K, V)
    for degree in DEGREES:
        assert_sound(head, parameters(head, degree))


def test_equal_magnitudes_make_one_group():
    assert group_edges(1.5, 1.5, 1.0) == (1.5,)
    assert group_edges(0.0, 0.0, 1.0) == (0.0,)
    assert group_edges(1.0, 0.5, 0.0)[-1] == 1.0
    edges = group_edges(2.0, 1.0, 1.0)
    assert len(edges) == GROUPS and edges[0] == 1.0 and edges[-1] == 2.0
    assert group_edges(100.0, 1.0, 1.0)[-1] < FITTED_LOGIT_BOUND_MAX
    assert group_edges(100.0, 50.0, 1.0) == ()


def test_other_data_than_those_of_the_plan_are_proved_anew(rates):
    Q, K, V, scale = instances.subgaussian(4096, 4, sigma=0.3)
    made = subquad.plan(Q, K, V, tol=1e-2, scale=scale, method=Fitted(), rates=rates)
    assert made.heads[0].chosen.parameters.degree in DEGREES
    rows = oracle.some_rows(np.linalg.norm(Q, axis=1), every=15)
    for factor in (0.5, 3.0, 60.0):
        result = made.run(factor * Q, factor * K, V)
        bounds = result.certificate.row_bounds
        assert bounds.max() <= 1e-2
        error = oracle.row_errors(result.output, factor * Q, factor * K, V, scale, rows)
        assert np.all(error <= bounds[rows])


def test_heads_masks_and_dtypes(rates):
    rng = np.random.default_rng(2)
    Q, K, V = (0.4 * rng.standard_normal((2, 300, 4)).astype(np.float32) for _ in range(3))
    mask = rng.random((2, 300)) < 0.7
    result = subquad.attention(Q, K, V, tol=1e-2, key_mask=mask, method=Fitted(), rates=rates)
    for index, q, k, v in oracle.heads(Q, K, V, mask):
        errors = oracle.row_errors(result.output[index], q, k, v, 0.5)
        assert np.all(errors <= result.certificate.row_bounds[index])


def test_without_data_it_says_what_it_needs(rates):
    made = subquad.plan(n=65_536, d=8, logit_bound=0.5, tol=1e-2, method=Fitted(), rates=rates)
    option = made.heads[0].options[0]
    assert isinstance(option, Refusal) and "needs a sample of rows: give data" in str(made)


def test_a_tolerance_below_the_exact_rows_is_refused(rates):
    Q, K, V, scale = instances.subgaussian(64, 4)
    with pytest.raises(subquad.ToleranceError, match="rows that go exact leaves no room"):
        subquad.attention(Q, K, V, tol=1e-17, scale=scale, method=Fitted(), rates=rates)


def test_the_plan_says_that_the_bound_is_predicted(rates):
    Q, K, V, scale = instances.subgaussian(4096, 4, sigma=0.3)
    made = subquad.plan(Q, K, V, tol=1e-2, scale=scale, method=Fitted(), rates=rates)
    text = str(made)
    assert "predicted, to be certified by the run" in text
    assert re.search(r"degree \d, r \d+, 8 groups of rows, about [0-9.]+ % of rows exact", text)
    offer = made.heads[0].chosen
    assert isinstance(offer, Proposal) and offer.fallback == 1.0
    assert 0.99e-2 <= offer.bound <= 1e-2


def test_without_the_exact_method_no_row_may_fall_back(rates):
    Q, K, V, scale = instances.subgaussian(2048, 4, sigma=0.3)
    with pytest.raises(subquad.ToleranceError):
        subquad.attention(
            Q, K, V, tol=1e-2, scale=scale, method=Fitted(), allow_exact=False, rates=rates
        )


def test_the_sample_lets_go_of_the_arrays():
    Q, K, V, scale = instances.subgaussian(200, 4)
    sample = measure_head(Q, K, V, scale).stats.sample
    assert sample() is sample()
    known = weakref.ref(Q), weakref.ref(K)
    del Q, K, V
    gc.collect()
    assert [array() for array in known] == [None, None]
    assert abs(sample().shares.sum() - 1.0) < 1e-12


def test_the_sample_begins_with_the_largest_query():
    """Its sums are those over all keys, which are all in the sample here."""
    Q, K, V, scale = instances.subgaussian(200, 4)
    head = measure_head(Q, K, V, scale)
    sample = head.stats.sample()
    logits = head.frame.queries(Q, "float64") @ head.frame.keys(K, "float64").T
    order = np.argsort(-head.rows.query_norms)
    weights = head.frame.key_weights(K)[0]
    weights = np.ones(200) if weights is None else weights
    expected = [np.average(logits[order[0]] ** k, weights=weights) for k in range(3)]
    assert np.allclose(sample.sums[0, :3], expected)
    assert sample.norms[0] == head.rows.query_norms.max()
    cut = float(np.quantile(head.rows.key_norms, 0.7))
    small = np.linalg.norm(head.frame.keys(K, "float64"), axis=1) <= cut
    assert 0 < small.sum() < 200
    expected = [logits[order[0], small] ** k @ weights[small] / weights.sum() for k in range(3)]
    assert np.allclose(head.stats.sample(cut).sums[0, :3], expected)
