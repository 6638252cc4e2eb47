"""Heads measured together: each as it is alone, bit for bit, whatever the others are."""

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest

from subquad.engine.cpu import rows as cpu_rows
from subquad.head import centring
from subquad.head.ball import Clouds, ball_centre, ball_centres, balls_of
from subquad.head.centring import measure
from subquad.head.frame import value_units
from subquad.head.problem import Problem
from subquad.head.sides import NotFiniteError


def stack(heads, n, d, dtype, seed=0):
    """Return (heads, n, d): clouds of unlike sizes, about unlike centres, some with far rows."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((heads, n, d))
    x *= 10.0 ** rng.uniform(-3, 3, (heads, 1, 1))
    x += x.std(axis=(1, 2), keepdims=True) * rng.uniform(0, 3, (heads, 1, 1))
    x[::3, -1] *= 100.0
    return x.astype(dtype)


def same(left, right):
    """Return whether two of what is measured are equal in every bit."""
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if hasattr(left, "__dataclass_fields__"):
        return all(same(getattr(left, f.name), getattr(right, f.name)) for f in fields(left))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return left == right


CASES = [
    (1, 1, "float32"),
    (5, 3, "float64"),
    (513, 64, "float32"),
    (513, 64, "float64"),
    (700, 7, "float16"),
    (2049, 16, "float32"),
    (5000, 5, "float32"),
    (20_000, 9, "float32"),
    (9000, 3, "float64"),
]


@pytest.mark.parametrize(("n", "d", "dtype"), CASES)
@pytest.mark.parametrize("with_zero", [False, True])
def test_a_head_is_measured_in_a_stack_as_it_is_alone(n, d, dtype, with_zero, monkeypatch):
    monkeypatch.setattr(centring, "AT_ONCE", 5 * max(n, min(n, centring.SAMPLE) * d, 2**14))
    monkeypatch.setattr(centring, "SEARCHED", 2 * min(n, centring.SAMPLE) * d)
    x = stack(7, n, d, "float64" if dtype == "float64" else "float32")
    x = (x / abs(x).max()).astype(dtype) if dtype == "float16" else x
    together = measure(list(x), with_zero)
    alone = [measure([of_one], with_zero)[0] for of_one in x]
    assert all(map(same, together, alone))
    assert not same(together[0], alone[1])


@pytest.mark.parametrize("layout", ["tokens first", "fortran", "each fortran", "strided"])
def test_layouts_of_memory(layout):
    x = stack(6, 600, 8, "float32")
    if layout == "tokens first":  # (n, heads, d), as projections leave them
        x = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    elif layout == "fortran":
        x = np.asfortranarray(x)
    elif layout == "each fortran":
        x = np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)
    else:
        x = np.repeat(x, 2, axis=1)[:, ::2]
    alone = [measure([of_one], True)[0] for of_one in x]
    assert all(map(same, measure(list(x), True), alone))
    plain = [measure([of_one.copy()], True)[0] for of_one in x]
    for found, other in zip(alone, plain, strict=True):
        assert np.array_equal(found.sample, other.sample) and found.sample.flags.c_contiguous
        assert same(found.centred[0].side, other.centred[0].side)
        assert np.allclose(found.centred[0].norms, other.centred[0].norms, rtol=1e-6)


@pytest.mark.parametrize("head", [0, 3])
@pytest.mark.parametrize("row", [0, 2999])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_row_of_one_head_that_is_not_finite(head, row, value):
    x = stack(4, 3000, 5, "float32")
    x[head, row, 2] = value
    for with_zero in (False, True):
        with pytest.raises(NotFiniteError):
            measure(list(x), with_zero)
    with pytest.raises(NotFiniteError):
        value_units(list(x))


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1.0, 1e30])
def test_a_head_out_of_range_is_measured_anew_and_the_others_are_not_moved(size):
    """The sample does not see the last row: the unit comes from all rows."""
    x = stack(4, 9000, 3, "float64")
    x[2, -1] = 1e25 * abs(x[2]).max()
    x = (x * size).astype("float64")
    found, alone = measure(list(x), True), [measure([of_one], True)[0] for of_one in x]
    assert all(map(same, found, alone))
    assert 2.0**-60 <= found[2].centred[0].largest <= 2.0**60


def test_the_furthest_query_is_kept():
    x = stack(5, 4000, 6, "float32")
    for queries, rows in zip(x, measure(list(x), True), strict=True):
        for about in (rows.about_zero, *rows.centred):
            centred = queries.astype(float) * about.side.in_scale - about.side.centre
            furthest = queries[np.argmax(np.linalg.norm(centred, axis=1))]
            assert np.array_equal(about.furthest, furthest[None])
    assert measure([x[0]], False)[0].centred[0].furthest is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_mean_is_that_of_keys_alone(dtype, monkeypatch):
    """Nothing reads the mean of the queries, so no pass is spent on it."""
    asked, found = [], cpu_rows.centred_norms

    def watched(xs, in_scales, centres, means=True):
        asked.append(means)
        return found(xs, in_scales, centres, means)

    monkeypatch.setattr(cpu_rows, "centred_norms", watched)
    x = stack(3, 200, 4, dtype)
    queries = measure(list(x), with_zero=True)
    assert asked and not any(asked)
    asked.clear()
    keys = measure(list(x), with_zero=False)
    assert asked and all(asked)
    assert all(rows.mean is None for side in queries for rows in (side.about_zero, *side.centred))
    for side, own in zip(keys, x, strict=True):
        for rows in side.centred:
            true = own.astype(float).mean(axis=0) * rows.side.in_scale - rows.side.centre
            assert np.linalg.norm(rows.mean - true) <= rows.slack


def test_values_of_a_stack():
    V = stack(5, 300, 4, "float32")
    for own, (in_scale, mid, radius, low, high) in zip(V, value_units(list(V)), strict=True):
        assert np.array_equal(low, own.min(axis=0)) and np.array_equal(high, own.max(axis=0))
        assert np.all(abs(own * in_scale - mid) <= radius)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps", [1, 64])
def test_balls_of_a_stack(dtype, steps):
    """Nearly the smallest: within a factor 1 + 2/sqrt(steps) of the best found by long search."""
    rng = np.random.default_rng(1)
    points = (rng.standard_normal((6, 90, 4)) ** 3 + rng.standard_normal((6, 1, 4))).astype(dtype)
    starts = points.mean(axis=1)
    found = ball_centres(points, starts, steps)
    for own, start, centre in zip(points, starts, found, strict=True):
        assert np.array_equal(ball_centre(own, start, steps), centre)
        best = ball_centre(own.astype(np.float64), start.astype(np.float64), 20_000)
        reach = [np.linalg.norm(own - c, axis=1).max() for c in (centre, best)]
        assert reach[0] <= reach[1] * (1.0 + 2.0 / np.sqrt(steps))


def test_the_bulk_decides_and_not_what_lies_far_out():
    """Three far points move the mean, not the centre; zero is taken where it is the best."""
    rng = np.random.default_rng(2)
    points = np.stack([rng.uniform(-1, 1, (400, 3)) + move for move in (0.0, 5.0, 0.0)])
    points[2, :3] = 40.0
    centres, typical = bulk_centres(points)
    assert np.linalg.norm(centres[1] - 5.0) < 0.2
    assert np.linalg.norm(centres[2]) < 0.2 < np.linalg.norm(points[2].mean(axis=0))
    assert np.all((0.5 < typical) & (typical < 1.5))
    assert not bulk_centres(np.concatenate([points[:1], -points[:1]], axis=1))[0].any()


def bulk_centres(points):
    clouds = Clouds.of(points, sampled=False)
    return clouds.centres(balls_of(*clouds.some, 64))


def test_heads_that_share_an_array_share_what_is_measured(monkeypatch):
    counts = {"Q": 0, "K": 0, "V": 0}
    for kind, find in dict(problem_measures()).items():

        def counted(xs, kind=kind, find=find):
            counts[kind] += len(xs)
            return find(xs)

        monkeypatch.setitem(problem_measures(), kind, counted)
    x = stack(6, 50, 3, "float32").reshape(2, 3, 50, 3)
    heads = Problem(x, x[:, :1], x[0, 0]).heads
    assert counts == {"Q": 6, "K": 2, "V": 1}
    assert heads[0].sides[1] is heads[2].sides[1] is not heads[3].sides[1]


def problem_measures():
    from subquad.head.problem import MEASURES

    return MEASURES


def test_masked_keys_are_measured_by_their_numbers():
    """Heads that keep as many keys go together; each is as if it had been given alone."""
    x = stack(4, 300, 4, "float32")
    mask = np.ones((4, 300), bool)
    mask[1, 100:], mask[2, :200], mask[3, ::2] = False, False, False
    heads = Problem(x, x, x, key_mask=mask).heads
    for own, kept, head in zip(x, mask, heads, strict=True):
        (single,) = Problem(own, own[kept], own[kept]).heads
        assert same(head.sides[1], single.sides[1]) and same(head.sides[2], single.sides[2])
        assert head.stats.m == kept.sum()


def test_memory_is_that_of_a_group():
    """No copy of all heads is made: what is kept are samples and norms, a fraction of the rows."""
    x = np.random.default_rng(5).standard_normal((16, 40_000, 16), dtype=np.float32)
    measure(list(x[:2]), True)
    tracemalloc.start()
    found = measure(list(x), True)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 16 and kept < 0.2 * x.nbytes and most < 0.4 * x.nbytes
