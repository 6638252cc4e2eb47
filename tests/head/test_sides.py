"""Centres, norms and order statistics of one side: true for all rows, whatever the sample."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest

from subquad.arrays.lazy import Lazy
from subquad.head.ball import ball_centre
from subquad.head.centring import SAMPLE, measure
from subquad.head.problem import Problem
from subquad.head.sides import EXACT_RANKS, NotFiniteError, OrderStatistics


def cloud(n, d=5, seed=0, far=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    x[rng.permutation(n)[:far]] *= 100.0
    return x.astype(dtype)


def measured(x, queries=False):
    return measure([x], queries)[0]


@pytest.mark.parametrize("n", [1, 2, 50, SAMPLE, SAMPLE + 1, 30_000])
@pytest.mark.parametrize("shift", [0.0, 7.0])
def test_norms_bound_every_row(n, shift):
    x = cloud(n) + np.float32(shift)
    for rows in measured(x).centred:
        away = np.linalg.norm(x.astype(float) * rows.side.in_scale - rows.side.centre, axis=1)
        assert np.all(rows.norms >= away * (1.0 - 2.0**-50))
        assert rows.largest == rows.norms.max()
        assert np.all(
            np.float32(rows.side.centre / rows.side.in_scale) * rows.side.in_scale
            == rows.side.centre
        )


def test_a_centre_is_taken_where_it_is_worth_it():
    """Zero for rows about zero, so that nothing is subtracted; elsewhere what is much smaller."""
    assert not measured(cloud(20_000)).centred[0].side.centre.any()
    shifted = measured(cloud(20_000) + np.float32(7.0), queries=True)
    assert shifted.centred[0].largest < 0.5 * shifted.about_zero.largest
    near = measured(cloud(20_000), queries=True)
    assert near.centred == (near.about_zero,)


def test_a_few_far_rows_have_a_view_of_their_own():
    """They do not move the centre of the bulk; the ball of all is the second."""
    x = cloud(20_000, far=3)
    x[:] += np.float32(0.5)
    first, whole = measured(x).centred
    assert whole.largest < first.largest
    assert np.median(first.norms) < np.median(whole.norms)
    assert len(measured(cloud(20_000)).centred) == 1


def test_far_rows_outside_the_sample_are_seen():
    x = cloud(20_000)
    x[-1] *= 1e20  # rows are sampled from the first on, every so many
    rows = measured(x).centred[0]
    assert rows.largest >= np.linalg.norm(x[-1].astype(float)) * rows.side.in_scale * (
        1.0 - 2.0**-50
    )
    assert 2.0**-60 <= rows.largest <= 2.0**60


@pytest.mark.parametrize("place", [0, 19_999])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite(place, value):
    x = cloud(20_000)
    x[place, 1] = value
    with pytest.raises(NotFiniteError):
        measured(x)


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_the_range_is_no_matter(size):
    x = cloud(9000, dtype=np.float64) * size
    x[-1] *= 1e-7
    rows = measured(x).centred[0]
    assert 0.5 <= rows.largest <= 64.0


def test_ball_centre():
    """Three points on a circle and others inside: its centre, not the mean."""
    rng = np.random.default_rng(0)
    on = np.array([[1.0, 0.0], [-0.6, 0.8], [-0.6, -0.8]])
    inside = 0.3 * rng.random((50, 2)) + 0.4
    points = np.concatenate([on, inside]) + 5.0
    centre = ball_centre(points, points.mean(axis=0), steps=2000)
    assert np.linalg.norm(centre - 5.0) < 0.05 < np.linalg.norm(points.mean(axis=0) - 5.0)


@pytest.mark.parametrize("n", [1, 5, 64, 65, 5000, 9000, 70_000])
@pytest.mark.parametrize("kind", ["heavy", "equal", "zero", "tiny"])
def test_order_statistics_bound_the_rows_above(n, kind):
    rng = np.random.default_rng(n)
    x = np.abs(rng.standard_normal(n)).astype(np.float32)
    x = {"heavy": x**9, "equal": np.full_like(x, 0.3), "zero": 0 * x, "tiny": 1e-40 * x}[kind]
    order = OrderStatistics.of(x, 0.7)
    true = np.sort(x.astype(float) * 0.7)[::-1]
    assert order.largest == true[0] == order.values[0]
    assert np.all(order.values >= true[order.ranks]) and np.all(np.diff(order.values) <= 0.0)
    assert np.array_equal(order.values[:EXACT_RANKS], true[:EXACT_RANKS])
    assert np.all(order.values - true[order.ranks] <= true[0] * 2.0**-15)
    for threshold in (*rng.choice(true, 5), 0.0, true[0]):
        assert order.count_above(threshold) >= np.count_nonzero(true > threshold)


def test_lazy():
    calls, kept = [], np.ones(3)
    gone = weakref.ref(kept)

    def found_of(array):
        return Lazy(lambda: calls.append(1) or array.sum())

    found = found_of(kept)
    del kept
    assert not found.known and found() == found() == 3.0 and found.known
    gc.collect()
    assert calls == [1] and gone() is None
    other = Lazy(lambda: 1.0, released=5.0)
    found.release()
    other.release()
    assert (found(), other()) == (3.0, 5.0)


def test_threads_that_ask_at_once_find_once():
    """Both ask before either has found: the second waits, it neither finds again nor gets None."""
    calls, begun, go = [], threading.Event(), threading.Event()

    def find():
        calls.append(1)
        begun.set()
        assert go.wait(60)
        return 7.0

    found = Lazy(find)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(found)
        assert begun.wait(60)
        second = pool.submit(found)
        wait([second], timeout=0.2)
        assert not second.done()
        go.set()
        assert (first.result(60), second.result(60)) == (7.0, 7.0)
    assert calls == [1]


def test_what_raised_is_asked_again():
    answers = iter([ZeroDivisionError(), 3.0])

    def find():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = Lazy(find)
    with pytest.raises(ZeroDivisionError):
        found()
    assert not found.known and found() == 3.0


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entries_bound_norms(d, dtype):
    """d times the product of two largest entries is never below the product of the two norms."""
    Q, K = cloud(3000, d, dtype=dtype), cloud(3000, d, seed=1, dtype=dtype)
    rows = Problem(Q, K, K).heads[0].rows
    for norms, entries in (
        (rows.query_norms, rows.query_entries),
        (rows.key_norms, rows.key_entries),
    ):
        assert np.all(np.sqrt(d) * entries >= norms)
        assert np.all(entries <= norms * (1.0 + 2.0**-49))
