"""Several thresholds: sound wherever the cuts fall, never predicted dearer, counts as promised."""

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subquad
from experiments.harness import instances
from subquad.arrays.arithmetic import product_up
from subquad.cost.rates import Rates, Speed
from subquad.cost.steps import GATHERED, ORDERED
from subquad.exp_poly.degree import reachable_logit_bound
from subquad.head.problem import Problem
from subquad.methods.method import Proposal, Refusal, stored_norm_bound
from subquad.methods.polynomial.sums import LOGIT_BOUND_MIN, parameters_for
from subquad.methods.thresholds import multi_threshold
from subquad.methods.thresholds.accounts import exact_error
from subquad.methods.thresholds.division import (
    Bucket,
    BucketParameters,
    Cell,
    bucket_height,
    single,
)
from subquad.methods.thresholds.multi_threshold import MultiThreshold
from subquad.methods.thresholds.support_basis import CRITERIA, SupportBasis
from tests import oracle
from tests.methods.refusals import COMPUTE
from tests.methods.table import ROWS
from tests.strategies import recipes
from tests.test_soundness import assert_run_sound, check_all_drawn, single_head

FLOPS = 1e11
_BY_COUNT = Speed(FLOPS, FLOPS / 20.0, FLOPS * 32.0 / 18.0, FLOPS, FLOPS)
BY_COUNT = Rates(_BY_COUNT, _BY_COUNT, overhead=0.0)
"""A machine of d_v = 8 that takes the same time for every operation of `Work.flops`."""
TWICE = Rates(Speed(*(2.0 * x for x in dataclasses.astuple(_BY_COUNT))), _BY_COUNT, overhead=0.0)
"""The same, twice as fast in float32."""


def heavy_tail(n=2048, d=8, **options):
    return instances.heavy_tail(n, d, **{"dof": 2.0, "factor": 0.3, **options})


def outliers(n=2048, d=8):
    return instances.outliers(n, d, fraction=0.01)


def run(Q, K, V, tol, method, **options):
    result = subquad.attention(Q, K, V, tol=tol, method=method, rates=subquad.TYPICAL, **options)
    rows = oracle.some_rows(np.linalg.norm(Q, axis=1), every=4, largest=100)
    error = oracle.row_errors(result.output, Q, K, V, 1.0 / np.sqrt(Q.shape[1]), rows)
    assert np.all(error <= result.certificate.row_bounds[rows])
    assert result.certificate.bound <= result.plan.heads[0].chosen.bound <= tol
    return result


def test_sound_by_entry_on_all_drawn_problems(rates):
    """By norm the table of methods sees to it. Refused is only what `exact` cannot do either."""
    by_entry = MultiThreshold(criterion="entry")
    check_all_drawn(dataclasses.replace(ROWS["multi_threshold"], method=by_entry), rates)


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("data", [heavy_tail, outliers])
def test_sound_on_named_families(data, criterion, tol):
    Q, K, V, _ = data()
    run(Q, K, V, tol, MultiThreshold(criterion=criterion))


@st.composite
def divisions(draw):
    """Draw shares of keys for the cuts; for each bucket shares of queries with degrees, centre."""
    cuts = sorted(draw(st.lists(st.floats(0.0, 1.0), max_size=3)), reverse=True)
    cells = st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 4)), max_size=3)
    four = st.lists(st.booleans(), min_size=4, max_size=4)
    return cuts, [draw(cells) for _ in range(len(cuts) + 1)], draw(four), draw(four)


def division(head, criterion, dtype, cuts, cells, own=(False,) * 4, wide=(False,) * 4):
    """Return the parameters with those cuts, the smallest logit bounds that are true of them.

    By norm, the buckets that are `own` are about their own centres; exact rows of those that are
    `wide` are in float64.
    """
    rows = head.rows
    queries, keys = {
        "norm": (rows.query_norms, rows.key_norms),
        "entry": (rows.query_entries, rows.key_entries),
    }[criterion]
    factor = 1.0 if criterion == "norm" else head.stats.d
    edges = [math.inf, *(float(np.quantile(keys, c, method="lower")) for c in cuts), -1.0]
    buckets = []
    for high, low, drawn, alone, large in zip(edges, edges[1:], cells, own, wide, strict=False):
        made, alone = [], alone and criterion == "norm"
        height = bucket_height(head.stats, criterion, Bucket(low, high, 0, 0, own=alone))
        for share, degree in sorted(drawn):
            largest = float(np.quantile(queries, share, method="lower"))
            b = stored_norm_bound(product_up(factor, largest, height), dtype)
            if b > 20.0:
                break
            p = parameters_for(degree, max(b, LOGIT_BOUND_MIN), dtype, head.stats.d)
            if p.polynomial.upper < 1.0:
                made.append(Cell(largest, int((queries <= largest).sum()), p))
        count = int(((keys > low) & (keys <= high)).sum())
        buckets.append(Bucket(low, high, count, 0, tuple(made), alone, large))
    return BucketParameters(criterion, dtype, tuple(buckets))


@settings(max_examples=settings().max_examples * 2)
@given(
    recipe=recipes(leads=(0,)),
    dtype=st.sampled_from(COMPUTE),
    criterion=st.sampled_from(CRITERIA),
    drawn=divisions(),
)
def test_every_division_has_its_own_true_certificate(recipe, dtype, criterion, drawn):
    """Cuts anywhere, degrees in any order, empty buckets and cells: a true bound, run below it."""
    head = single_head(recipe)
    p = division(head, criterion, dtype, *drawn)
    assert_run_sound(head, MultiThreshold(criterion=criterion), p, dtype)


def test_a_wrong_logit_bound_is_never_certified():
    Q, K, V, scale = heavy_tail()
    stats = Problem(Q, K, V, scale=scale).heads[0].stats
    method = MultiThreshold()
    p = next(iter(method.fit(stats, 1e-2, BY_COUNT))).parameters
    place = max(i for i, bucket in enumerate(p.buckets) if bucket.cells)
    bucket = p.buckets[place]
    cell = bucket.cells[-1]
    small = dataclasses.replace(cell.polynomial, logit_bound=cell.polynomial.logit_bound * 0.7)
    cells = (*bucket.cells[:-1], dataclasses.replace(cell, polynomial=small))
    wrong = dataclasses.replace(
        p,
        buckets=(
            *p.buckets[:place],
            dataclasses.replace(bucket, cells=cells),
            *p.buckets[place + 1 :],
        ),
    )
    assert sum(float(t.value) for t in method.certify(stats, p)) <= 1e-2
    assert not sum(float(t.value) for t in method.certify(stats, wrong)) <= 2.0


def offer_of(method, stats, tol, rates):
    return next(iter(method.fit(stats, tol, rates)))


@pytest.mark.parametrize("rates", [subquad.TYPICAL, BY_COUNT])
@pytest.mark.parametrize("tol", [0.5, 1e-2, 1e-5])
@pytest.mark.parametrize(
    "data",
    [
        heavy_tail(),
        outliers(),
        instances.bounded(900, 3),
        instances.subgaussian(700, 16),
        instances.subgaussian(3000, 4, sigma=0.3, dtype=np.float32),
        instances.planted(300, 8),
    ],
)
def test_never_predicted_dearer_than_one_threshold_on_sorted_rows(data, tol, rates):
    Q, K, V, scale = data
    for head in Problem(Q, K, V, scale=scale).heads[0].views:
        ours = offer_of(MultiThreshold(), head.stats, tol, rates)
        others = (SupportBasis(criterion="norm"), *map(subquad.METHODS.get, ("polynomial",)))
        for other in (offer_of(method, head.stats, tol, rates) for method in others):
            if isinstance(other, Proposal):
                assert isinstance(ours, Proposal)
                # Ours puts its rows in order and takes them from there, which is counted in passes.
                passes = 1.5 + GATHERED + ORDERED
                entries = passes * (len(Q) + len(K)) * (Q.shape[1] + V.shape[1])
                most = rates.seconds(dataclasses.replace(other.work, elements=entries))
                assert rates.seconds(ours.work) <= most * (1.0 + 1e-12)


@pytest.mark.parametrize(
    ("dof", "factor", "wanted"), [(2.0, 0.3, 7.5), (2.0, 0.2, 15.0), (3.0, 0.3, 22.0)]
)
def test_operation_counts_on_heavy_tails(dof, factor, wanted):
    Q, K, V, scale = heavy_tail(32_768, dof=dof, factor=factor)
    stats = Problem(Q, K, V, scale=scale).heads[0].stats
    ours, one, exact = (
        offer_of(method, stats, 1e-2, BY_COUNT)
        for method in (MultiThreshold(), SupportBasis(criterion="norm"), subquad.METHODS["exact"])
    )
    assert exact.work.flops / ours.work.flops >= wanted
    assert one.work.flops / ours.work.flops >= 1.7
    assert len(ours.parameters.buckets) > 2
    assert ours.bound <= 1e-2


@pytest.mark.parametrize(("tol", "outer"), [(1e-2, "float32"), (2e-3, "float64")])
def test_rows_exact_throughout_have_the_tolerance_to_themselves(tol, outer):
    """Heavy tails: no truncation beside the largest queries, so float32 does while it alone does.

    The terms of `certify` are those of the worst rows, with float32 forced those of the largest.
    """
    Q, K, V, scale = heavy_tail(4096)
    head = Problem(Q, K, V, scale=scale).heads[0]
    offer = offer_of(MultiThreshold(), head.stats, tol, TWICE)
    p = offer.parameters
    assert (p.dtype, p.outer) == ("float32", outer)
    assert p.outer_rows > 0
    assert ("the largest in float64" in str(p)) == (outer == "float64")
    assert offer.work.wide_pairs == (p.outer_rows * 4096 if outer == "float64" else 0.0)
    rows = oracle.some_rows(head.rows.query_norms, every=8, largest=128)
    assert_run_sound(head, MultiThreshold(), p, p.dtype, rows)
    forced = dataclasses.replace(p, outer="float32")
    largest = head.rows.query_norms > p.reach
    for q in (p, forced):
        truncation, logits, sums = (t.value for t in MultiThreshold().run(head, q).finish()[1])
        bounds = truncation + logits + sums
        assert 0.9 * p.outer_rows <= largest.sum() <= p.outer_rows
        assert np.all(truncation[largest] == 0.0) and np.all(truncation[~largest] > 0.0)
        proved = sum(float(t.value) for t in MultiThreshold().certify(head.stats, q))
        assert bounds.max() <= proved <= 1.6 * bounds.max()
    assert logits[largest].max() > 8.0 * logits[~largest].max()
    assert (bounds.max() == bounds[largest].max()) == (outer == "float64")


def clusters(n=4000, d=6, far=3.0, seed=0):
    """Nine keys in ten about 0, the others about a far point: small about their own centre."""
    rng = np.random.default_rng(seed)
    Q, K = 0.6 * rng.standard_normal((n, d)), 0.3 * rng.standard_normal((n, d))
    K[: n // 10] += far * rng.standard_normal(d)
    return Q + 0.2, K, rng.standard_normal((n, 3)) + K[:, :3], 1.0


@pytest.fixture
def patient(monkeypatch):
    """Own centres are looked for however little there is to gain."""
    monkeypatch.setattr(multi_threshold, "PATIENCE", 0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tol", [0.3, 0.1, 1e-2])
def test_a_bucket_far_out_gets_its_own_centre(tol, dtype, patient):
    Q, K, V, scale = clusters()
    Q, K, V = (x.astype(dtype) for x in (Q, K, V))
    result = subquad.attention(
        Q, K, V, tol=tol, scale=scale, method=MultiThreshold(), rates=BY_COUNT
    )
    chosen = result.plan.heads[0].chosen
    assert any(b.own for b in chosen.parameters.buckets) and "own centre" in str(chosen.parameters)
    assert result.certificate.bound <= chosen.bound <= tol
    again = result.plan.run(0.99 * Q, K, V)
    rows = oracle.some_rows(np.linalg.norm(Q, axis=1), every=10)
    for found, queries in ((result, Q), (again, 0.99 * Q)):
        error = oracle.row_errors(found.output, queries, K, V, scale, rows)
        assert np.all(error <= found.certificate.row_bounds[rows])


def test_own_centres_cost_less_there(patient, monkeypatch):
    Q, K, V, scale = clusters(8192)
    stats = Problem(Q, K, V, scale=scale).heads[0].stats
    ours = offer_of(MultiThreshold(), stats, 1e-2, BY_COUNT)
    monkeypatch.setattr(multi_threshold, "PATIENCE", math.inf)
    common = offer_of(MultiThreshold(), stats, 1e-2, BY_COUNT)
    assert ours.work.flops < 0.8 * common.work.flops
    assert not any(b.own for b in common.parameters.buckets)


@pytest.mark.parametrize(
    ("name", "least"),
    [("minilm-l5-h0-smallest", 1.2), ("minilm-l5-h11-median", 1.1), ("minilm-l3-h7-median", 1.0)],
)
def test_own_centres_on_real_heads(name, least, monkeypatch):
    """At 1M rows and keys of the same distribution, tol 0.1: how much less than a common centre."""
    Q, K, V, scale = instances.real(name)
    stats = Problem(Q, K, V, scale=scale).heads[0].stats.with_length(2**20)
    offers = []
    for patience in (math.inf, 10.0):
        monkeypatch.setattr(multi_threshold, "PATIENCE", patience)
        offers.append(offer_of(MultiThreshold(), stats, 0.1, BY_COUNT))
    assert offers[0].work.flops / offers[1].work.flops >= least


def test_a_shell_that_is_not_known_is_never_certified():
    Q, K, V, scale = clusters(300)
    head = Problem(Q, K, V, scale=scale).heads[0]
    p = division(head, "norm", "float64", [0.9], [[(1.0, 4)], [(1.0, 3)]], (True, False))
    assert p.buckets[0].cells
    method = MultiThreshold()
    assert sum(float(t.value) for t in method.certify(head.stats, p)) < 2.0
    blind = dataclasses.replace(head.stats, shells=None)
    assert not sum(float(t.value) for t in method.certify(blind, p)) <= 2.0


def test_predicted_counts_are_those_of_the_run():
    """Every rank is known of 64 rows or fewer: buckets, cells and exact rows as counted."""
    Q, K, V, scale = heavy_tail(60, 2)
    head = Problem(Q, K, V, scale=scale).heads[0]
    p = offer_of(MultiThreshold(), head.stats, 0.3, BY_COUNT).parameters
    keys, queries = head.rows.key_norms, head.rows.query_norms
    assert any(bucket.cells for bucket in p.buckets)
    for bucket in p.buckets:
        assert bucket.keys == ((keys > bucket.smallest) & (keys <= bucket.largest)).sum()
        above = max((cell.largest for cell in bucket.cells), default=-1.0)
        assert bucket.exact_rows == (queries > above).sum()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 70), (70, 1), (2, 3)])
def test_few_rows(n, m, criterion):
    rng = np.random.default_rng(n + m)
    Q, K, V = rng.standard_normal((n, 4)), rng.standard_normal((m, 4)), rng.standard_normal((m, 3))
    run(Q, K, V, 1e-3, MultiThreshold(criterion=criterion))


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("size", [0.0, 0.5, 30.0])
def test_equal_magnitudes(criterion, size):
    """No order to cut by; all zero, all small, all large."""
    rng = np.random.default_rng(0)
    Q, K = rng.choice([-size, size], (2, 300, 4))
    result = run(Q, K, rng.standard_normal((300, 2)), 1e-2, MultiThreshold(criterion=criterion))
    degenerate = [b for b in result.plan.heads[0].chosen.parameters.buckets if b.keys == 0]
    assert not degenerate


@pytest.mark.parametrize("which", ["queries", "keys"])
def test_all_rows_large_on_one_side(which):
    """One side 1,000 times the other's reciprocal: thresholds of the two sides are apart."""
    Q, K, V, _ = heavy_tail(600)
    ratio = 1e3 if which == "queries" else 1e-3
    plain = run(Q, K, V, 1e-2, MultiThreshold()).plan.heads[0].chosen
    moved = run(Q * ratio, K / ratio, V, 1e-2, MultiThreshold()).plan.heads[0].chosen
    assert moved.work.flops == pytest.approx(plain.work.flops, rel=0.05)


def test_one_threshold_and_one_polynomial_are_divisions():
    """The same sums as `polynomial`, when one cell holds all; the rows put in order besides."""
    Q, K, V, scale = instances.bounded(300, 4)
    head = Problem(Q, K, V, scale=scale).heads[0]
    offer = offer_of(subquad.METHODS["polynomial"], head.stats, 1e-2, subquad.TYPICAL)
    p = single(head.stats, "norm", math.inf, math.inf, (0, 0), offer.parameters)
    work = MultiThreshold().work(head.stats, p)
    assert work.elements > offer.work.elements
    assert dataclasses.replace(work, elements=offer.work.elements) == offer.work
    a, b = (
        m.run(head, q).finish()[0]
        for m, q in ((MultiThreshold(), p), (offer.method, offer.parameters))
    )
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("degree", range(12))
@pytest.mark.parametrize("eps", [1e-9, 1e-2, 0.3])
def test_the_reachable_logit_bound_is_within_eps_and_nearly_the_largest(degree, eps):
    b = reachable_logit_bound(degree, eps, LOGIT_BOUND_MIN)
    assert subquad.minimal_degree(b * (1.0 - 1e-4), eps).degree <= degree
    if b < 60.0:
        assert subquad.minimal_degree(b * 1.02, eps).degree > degree


def test_refuses_where_magnitudes_are_unknown():
    made = subquad.plan(
        n=100, d=4, logit_bound=0.5, tol=1e-2, method=MultiThreshold(), rates=subquad.TYPICAL
    )
    (offer,) = made.heads[0].options
    assert isinstance(offer, Refusal)
    assert "magnitudes" in offer.reason


def test_printed_on_one_line():
    Q, K, V, scale = heavy_tail()
    stats = Problem(Q, K, V, scale=scale).heads[0].stats
    text = str(offer_of(MultiThreshold(), stats, 1e-2, BY_COUNT).parameters)
    pattern = (
        r"\d buckets by norm: degrees( \d+)+, exact [\d,]+ keys; "
        r"[\d,]+( to [\d,]+)? rows exact, float(64|32(, the largest in float64)?)"
    )
    assert re.fullmatch(pattern, text)


@pytest.mark.parametrize("data", [heavy_tail, outliers])
def test_more_thresholds_never_cost_more(data):
    Q, K, V, scale = data()
    stats = Problem(Q, K, V, scale=scale).heads[0].stats
    offers = [
        offer_of(MultiThreshold(buckets=most), stats, 1e-2, BY_COUNT)
        for most in (0, 1, 2, 4, 8, None)
    ]
    used = [sum(bool(b.cells) for b in o.parameters.buckets) for o in offers]
    assert used[0] == 0
    assert all(a <= b for a, b in zip(used, (0, 1, 2, 4, 8), strict=False))
    costs = [BY_COUNT.seconds(o.work) for o in offers]
    # What a call costs is charged after the search, so nearly.
    assert all(b <= a * 1.01 for a, b in zip(costs, costs[1:], strict=False))
    assert str(offers[0].parameters) == "by norm, every pair exact, float32"
    assert offers[0].work.feature_tokens == 0.0


@pytest.mark.parametrize("buckets", [0, 1, 2])
def test_a_given_number_of_buckets_runs(buckets):
    Q, K, V, _ = heavy_tail(600)
    run(Q, K, V, 1e-2, MultiThreshold(buckets=buckets))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"criterion": "rows"}, "`criterion` is 'rows'; the criteria are norm, entry."),
        ({"buckets": -1}, "`buckets` is -1; pass an integer of at least 0"),
        ({"buckets": 2.5}, "`buckets` is 2.5; pass an integer of at least 0"),
        ({"buckets": True}, "`buckets` is True; pass an integer of at least 0"),
    ],
)
def test_bad_parameters(options, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        MultiThreshold(**options)


def test_reach_bounds_exact_logits_unless_queries_are_centred():
    """Magnitudes are about the centre, exact logits about zero."""
    Q, K, V, scale = heavy_tail(512)
    stats = Problem(Q, K, V, scale=scale).heads[0].stats
    assert not stats.keys_weighted
    reach = stats.full_query_norm / 50.0
    near, all_of_them = (exact_error(stats, "norm", np.inf, "float32", r) for r in (reach, np.inf))
    assert near < all_of_them / 10.0
    keys_weighted = dataclasses.replace(stats, keys_weighted=True)
    assert exact_error(keys_weighted, "norm", np.inf, "float32", reach) == all_of_them
