"""Copies of a plan, by copy and by pickle: they print and run as it does, unmeasured."""

import copy
import pickle

import numpy as np
import pytest

import subquad
from subquad.engine.shards.fleets import ProcessFleet

COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),
}


def data(seed=0, lead=(2,), n=300, m=350):
    rng = np.random.default_rng(seed)
    Q, K = (0.4 * rng.standard_normal((*lead, rows, 5)) + 1.0 for rows in (n, m))
    return Q * np.logspace(0, -1, 5), K, rng.standard_normal((*lead, m, 3))


ON_SHARDS = ["auto", *(name for name, m in subquad.METHODS.items() if m.run_on_shards)]
HERE = ["auto", *subquad.METHODS]


@pytest.mark.parametrize(
    ("method", "devices"),
    [*((name, None) for name in HERE), *((name, ["cpu"] * 3) for name in ON_SHARDS)],
)
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_prints_and_runs_as_the_plan_does(way, method, devices, rates):
    made = subquad.plan(*data(), tol=0.3, method=method, devices=devices, rates=rates)
    copied = COPIES[way](made)
    assert copied is not made
    result, again = made.run(*data()), copied.run(*data())
    assert np.array_equal(again.output, result.output)
    assert np.array_equal(again.certificate.row_bounds, result.certificate.row_bounds)
    assert str(copied) == str(made)
    assert str(COPIES[way](made)) == str(made)  # the crossover has asked for more by now


@pytest.mark.parametrize("way", ["deepcopy", "copy"])
def test_nobody_is_asked_for_a_copy(way, rates):
    """Processes make the same calls: one that copies its plan would wait for the others."""
    calls = []

    def gather(part):
        calls.append(part.shape)
        return [part]

    Q, K, V = data(lead=())
    made = subquad.plan(Q, K, V, tol=1e-2, devices=ProcessFleet(0, 1, gather), rates=rates)
    before = len(calls)
    copied = COPIES[way](made)
    assert len(calls) == before
    assert np.array_equal(copied.run(Q, K, V).output, made.run(Q, K, V).output)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_holds_no_rows(way, rates):
    made = subquad.plan(*data(n=20_000, m=20_000), tol=1e-2, method="exact", rates=rates)
    copied = COPIES[way](made)
    for head in copied.heads:
        assert not head.stats.shells.at_hand and head.stats.rotation is None
    assert len(pickle.dumps(copied)) < sum(x.nbytes for x in data(n=20_000, m=20_000)) / 2
