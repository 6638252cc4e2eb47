"""Rates that count: the seconds they predict are the operations of the work."""

import dataclasses

import pytest

from experiments.harness import instances
from experiments.harness.counting import cheapest, count_rates
from subquad import METHODS, TYPICAL
from subquad.cost.rates import Work
from subquad.head.problem import Problem


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("d", "d_v"), [(8, 8), (32, 32), (5, 3), (64, 7)])
def test_seconds_are_flops(d, d_v, dtype):
    work = Work(1e6, 3e7, 5e5, d, d_v, dtype, 1e3)
    assert count_rates(d_v).seconds(work) == pytest.approx(work.flops, rel=1e-12)


def test_rates_of_another_width_or_of_a_machine_do_not_count():
    work = Work(1e6, 3e7, 5e5, 8, 8, "float32")
    assert count_rates(64).seconds(work) != pytest.approx(work.flops, rel=1e-3)
    assert TYPICAL.seconds(work) != pytest.approx(work.flops, rel=1e-3)


def test_preparation_and_calls_are_free():
    work = Work(1e6, 3e7, 5e5, 8, 8, "float64")
    assert count_rates(8).seconds(work) == count_rates(8).seconds(
        dataclasses.replace(work, elements=0.0)
    )
    assert count_rates(8).seconds(Work(0.0, 0.0, 1e9, 8, 8, "float64")) == 0.0


def stats_of(n=2048):
    Q, K, V, scale = instances.bounded(n, 4, beta=0.5, seed=5)
    return [view.stats for view in Problem(Q, K, V, scale=scale).heads[0].views]


def test_exact_gains_nothing_and_longer_gains_more():
    stats = stats_of()
    best, gain = cheapest([METHODS["exact"]], stats, 2048, 1e-2)
    assert best is not None
    assert (best.method.name, gain) == ("exact", 1.0)
    gains = [cheapest(METHODS.values(), stats, n, 1e-2)[1] for n in (2048, 8192, 2**20)]
    assert 1.0 < gains[0] < gains[1] < gains[2]
    n, polynomial = 2**20, METHODS["polynomial"]
    best, gain = cheapest([polynomial], stats, n, 1e-2)
    assert best is not None
    assert gain == pytest.approx(n * n * (2 * 4 + 2 * 5 + 20) / best.work.flops)


def test_nothing_offered_gains_nothing():
    stats = [x.with_length(64) for x in stats_of()]
    assert cheapest([METHODS["polynomial"]], stats, 64, 1e-17) == (None, 1.0)


def test_against_exact_in_the_faster_dtype():
    """By rates a gain is over the exact that the planner would take, float32 where it may."""
    stats = stats_of()
    best, gain = cheapest([METHODS["exact"]], stats, 2**16, 1e-12, TYPICAL)
    assert best is None or gain <= 1.0
