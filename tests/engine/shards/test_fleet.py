"""Shards of rows: what is exchanged, sums in the order of the ranks, passes over rows in shards."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subquad import engine
from subquad.engine import lengths as engine_lengths
from subquad.engine import naive
from subquad.engine.rows import fused_operands, rows_of
from subquad.engine.shards import rows as shards_rows
from subquad.engine.shards.fleet import ordered_sum
from subquad.engine.shards.fleets import CpuFleet, fleet_of
from subquad.engine.state import State
from tests.fleets import in_processes

LAYOUTS = ([1.0], [1.0, 2.5, 0.3], [1.0, 0.0, 2.0], [0.0, 1.0], [1.0] * 7)


def integers(seed, rows, columns, least=-8):
    return np.random.default_rng(seed).integers(least, 9, (rows, columns)).astype(np.float64)


@pytest.mark.parametrize("shares", LAYOUTS)
@pytest.mark.parametrize("rows", [0, 1, 3, 100, 101])
def test_rows_are_divided_in_order_and_come_home(shares, rows):
    x, fleet = integers(rows, rows, 3), CpuFleet(shares)
    placed = fleet.place(x)
    assert placed.shape == x.shape
    assert [len(part) for part in placed.parts] == np.diff(placed.starts).tolist()
    for part, share in zip(placed.parts, shares, strict=True):
        assert abs(len(part) - rows * share / sum(shares)) <= 1.0
    assert np.array_equal(fleet.home(placed.parts, x), x)
    assert all(np.array_equal(whole, x) for whole in placed.joined())
    own = placed.own(x)
    assert all(np.array_equal(a, b) for a, b in zip(own, placed.parts, strict=True))
    kept = [np.flatnonzero(part[:, 0] > 0) for part in placed.parts]
    assert np.array_equal(placed.take(kept).joined()[0], x[x[:, 0] > 0])


@pytest.mark.parametrize("shares", [[], [0.0], [1.0, -1.0], [1.0, math.nan], [math.inf, 1.0]])
def test_shares_that_divide_nothing_are_refused(shares):
    with pytest.raises(ValueError, match="`shares`"):
        CpuFleet(shares)


def test_what_devices_stand_for():
    assert fleet_of(None) is None
    fleet = CpuFleet([1.0, 3.0])
    assert fleet_of(fleet) is fleet
    assert fleet_of(["cpu"] * 3).ranks == 3
    assert fleet_of(("cpu",)).speedup == 1.0
    for bad in (8, [], ["cpu", 0], [True], [-1], ["cuda:0"], [1.0], "cpu"):
        with pytest.raises(ValueError, match="`devices`"):
            fleet_of(bad)
    with pytest.raises(TypeError, match="`devices` names CPUs"):
        fleet.carry([1.0])


numbers = st.floats(-1e100, 1e100, allow_subnormal=False)


@given(st.lists(numbers, min_size=1, max_size=40))
def test_a_sum_over_ranks_is_one_rounding_from_the_truth(values):
    found = Fraction(float(ordered_sum(np.array(values))))
    exact, absolute = sum(map(Fraction, values)), sum(abs(Fraction(x)) for x in values)
    u = Fraction(1, 2**53)
    assert abs(found - exact) <= u * abs(exact) + (len(values) * u) ** 2 * absolute


def test_plain_addition_would_not_be():
    """The check above can fail: 2**53 + 1 + 1 loses both ones without what Sum2 keeps."""
    values = np.array([2.0**53, 1.0, 1.0, -(2.0**53)])
    assert ordered_sum(values) == 2.0
    assert values.cumsum()[-1] == 0.0


LENGTHS = ((4, 1, 3), (0, 5, 0), (2, 2, 2), (0, 0, 1), (0, 0, 0))


def shards_of(lengths):
    return [integers(r, rows, 2).astype(np.float32) for r, rows in enumerate(lengths)]


def exchanged(fleet):
    """What one rank hears of the others, for each of LENGTHS."""
    (rank,), found = fleet.local, []
    for lengths in LENGTHS:
        own = shards_of(lengths)[rank]
        placed = fleet.place(own)
        total = fleet.sum([np.full(3, 0.1 * (rank + 1))])[0]
        found.append((placed.shape, fleet.all_gather_host([own]), placed.joined()[0], total))
    return found


def test_processes_know_of_each_other_what_one_process_knows():
    expected = CpuFleet([1.0] * 3).sum([np.full(3, 0.1 * (r + 1)) for r in range(3)])
    for answers in in_processes(3, exchanged):
        for lengths, (shape, known, joined, total) in zip(LENGTHS, answers, strict=True):
            whole = np.concatenate(shards_of(lengths))
            assert shape == whole.shape and joined.dtype == whole.dtype
            assert np.array_equal(joined, whole)
            parts = zip(known, shards_of(lengths), strict=True)
            assert all(np.array_equal(a, b) for a, b in parts)
            assert np.array_equal(total, expected[0])


@pytest.mark.parametrize("shares", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_measured_as_on_one_device(shares, dtype):
    rng = np.random.default_rng(7)
    x = (rng.standard_normal((503, 5)) * [1.0, 2.0, 0.1, 3.0, 1.0] + 0.7).astype(dtype)
    in_scale, centre, vector = 0.25, np.array([0.125, -0.5, 0.0, 0.25, 1.0]), np.arange(5.0)
    placed = CpuFleet(shares).place(x)
    norms, mean, slack = rows_of(placed).centred_norms([placed], [in_scale], [centre])[0]
    plain, plain_mean, plain_slack = rows_of(x).centred_norms([x], [in_scale], [centre])[0]
    assert np.array_equal(norms, plain) and norms.dtype == plain.dtype
    true = (x.astype(np.longdouble) * in_scale - centre).mean(axis=0)
    assert np.linalg.norm(mean - true) <= slack
    assert np.linalg.norm(plain_mean - true) <= plain_slack
    both = zip(
        rows_of(placed).row_measures(placed, in_scale, centre),
        rows_of(x).row_measures(x, in_scale, centre),
        strict=True,
    )
    assert all(np.array_equal(a, b) for a, b in both)
    ends = zip(rows_of(placed).column_range(placed), rows_of(x).column_range(x), strict=True)
    assert all(np.array_equal(a, b) for a, b in ends)
    rows = rng.permutation(503)[:40]
    assert np.array_equal(
        rows_of(placed).take_rows(placed, in_scale, rows), rows_of(x).take_rows(x, in_scale, rows)
    )
    dots = rows_of(placed).row_dots(placed, in_scale, centre, vector)
    np.testing.assert_allclose(
        dots.joined()[0], rows_of(x).row_dots(x, in_scale, centre, vector), rtol=1e-13, atol=1e-13
    )
    weights = rng.uniform(0.2, 1.0, 503)
    mean = rows_of(placed).weighted_mean(placed, in_scale, CpuFleet(shares).place(weights))
    true = weights @ (x * np.float64(in_scale)) / weights.sum()
    np.testing.assert_allclose(mean, true, rtol=1e-12)
    assert fused_operands(placed) == ()


def test_a_row_that_is_not_finite_is_seen_from_every_shard():
    for row in (0, 4, 9):
        x = np.ones((10, 2))
        x[row, 1] = np.nan
        placed = CpuFleet([1.0, 1.0, 1.0]).place(x)
        low, high = rows_of(placed).column_range(placed)
        assert np.isnan(low[1]) and np.isnan(high[1]) and low[0] == high[0] == 1.0


def test_key_weights_share_the_largest_shift():
    """Each shard finds its own unit; all must end in one, and no weight may change."""
    logits = np.array([0.5, -3.0, 20.0, 1.0, 7.5])

    def find(part):
        shift = math.ceil(part.max() / math.log(2.0))
        return np.exp(part - shift * math.log(2.0)), shift

    K = CpuFleet([2.0, 1.0, 0.0, 2.0]).place(logits)
    weights, shift = shards_rows.key_weights(K, find)
    assert shift == find(logits)[1]
    np.testing.assert_allclose(weights.joined()[0] * 2.0**shift, np.exp(logits), rtol=1e-14)
    assert weights.joined()[0].max() > 0.5


def states(shares, K, W, degree, dtype="float64"):
    fleet = CpuFleet(shares)
    K, W = fleet.place(K.astype(dtype)), fleet.place(W.astype(dtype))
    return shards_rows.accumulate(K, W.parts, degree, key_centre=np.zeros(K.shape[1]))


@pytest.mark.parametrize("shares", LAYOUTS)
def test_the_state_of_all_shards_is_exact_on_integers(shares):
    K, W = integers(1, 701, 4), np.abs(integers(2, 701, 3))
    whole = naive.accumulate(K, W, 3)
    found = states(shares, K, W, 3)
    for state in found:
        assert isinstance(state, State) and state.count == 701
        for ours, exact in zip(state.moments, whole, strict=True):
            assert np.array_equal(ours, exact)
        norms = np.linalg.norm(K, axis=1)
        for k, bound in enumerate(state.norm_moments):
            assert W[:, -1] @ norms**k <= bound <= (W[:, -1] @ norms**k) * (1.0 + 1e-9)
    again = states(shares, K, W, 3)
    assert all(
        np.array_equal(a, b) for a, b in zip(found[0].moments, again[-1].moments, strict=True)
    )


def test_a_lost_shard_would_be_seen(monkeypatch):
    """The check above can fail."""
    K, W = integers(1, 701, 4), np.abs(integers(2, 701, 3))
    monkeypatch.setattr(CpuFleet, "added", lambda self, stack: ordered_sum(stack[:-1]))
    whole = naive.accumulate(K, W, 2)
    assert not np.array_equal(states([1.0, 1.0], K, W, 2)[0].moments[2], whole[2])


@pytest.mark.parametrize("field", ["weight_shift", "balance", "key_centre", "dtype"])
def test_states_of_other_units_are_refused(field):
    from dataclasses import replace

    K, W = integers(3, 10, 2), np.abs(integers(4, 10, 2))
    one = engine.accumulate(K, W, 1, key_centre=np.zeros(2))
    other = {"weight_shift": 3, "balance": -1, "key_centre": np.ones(2), "dtype": "float32"}
    fleet = CpuFleet([1.0, 1.0])
    assert shards_rows.sum_states(fleet, [one, one])[1].count == 20
    with pytest.raises(ValueError, match="ranks 0 and 1"):
        shards_rows.sum_states(fleet, [one, replace(one, **{field: other[field]})])


@pytest.mark.parametrize(("d", "degree"), [(64, 2), (8, 5), (16, 8)])
def test_rounding_of_shards_is_counted(d, degree):
    """The tiles of any shard and two roundings more are among the eight that bounds add."""
    lengths = np.unique(np.concatenate([np.arange(1, 3000), np.geomspace(3000, 1e7, 400)]))
    tiles = np.array([engine_lengths.tile_count(int(m), d, degree) for m in lengths])
    assert (np.maximum.accumulate(tiles) + 2 <= tiles + 8).all()
