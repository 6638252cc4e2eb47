"""Attention over shards: sound, the same bits for the same layout, one device as without shards."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subquad
from subquad.bounds.partial import EMPTY_SHIFT, Partial
from subquad.cost.rates import TYPICAL, fleet_rates
from subquad.engine.shards.fleet import Fleet
from subquad.engine.shards.fleets import CpuFleet, ProcessFleet
from subquad.methods.on_shards import merge_over
from tests import oracle, test_soundness
from tests.fleets import in_processes
from tests.methods.table import ON_SHARDS, ROWS, over
from tests.strategies import recipes

SHARES = ([1.0], [1.0, 2.5, 0.3], [1.0, 0.0, 2.0], [0.0, 1.0], [1.0] * 5)


def data(n=403, m=701, d=6, d_v=4, dtype="float32", seed=0):
    """Return Q, K, V with an offset, outliers in the first and the last shard, no symmetry."""
    rng = np.random.default_rng(seed)
    Q = 0.3 * rng.standard_normal((n, d)) + 0.2
    K = 0.4 * rng.standard_normal((m, d)) - 0.5
    V = rng.standard_normal((m, d_v)) ** 3 + 2.0 * np.linspace(-1.0, 1.0, m)[:, None]
    for x, rows in ((Q, (5, n - 1)), (K, (3, 4, m - 2))):
        x[[row % len(x) for row in rows]] *= 9.0
    return tuple(x.astype(dtype) for x in (Q, K, V))


def gentle(**sizes):
    """Return the same with logits that a polynomial can take."""
    Q, K, V = data(**sizes)
    return Q / 3.0, K / 3.0, V


def data_for(row):
    """Return which of the two a method can take."""
    return gentle if row.small_logits else data


def same(a, b):
    """Return whether two Results are the same bit for bit."""
    terms = zip(a.certificate.terms, b.certificate.terms, strict=True)
    return (
        np.array_equal(a.output, b.output)
        and np.array_equal(a.certificate.row_bounds, b.certificate.row_bounds)
        and all(s.name == t.name and np.array_equal(s.value, t.value) for s, t in terms)
    )


@over(ON_SHARDS)
def test_drawn_problems_are_sound_over_drawn_shards(row, rates):
    layouts = st.lists(st.sampled_from([0.0, 0.3, 1.0, 1.0, 4.0]), min_size=1, max_size=6)

    @settings(max_examples=settings().max_examples // 3)
    @given(recipe=recipes(), shares=layouts.filter(any))
    def check(recipe, shares):
        drawn = recipe.build()
        if not test_soundness.affordable(drawn, rates, row):
            return
        options = {"method": row.method, "devices": CpuFleet(shares)}
        result = test_soundness.attend(drawn, rates, **options)
        if isinstance(result, subquad.ToleranceError):
            assert row.may_refuse(drawn), str(result)
            return
        test_soundness.assert_sound(drawn, result)
        assert same(result, test_soundness.attend(drawn, rates, **options))
        if len(shares) == 1:
            assert same(result, test_soundness.attend(drawn, rates, method=row.method))

    check()


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@over(ON_SHARDS)
def test_every_method_over_every_layout(row, dtype, shares, rates):
    Q, K, V = data_for(row)(dtype=dtype)
    options = {"tol": 1e-2, "method": row.method, "rates": rates}
    plain = subquad.attention(Q, K, V, **options)
    result = subquad.attention(Q, K, V, devices=CpuFleet(shares), **options)
    assert str(result.plan.heads[0].chosen.parameters) == str(plain.plan.heads[0].chosen.parameters)
    error = oracle.row_errors(result.output, Q, K, V, Q.shape[1] ** -0.5)
    assert np.all(error <= result.certificate.row_bounds)
    assert result.certificate.bound <= result.plan.heads[0].chosen.bound
    np.testing.assert_allclose(
        result.certificate.row_bounds, plain.certificate.row_bounds, rtol=1e-5
    )
    assert same(result, plain) or len(shares) > 1
    assert same(result, result.plan.run(Q, K, V))


def test_the_large_rows_and_keys_are_those_of_all_shards(rates):
    Q, K, V = data()
    result = subquad.attention(
        Q, K, V, tol=1e-2, method="support_basis", devices=["cpu"] * 3, rates=rates
    )
    parameters = result.plan.heads[0].chosen.parameters
    assert parameters.large_queries >= 2 and parameters.large_keys >= 3
    assert parameters.small.degree >= 2


def test_a_shard_that_is_left_out_is_seen(rates, monkeypatch):
    """The checks above can fail: without the keys of one shard no output is within its bounds."""
    monkeypatch.setattr(CpuFleet, "added", lambda self, stack: stack[0] + stack[1])
    for method, make in (("polynomial", gentle), ("support_basis", data)):
        Q, K, V = make()
        result = subquad.attention(
            Q, K, V, tol=1e-2, method=method, devices=["cpu"] * 3, rates=rates
        )
        error = oracle.row_errors(result.output, Q, K, V, Q.shape[1] ** -0.5)
        assert np.mean(error > result.certificate.row_bounds) > 0.5


@pytest.mark.parametrize("n, m", [(2, 3), (4, 3)])
def test_there_are_no_more_shards_than_rows(n, m, rates, monkeypatch):
    Q, K, V = gentle(n=n, m=m)
    shards, place = set(), CpuFleet.place
    monkeypatch.setattr(CpuFleet, "place", lambda own, x: shards.add(own.ranks) or place(own, x))
    options = {"tol": 1e-2, "method": "exact", "rates": rates}
    result = subquad.attention(Q, K, V, devices=["cpu"] * 60, **options)
    again = result.plan.run(Q, K, V)
    assert shards == {max(n, m)}
    fewer = subquad.attention(Q, K, V, devices=["cpu"] * max(n, m), **options)
    assert same(result, fewer) and same(result, again)


def test_shards_of_chosen_shares_stay_as_they_are():
    fleet = CpuFleet([1.0, 0.0, 2.0])
    assert fleet.for_rows(2) is fleet and fleet.for_rows(3) is fleet
    assert CpuFleet([2.0] * 3).for_rows(3).ranks == 3


@over(ON_SHARDS)
def test_more_devices_than_rows(row, rates):
    Q, K, V = gentle(n=2, m=3)
    options = {"tol": 1e-2, "method": row.method, "rates": rates}
    result = subquad.attention(Q, K, V, devices=["cpu"] * 9, **options)
    error = oracle.row_errors(result.output, Q, K, V, Q.shape[1] ** -0.5)
    assert np.all(error <= result.certificate.row_bounds)


def in_shards(rank, ranks):
    """Return the shard of Q, K, V of a rank: contiguous, of unlike lengths."""
    return (np.array_split(x, ranks)[rank] for x in gentle())


def by_every_method(fleet):
    """What one process gets for its own rows, by every method; the rates that it took."""
    (rank,), found = fleet.local, {}
    for name, row in ON_SHARDS.items():
        options = {"tol": 2e-2, "method": row.method, "rates": TYPICAL}
        result = subquad.attention(*in_shards(rank, fleet.ranks), devices=fleet, **options)
        found[name] = result.output, result.certificate.row_bounds, str(result.plan)
    own = subquad.Rates(TYPICAL.float32, TYPICAL.float64, overhead=1.0 + rank)
    return found, fleet_rates(own, fleet)


def with_a_nan(fleet):
    """What one process raises where another, or it, has an entry that is not finite."""
    (rank,), messages = fleet.local, []
    Q, K, V = in_shards(rank, fleet.ranks)
    for k, mask in ((np.where(rank == 1, np.nan, K).astype(K.dtype), None), (K, K[:, 0] > 0)):
        try:
            subquad.attention(Q, k, V, tol=1e-2, key_mask=mask, devices=fleet, rates=TYPICAL)
        except ValueError as error:
            messages.append(str(error))
    return messages


@pytest.mark.parametrize("ranks", [1, 3])
def test_processes_make_what_one_process_makes(ranks, rates):
    """Each passes its own rows; together they have the bits of one process with these shards."""
    cuts = [[len(x) for x in np.array_split(whole, ranks)] for whole in gentle()]
    results = in_processes(ranks, by_every_method)
    for name, row in ON_SHARDS.items():
        options = {"tol": 2e-2, "method": row.method, "rates": rates}
        whole = subquad.attention(*gentle(), devices=CutLike(cuts), **options)
        outputs, bounds, plans = zip(*(found[name] for found, _ in results), strict=True)
        assert np.array_equal(np.concatenate(outputs), whole.output)
        assert np.array_equal(np.concatenate(bounds), whole.certificate.row_bounds)
        assert len(set(plans)) == 1
    taken = [rates for _, rates in results]
    assert all(rates == taken[0] for rates in taken)
    assert taken[0].overhead == 1.0
    assert taken[0].float32.pairs == ranks * TYPICAL.float32.pairs
    assert taken[0].float32.state_bytes == TYPICAL.float32.state_bytes


LONG = {"n": 30_001, "m": 30_000, "d": 16}
"""So long that one process alone would measure its sides in several threads."""


def by_polynomial(fleet):
    """What one of several processes returns for its rows of LONG."""
    (rank,) = fleet.local
    rows = (np.array_split(x, fleet.ranks)[rank] for x in gentle(**LONG))
    result = subquad.attention(*rows, tol=1e-1, devices=fleet, rates=TYPICAL)
    return result.output, result.certificate.row_bounds


def test_processes_make_their_calls_in_one_order(rates):
    """Two threads of one process that both exchanged would mix up what they get."""
    cuts = [[len(x) for x in np.array_split(whole, 2)] for whole in gentle(**LONG)]
    whole = subquad.attention(*gentle(**LONG), tol=1e-1, rates=rates, devices=CutLike(cuts))
    outputs, bounds = zip(*in_processes(2, by_polynomial), strict=True)
    assert np.array_equal(np.concatenate(outputs), whole.output)
    assert np.array_equal(np.concatenate(bounds), whole.certificate.row_bounds)


class CutLike(CpuFleet):
    """Shards of the lengths of np.array_split."""

    def __init__(self, cuts):
        super().__init__([1.0] * len(cuts[0]))
        self._cuts = {sum(cut): cut for cut in cuts}

    speedup = Fleet.speedup

    def place(self, x):
        ends = np.cumsum(self._cuts[len(x)])[:-1]
        return self.sharded(np.split(x, ends), x[:0])


def test_what_one_process_has_wrong_is_refused_by_all():
    first, second = in_processes(2, with_a_nan)
    assert "of another process" in first[0]
    assert "`K` has" in second[0] and "NaN" in second[0]
    assert first[1] == second[1] and "`key_mask` is given" in first[1]


@over({name: row for name, row in ROWS.items() if not row.on_shards})
def test_a_method_that_does_not_run_on_shards_is_named(row, rates):
    able = ", ".join(name for name, other in ROWS.items() if other.on_shards)
    with pytest.raises(ValueError, match=f"`method` is '{row.object.name}'.* that do are {able}"):
        subquad.attention(*gentle(), tol=1e-2, method=row.method, devices=["cpu"] * 2, rates=rates)


def test_auto_on_shards_asks_the_methods_that_run_there(rates):
    Q, K, V = data()
    options = subquad.plan(Q, K, V, tol=1e-2, devices=["cpu"] * 2, rates=rates).heads[0].options
    assert {o.method.name for o in options} == {*ON_SHARDS} - {"auto"}


def test_a_threshold_by_entry_over_shards(rates):
    Q, K, V = data()
    by_entry = subquad.SupportBasis(criterion="entry")
    result = subquad.attention(Q, K, V, tol=5e-2, method=by_entry, devices=["cpu"] * 2, rates=rates)
    error = oracle.row_errors(result.output, Q, K, V, Q.shape[1] ** -0.5)
    assert np.all(error <= result.certificate.row_bounds)


def test_a_plan_without_data_knows_the_devices(rates):
    sizes = {"n": 2**20, "d": 64, "logit_bound": 0.5, "tol": 1e-2, "rates": rates}
    one, four = (subquad.plan(**sizes, devices=x) for x in (None, CpuFleet([1.0] * 4)))
    assert one.heads[0].seconds(one.heads[0].chosen) == four.heads[0].seconds(four.heads[0].chosen)
    assert four.heads[0].chosen.method.run_on_shards is not None


# Merging Partials of shards.


def partial(rng, n, spread):
    normaliser = rng.uniform(1.0, 2.0, n)
    numerator = normaliser[:, None] * rng.uniform(-1.0, 1.0, (n, 3))
    shift = rng.integers(-spread, spread + 1, n)
    error, rounding = 1e-3 * normaliser, 1e-6 * normaliser
    return Partial(
        numerator,
        normaliser,
        shift,
        error,
        rng.uniform(0.0, 0.1, n),
        rounding,
        rng.uniform(0.0, 1e-3, n),
    )


def exactly(values, shifts):
    return [
        sum(Fraction(float(v)) * Fraction(2) ** int(s) for v, s in zip(column, powers, strict=True))
        for column, powers in zip(zip(*values, strict=True), zip(*shifts, strict=True), strict=True)
    ]


@pytest.mark.parametrize(("ranks", "spread"), [(2, 3), (3, 60), (9, 400)])
def test_partials_of_shards_are_added_within_what_is_booked(ranks, spread):
    rng = np.random.default_rng(ranks)
    parts = [partial(rng, 20, spread) for _ in range(ranks)]
    found, *others = merge_over(CpuFleet([1.0] * ranks), parts)
    assert all(np.array_equal(found.numerator, p.numerator) for p in others)
    shifts = [p.log_shift for p in parts]
    assert np.array_equal(found.log_shift, np.max(shifts, axis=0))
    unit = [Fraction(2) ** int(s) for s in found.log_shift]
    booked = [
        exactly([getattr(p, name) for p in parts], shifts)
        for name in ("error", "rounding", "normaliser")
    ]
    columns = [exactly([p.numerator[:, c] for p in parts], shifts) for c in range(3)]
    for i in range(20):
        own = Fraction(float(found.rounding[i])) * unit[i] - booked[1][i]
        away = abs(Fraction(float(found.normaliser[i])) * unit[i] - booked[2][i])
        away += max(
            abs(Fraction(float(found.numerator[i, c])) * unit[i] - columns[c][i]) for c in range(3)
        )
        assert away <= own
        assert own <= 4 * Fraction(1, 2**53) * booked[2][i] + booked[1][i] / 2**40
        assert Fraction(float(found.error[i])) * unit[i] >= booked[0][i]
    for name in ("ratio", "perturbation"):
        assert np.array_equal(getattr(found, name), np.max([getattr(p, name) for p in parts], 0))


def test_shards_without_keys_change_nothing():
    rng = np.random.default_rng(0)
    one = partial(rng, 5, 10)
    nothing = Partial.empty(5, 3, np)
    merged = merge_over(CpuFleet([1.0] * 3), [nothing, one, nothing])[0]
    assert np.array_equal(merged.numerator, one.numerator)
    assert np.array_equal(merged.log_shift, one.log_shift)
    empty = merge_over(CpuFleet([1.0] * 2), [nothing, nothing])[1]
    assert (empty.log_shift == EMPTY_SHIFT).all() and (empty.normaliser == 0.0).all()
    assert merge_over(CpuFleet([1.0]), [one])[0] is one


@pytest.mark.parametrize(("rank", "ranks"), [(2, 2), (-1, 2), (0, 0), (0.0, 2), ("0", 2)])
def test_a_rank_is_one_of_the_ranks(rank, ranks):
    with pytest.raises(ValueError, match=r"`rank` is .* of .*: give a number from 0"):
        ProcessFleet(rank, ranks, lambda part: [part])
