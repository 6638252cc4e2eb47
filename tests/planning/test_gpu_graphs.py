"""Plans run again as CUDA graphs: the bits of plain launches, on whatever arrays and streams."""

import copy
import gc
import threading
import weakref

import numpy as np
import pytest

import subquad
from tests.planning.test_gpu_plans import drawn, fused, holds, there

pytestmark = pytest.mark.gpu
__all__ = ["fused"]  # the fixture


@pytest.fixture
def runs(fused):
    """The module under test; no shape is left of another test."""
    from subquad.engine.fused import graphs as fused_graphs

    gc.collect()
    return fused_graphs


@pytest.fixture
def slots(monkeypatch, runs):
    """The slot of each run, in turn."""
    taken, launch = [], runs.Passes.launch

    def seen(self, slot, stream):
        taken.append(slot)
        return launch(self, slot, stream)

    monkeypatch.setattr(runs.Passes, "launch", seen)
    return taken


def planned(cp, fast, tol=1e-2, **shape):
    return subquad.plan(*there(cp, drawn(**shape)), tol=tol, rates=fast, method="polynomial")


def same(result, other):
    """Assert that two Results have the same bits, certificates included."""
    assert bool((result.output == other.output).all())
    pairs = [(result.certificate.row_bounds, other.certificate.row_bounds)]
    pairs += [
        (a.value, b.value)
        for a, b in zip(result.certificate.terms, other.certificate.terms, strict=True)
    ]
    assert all(bool((a == b).all()) for a, b in pairs)


SHAPES = [
    ({}, 1e-2),
    ({}, 6e-2),
    ({"d": 16, "d_v": 128, "n": 700}, 6e-2),
    ({"d": 128, "d_v": 1, "lead": (2, 2), "n": 513, "m": 700}, 1e-2),
]


@pytest.mark.parametrize(("shape", "tol"), SHAPES)
def test_graphs_give_the_bits_of_plain_launches(fused, fast, slots, runs, monkeypatch, shape, tol):
    made = planned(fused, fast, tol, **shape)
    news = [drawn(seed=5 + i, reach=0.35 - 0.1 * i, **shape) for i in range(3)]
    with monkeypatch.context() as patched:
        patched.setattr(runs, "captured", lambda parts: ())
        plain = [made.run(*there(fused, new)) for _ in range(2) for new in news]
    assert all(slot.graphs == () for slot in slots[1:])
    copied = copy.deepcopy(made)
    runs._PASSES.clear()  # those of `made`, which have been refused
    del slots[:]
    graphs = [copied.run(*there(fused, new)) for _ in range(2) for new in news]
    assert len({id(slot) for slot in slots}) == 1
    assert len(slots[0].graphs) == 2
    for one, other in zip(graphs, plain, strict=True):
        same(one, other)
    for new, result in zip(news, graphs, strict=False):
        holds(result, new, tol)
    assert len({result.output.data.ptr for result in graphs}) == len(graphs)


def test_arrays_at_new_addresses_are_taken_and_old_ones_left_alone(fused, fast, slots):
    made = planned(fused, fast)
    first, second = (drawn(seed=5 + i, reach=0.35 - 0.1 * i) for i in range(2))
    old = there(fused, first)
    results = [made.run(*old) for _ in range(2)]
    assert slots[0].graphs
    kept = results[1].output
    kept[...] = 1234.5
    before = [x.copy() for x in old]
    again = made.run(*there(fused, second))  # while the old ones are still somewhere else
    assert bool((kept == 1234.5).all())
    for x, y in zip(old, before, strict=True):
        assert bool((x == y).all())
        x.fill(np.nan)  # and what is in them is not looked at
    same(again, made.run(*there(fused, second)))
    holds(again, second, 1e-2)
    pool = fused.get_default_memory_pool()
    del old, x, results, kept, before
    pool.free_all_blocks()  # and they need not be there
    same(again, made.run(*there(fused, second)))
    assert len({id(slot) for slot in slots}) == 1


def test_runs_that_overlap_have_slots_of_their_own(fused, fast):
    made = planned(fused, fast)
    news = [drawn(seed=5 + i, reach=0.3) for i in range(2)]
    alone = [holds(made.run(*there(fused, new)), new, 1e-2) for new in news]
    ((_, heads),) = made._ready.launches()
    arrays = [there(fused, new) for new in news]
    fused.cuda.Device().synchronize()
    streams = [fused.cuda.Stream(non_blocking=True) for _ in news]
    for _ in range(3):  # launched one by one, captured, replayed
        outputs = [fused.full(x.shape, np.nan, np.float32) for x in alone]
        fused.cuda.Device().synchronize()
        pending = []
        for stream, own, output in zip(streams, arrays, outputs, strict=True):
            with stream:
                pending.append(heads.start(*own, output, 0))
        assert pending[0]._slot is not pending[1]._slot
        norms = [[p.keys().key_norms[0], p.queries()[0]] for p in pending]
        for x, output, (key, query), new in zip(alone, outputs, norms, news, strict=True):
            assert np.array_equal(output.get(), x)
            assert key > 0.0 and query > 0.0 and len(new) == 3
    assert norms[0] != norms[1]
    assert all(p._slot.graphs for p in pending)


def test_threads_on_streams_of_their_own_get_their_own_answers(fused, fast, slots):
    made = planned(fused, fast)
    news = [drawn(seed=5 + i, reach=0.35 - 0.05 * i) for i in range(3)]
    alone = [made.run(*there(fused, new)) for new in news]
    fused.cuda.Device().synchronize()
    barrier, failed = threading.Barrier(len(news)), []

    def work(new, expected):
        try:
            with fused.cuda.Stream(non_blocking=True):
                arrays = there(fused, new)
                barrier.wait()
                for _ in range(20):
                    same(made.run(*arrays), expected)
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(news, alone, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert all(slot.graphs or not slot.used for slot in made._ready.launches()[0][1]._passes._free)


def test_plans_of_one_shape_share_their_launches_and_not_their_units(fused, fast, slots):
    first, second = (planned(fused, fast, reach=reach) for reach in (0.4, 0.39))
    new = drawn(seed=5, reach=0.2)
    alone = [copy.deepcopy(made).run(*there(fused, new)) for made in (first, second)]
    assert not bool((alone[0].output == alone[1].output).all())
    for _ in range(2):
        for made, expected in zip((first, second), alone, strict=True):
            same(made.run(*there(fused, new)), expected)
    passes = {id(made._ready.launches()[0][1]._passes) for made in (first, second)}
    assert len(passes) == 1
    assert slots[-1].graphs


def test_heads_in_several_launches(fused, fast, slots, monkeypatch):
    monkeypatch.setattr("subquad.planning.rerun.ROWS_AT_ONCE", 3001)
    made = planned(fused, fast, lead=(3,), reach=0.2)
    new = drawn(seed=5, reach=0.15, lead=(3,))
    results = [made.run(*there(fused, new)) for _ in range(3)]
    assert len(slots) == 9 and len({id(slot) for slot in slots}) == 3
    assert all(slot.graphs for slot in slots)
    holds(results[0], new, 1e-2)
    for result in results[1:]:
        same(result, results[0])


def test_memory_goes_with_the_plan_and_is_bounded(fused, fast, runs, monkeypatch):
    arrays = there(fused, drawn(seed=5, reach=0.3))
    made = planned(fused, fast)
    expected = made.run(*arrays).output.get()
    pool = fused.get_default_memory_pool()
    passes = made._ready.launches()[0][1]._passes
    gone, held = weakref.ref(passes), pool.used_bytes()
    slots = [passes.slot() for _ in range(runs.KEPT_SLOTS + 2)]
    for slot in slots:
        passes.free(slot)
    assert len(passes._free) == runs.KEPT_SLOTS
    del slots, slot, passes, made
    assert gone() is None  # by counting alone
    assert pool.used_bytes() < held
    monkeypatch.setattr(runs, "KEPT_BYTES", 1000)  # too few for a slot to wait
    large = planned(fused, fast)
    for _ in range(3):
        assert np.array_equal(large.run(*arrays).output.get(), expected)
    passes = large._ready.launches()[0][1]._passes
    assert passes._free == []


def test_what_cannot_be_captured_is_launched_one_by_one(fused, runs):
    x = fused.zeros(10)

    def waits():
        fused.cuda.get_current_stream().synchronize()

    assert runs.captured((lambda: x.fill(1.0), waits)) == ()
    assert not bool(x.any())  # and nothing ran
    (graph,) = runs.captured((lambda: x.fill(2.0),))
    assert not bool(x.any())
    graph.launch()
    assert bool((x == 2.0).all())
