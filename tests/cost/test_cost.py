"""The cost model: linear in its counts, free where no rate is given; a calibration that holds."""

import dataclasses
import importlib.util
import json
import math
import pathlib

import numpy as np
import pytest

from subquad import TYPICAL, Rates, Speed
from subquad.cost import cpu_rates
from subquad.cost.rates import Work
from subquad.cost.steps import Overhead, accumulate_calls, both_passes, contract_calls, exact_calls
from subquad.engine import lengths, threads
from subquad.engine.cpu import fast as cpu_fast

HAS_NUMBA = importlib.util.find_spec("numba") is not None
UNIT = Speed(*[math.inf] * 5)


def priced(**rates):
    speed = dataclasses.replace(UNIT, **{k: v for k, v in rates.items() if k != "threads"})
    return Rates(speed, speed, overhead=0.0, threads=rates.get("threads", 1))


def test_every_count_has_its_rate():
    calls = Overhead(13.0, 17.0, 19.0, filled=23.0)
    work = Work(3.0, 5.0, 12.0, 2, 1, "float32", 7.0, 11.0, calls)
    assert priced().seconds(work) == 0.0
    assert priced(pairs=2.0).seconds(work) == 14.0 / 2.0
    assert priced(exact_flops=2.0).seconds(work) == 14.0 * 2 * 4 / 2.0
    assert priced(features=2.0).seconds(work) == 2.5
    assert priced(polynomial_flops=2.0).seconds(work) == 5.0 * 16 / 2.0  # [V, 1] padded to 8
    assert priced(elements=2.0).seconds(work) == 6.0
    assert priced(rows=2.0).seconds(work) == 4.0 / 2.0
    assert priced(state_bytes=2.0).seconds(work) == 23.0 / 2.0  # of those filled, not of those held
    assert priced(steps=2.0).seconds(work) == 6.5


def test_what_one_thread_does_alone_costs_what_the_others_miss(monkeypatch):
    work = Work(0.0, 0.0, 0.0, 2, 1, "float32", calls=Overhead(0.0, 17.0))
    assert priced(polynomial_flops=2.0).seconds(work) == 0.0
    assert priced(polynomial_flops=2.0, threads=3).seconds(work) == pytest.approx(17.0)
    small = both_passes(64, 64, 4, 4, 2)
    assert small.alone == 2 * 2.0 * 64 * 15 * 8
    least = threads.THREAD_WORK
    for text, alone in (("0", least), ("1", least / cpu_fast.EARLIER if HAS_NUMBA else least)):
        monkeypatch.setenv(cpu_fast.VARIABLE, text)
        assert both_passes(10**7, 10**7, 4, 4, 2).alone == 2 * alone


def test_exact_pairs_of_one_thread_are_priced_as_pairs():
    work = Work(5.0, 0.0, 0.0, 2, 1, "float32", calls=Overhead(alone_pairs=3.0))
    assert priced(pairs=2.0).seconds(work) == 2.5
    assert priced(pairs=2.0, threads=3).seconds(work) == 5.5
    few, many = exact_calls(64, 64, 8, 8), exact_calls(2**15, 2**15, 8, 8)
    assert few.alone_pairs == 64.0**2 and 2**15 < many.alone_pairs < 2.0**30


def test_accumulators_filled_are_those_of_every_group():
    one, all_groups = (accumulate_calls(n, 8, 7, 3).filled for n in (64, 2**18))
    assert one == 2 * 8.0 * 165 * 8
    assert all_groups == (lengths.GROUPS + 1) * 8.0 * 165 * 8
    assert contract_calls(2**18, 8, 7, 3).filled == 8.0 * 165 * 8


def test_what_measuring_a_head_costs_is_in_every_prediction():
    """At 2,048 rows a second ball is looked for; where steps are free nothing is added."""
    from subquad import plan
    from subquad.head.centring import measuring_steps

    assert measuring_steps(2048, 8) > 2.0 * measuring_steps(1024, 8)
    assert measuring_steps(2**17, 8) < measuring_steps(2**14, 8)
    slow = priced(steps=2.0, pairs=1e12, features=1e12)
    head = plan(n=2048, d=8, logit_bound=0.5, tol=1e-2, rates=slow).heads[0]
    assert head.rates.overhead == pytest.approx(2 * measuring_steps(2048, 8) / 2.0)
    alone, shared = (measuring_steps(n, 8, heads) for n, heads in ((1024, 1), (1024, 64)))
    assert 4.0 * shared < alone
    free = plan(n=2048, d=8, logit_bound=0.5, tol=1e-2, rates=TYPICAL).heads[0]
    assert free.rates == TYPICAL


def test_rates_are_measured_again_once_passes_run_compiled(monkeypatch):
    measured = []
    monkeypatch.setattr(cpu_rates, "measured", lambda: measured.append(1) or ({}, len(measured)))
    cpu_rates._speeds.cache_clear()
    for loaded, count in ((False, 1), (False, 1), (True, 2), (True, 2)):
        monkeypatch.setattr(cpu_fast, "in_use", lambda loaded=loaded: loaded)
        assert cpu_rates.speeds() == ({}, count)
    cpu_rates._speeds.cache_clear()


def test_the_readme_says_what_the_record_does():
    root = pathlib.Path(__file__).parents[2]
    found = json.loads((root / "experiments/results/cost_model.json").read_text())["derived"]
    text = " ".join((root / "README.md").read_text().split())
    assert f"in {found['right']} of {found['cells']} cells" in text
    assert f"at worst one {found['regret']['worst']:.2f} times as slow" in text


def test_calls_add_up_and_nothing_costs_nothing():
    both = accumulate_calls(4096, 8, 8, 3) + contract_calls(1024, 8, 8, 3)
    assert both == both_passes(4096, 1024, 8, 8, 3)
    assert accumulate_calls(0, 8, 8, 3) == contract_calls(0, 8, 8, 3) == Overhead()
    assert exact_calls(0, 9, 8, 8) == exact_calls(9, 0, 8, 8) == Overhead()
    assert exact_calls(2048, 4096, 8, 8).steps > exact_calls(2048, 1024, 8, 8).steps


def test_steps_are_about_the_calls_that_the_passes_make(monkeypatch):
    """Counted on the engine: multiplications of the builder and products."""
    from subquad.engine.cpu import passes as cpu_passes
    from subquad.engine.cpu import tiles as cpu_tiles

    made = []
    real = np.matmul
    monkeypatch.setattr(cpu_tiles.np, "matmul", lambda *x, **k: made.append(1) or real(*x, **k))
    rng, n, d, degree = np.random.default_rng(0), 5000, 8, 3
    K, W = rng.standard_normal((n, d)), rng.random((n, 8))
    cpu_passes.accumulate(K, W, degree)
    loads = len(made)  # one or two products for a chunk, one chunk a degree
    steps = accumulate_calls(n, d, 7, degree).steps - accumulate_calls(1, d, 7, degree).steps
    assert 4.0 * loads / 3 < steps < 20.0 * loads


def test_the_fit_returns_the_rates_that_made_the_times():
    probes = cpu_rates._probes("float32", cpu_rates.PROBES)
    amounts = np.array([amount for amount, _ in probes.values()])
    for factors in (np.ones(7), 3.0 * np.ones(7), np.array([1, 1.3, 1, 0.8, 1, 1.2, 0.9])):
        truth = cpu_rates.TYPICAL_SECONDS * factors
        times = amounts @ truth
        found = cpu_rates.fit(amounts, times)
        np.testing.assert_allclose(amounts @ found, times, rtol=0.1)
        np.testing.assert_allclose(found, truth, rtol=1e-9 if np.ptp(factors) == 0.0 else 0.35)


def test_one_wild_probe_cannot_make_a_rate_wild():
    """A probe at half its pace, or twice, moves no rate by a factor of 3, and explains itself."""
    probes = cpu_rates._probes("float32", cpu_rates.PROBES)
    amounts = np.array([amount for amount, _ in probes.values()])
    times = amounts @ cpu_rates.TYPICAL_SECONDS
    for i in range(len(times)):
        for factor in (0.5, 2.0):
            wild = np.where(np.arange(len(times)) == i, factor * times, times)
            found = cpu_rates.fit(amounts, wild) / cpu_rates.TYPICAL_SECONDS
            assert np.all(found > 1 / 3) and np.all(found < 3.0)
            others = np.delete(amounts @ (found * cpu_rates.TYPICAL_SECONDS) / times, i)
            assert np.all(others > 1 / 1.5) and np.all(others < 1.5)


def test_measured_rates_are_sane_and_measured_once():
    import subquad

    rates = subquad.measured_rates()
    assert rates == subquad.measured_rates()
    assert rates.threads == threads.thread_count()
    for name in ("exact_flops", "pairs", "polynomial_flops", "features"):
        assert 0.0 < getattr(rates.float64, name) <= getattr(rates.float32, name) < 1e15
    assert rates.float32.steps < 1e8 and TYPICAL.float32.steps == math.inf


def test_compiled_passes_are_expected_only_where_they_will_be_used(monkeypatch):
    monkeypatch.setattr(cpu_fast, "_installed", lambda: True)
    monkeypatch.setattr(cpu_fast, "LEAST_PRODUCTS", 10**6)
    cpu_fast._compiled.cache_clear()
    assert not cpu_fast.expected(10**9, 8, 0)
    assert not cpu_fast.expected(10, 8, 2)
    assert cpu_fast.expected(10**6, 8, 2)


def test_tiles_built_together_stay_within_their_limits():
    for d, degree in ((8, 2), (16, 3), (64, 2), (64, 4), (3, 9)):
        tile = lengths.tile_size(d, degree)
        span = lengths.tiles_at_once(tile, d, degree)
        assert 1 <= span <= lengths.TILES_AT_ONCE
        for n in (1, 500, 5000, 10**6):
            query = lengths.query_tile(n, d, degree)
            assert lengths.tile_for(n, d, degree) <= query <= span * tile


def test_heads_that_are_measured_together_share_what_that_costs():
    from subquad import plan
    from subquad.head.centring import measuring_steps

    slow = priced(steps=2.0, pairs=1e12, features=1e12)
    Q = np.random.default_rng(0).standard_normal((5, 40, 3))
    for heads in (1, 5):
        made = plan(Q[:heads], Q[:heads], Q[:heads], tol=0.5, rates=slow)
        expected = 2 * measuring_steps(40, 3, heads) / 2.0
        assert all(h.rates.overhead == pytest.approx(expected) for h in made.heads)
    call = dataclasses.replace(slow, overhead=1.0)
    assert call.beside(6.0).overhead == 1.0 + 3.0
    assert call.beside(6.0, heads=4).overhead == pytest.approx(0.4 + 0.6 / 4 + 3.0)
    assert dataclasses.replace(TYPICAL, overhead=1.0).beside(6.0, heads=4).overhead == 1.0
