"""Threads: the same bits for any number, the BLAS setting restored, errors not swallowed."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from subquad import engine
from subquad.engine import lengths, threads


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def two_threads_of_blas():
    """With one, on one core or one worker of many, a limit left in place would not be seen."""
    with threadpool_limits(2, "blas"):
        assert set(blas_threads()) <= {2}
        yield


@pytest.mark.parametrize("group_bytes", [2**28, 2 * 560 * 8 * 8])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_the_threads(monkeypatch, dtype, group_bytes):
    monkeypatch.setattr(lengths, "GROUP_BYTES", group_bytes)
    monkeypatch.setattr(lengths, "FEATURE_CHUNK", 100)
    monkeypatch.setattr(lengths, "TILE_WORK", 1)
    rng = np.random.default_rng(0)
    n, d, d_v = 2000, 13, 5
    Q, K = (rng.standard_normal((n, d)).astype(dtype) + 0.2 for _ in "QK")
    W = np.column_stack([rng.uniform(-1, 1, (n, d_v)), np.ones(n)]).astype(dtype)
    assert lengths.tile_count(n, d, 3) > 4
    monkeypatch.setattr(threads, "THREAD_WORK", 1)
    assert lengths.accumulator_layout(8, d, 3, 8) == ((8, 1) if group_bytes == 2**28 else (2, 5))
    results = []
    for count in ("1", "2", "3"):
        monkeypatch.setenv("SUBQUAD_NUM_THREADS", count)
        state = engine.accumulate(K, W, 3, key_centre=np.zeros(d))
        results.append(
            [
                *state.moments,
                state.norm_moments,
                *engine.contract(Q, state, [1.0, 1.0, 0.5, 0.1]),
                *engine.exact_block(Q, K, W),
                *engine.exact_block(Q / 64, K, W),
            ]
        )
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_thread_count_is_read_at_call_time(monkeypatch):
    monkeypatch.setenv("SUBQUAD_NUM_THREADS", "7")
    assert threads.thread_count() == 7
    monkeypatch.delenv("SUBQUAD_NUM_THREADS")
    assert threads.thread_count() >= 1
    for text in ("0", "-2", "two", "1.5"):
        monkeypatch.setenv("SUBQUAD_NUM_THREADS", text)
        with pytest.raises(ValueError, match=f"SUBQUAD_NUM_THREADS is '{text}'"):
            threads.thread_count()


@pytest.mark.parametrize("count", ["1", "3"])
def test_every_item_once_and_errors_propagate(monkeypatch, count):
    monkeypatch.setenv("SUBQUAD_NUM_THREADS", count)
    assert threads.parallel_map(lambda i: i * i, range(50)) == [i * i for i in range(50)]
    assert threads.parallel_map(str, []) == []
    done = []

    def body(_, i):
        done.append(i)
        if i == 3:
            msg = "third"
            raise ZeroDivisionError(msg)

    before = blas_threads()
    with pytest.raises(ZeroDivisionError, match="third"):
        threads.for_each(10_000, lambda: None, body)
    assert len(done) < 10_000
    assert blas_threads() == before


def test_threads_are_kept_and_a_forked_child_gets_its_own(monkeypatch):
    monkeypatch.setenv("SUBQUAD_NUM_THREADS", "3")
    together = threading.Barrier(3, timeout=60)

    def names():
        found = set()

        def body(_, i):
            together.wait()
            found.add(threading.current_thread().name)

        threads.for_each(3, lambda: None, body)
        return found

    first = names()
    assert len(first) == 3
    assert threading.current_thread().name in first
    for _ in range(20):
        names()
    own = [t for t in threading.enumerate() if t.name.startswith(f"subquad-{os.getpid()}")]
    assert 2 <= len(own) <= 32
    monkeypatch.setattr(os, "getpid", lambda: -1)
    others = names() - {threading.current_thread().name}
    assert len(others) == 2
    assert all(name.startswith("subquad--1") for name in others)


def test_loops_inside_loops_end_with_no_thread_to_spare(monkeypatch):
    monkeypatch.setenv("SUBQUAD_NUM_THREADS", "3")
    with ThreadPoolExecutor(1) as only:
        monkeypatch.setattr(threads, "_pool", lambda process: only)
        found = threads.parallel_map(
            lambda i: sum(threads.parallel_map(lambda j: i * j, range(5))), range(7)
        )
    assert found == [10 * i for i in range(7)]


def test_a_blas_that_is_loaded_later_is_limited_too(monkeypatch):
    """As SciPy's own, which comes with the first linear program."""
    found = []
    monkeypatch.setattr(threads, "CARRIERS", ("numpy", "late_carrier"))
    threads._found_with.cache_clear()
    real = threads.ThreadpoolController
    monkeypatch.setattr(threads, "ThreadpoolController", lambda: found.append(1) or real())
    for _ in range(3):
        threads.for_each(1, lambda: None, lambda _, i: None)
    assert len(found) == 1
    monkeypatch.setitem(sys.modules, "late_carrier", threading)
    for _ in range(3):
        threads.for_each(1, lambda: None, lambda _, i: None)
    assert len(found) == 2
    threads._found_with.cache_clear()


def test_overlapping_callers_restore_the_blas_setting():
    before = blas_threads()
    inside, leave = threading.Event(), threading.Event()

    def other():
        with threads.single_threaded_blas():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with threads.single_threaded_blas():
        thread.start()
        assert inside.wait(60)
        assert set(blas_threads()) <= {1}
    assert set(blas_threads()) <= {1}  # the other caller still needs it
    leave.set()
    thread.join()
    assert blas_threads() == before


def test_a_caller_outside_the_main_thread_is_limited_too():
    # threadpoolctl ignores limits from any thread but the first that set one.
    before, seen = blas_threads(), []

    def work():
        threads.for_each(1, lambda: None, lambda _, i: seen.append(blas_threads()))

    threads.for_each(1, lambda: None, lambda _, i: None)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [set(counts) for counts in seen] == [{1}]
    assert blas_threads() == before


def test_floating_point_warnings_stay_inside():
    with np.errstate(all="raise"):
        engine.exact_block(np.full((2, 1), 1e30), np.ones((3, 1)), np.ones((3, 2)))


def test_what_runs_side_by_side_has_one_thread_each(monkeypatch):
    """Passes inside ask for no threads of their own, elsewhere they do as before."""
    monkeypatch.setenv("SUBQUAD_NUM_THREADS", "2")
    asked, pool = [], threads._pool
    monkeypatch.setattr(threads, "_pool", lambda process: asked.append(process) or pool(process))
    meet = threading.Barrier(2, timeout=10).wait  # two at a time, or none has a thread beside it

    def used(_=None):
        return set(threads.parallel_map(lambda _: threading.get_ident(), range(20)))

    inside = threads.parallel_map(lambda _: (meet(), used())[1], range(4), alone=True)
    assert [len(found) for found in inside] == [1] * 4
    assert len(set.union(*inside)) == 2 and len(asked) == 1
    used()
    assert len(asked) == 2
    with pytest.raises(ZeroDivisionError):
        threads.parallel_map(lambda i: 1 // i, [0], alone=True)
    used()
    assert len(asked) == 3


def test_passes_inside_keep_their_order_and_their_errors():
    def inside(i):
        return threads.parallel_map(lambda j: 10 // (i - j), range(3))

    assert threads.parallel_map(inside, [3, 4], alone=True) == [[3, 5, 10], [2, 3, 5]]
    with pytest.raises(ZeroDivisionError):
        threads.parallel_map(inside, [3, 1], alone=True)
