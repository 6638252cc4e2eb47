"""A child of os.fork has none of its parent's other threads: no lock of theirs may keep it."""

import importlib.util
import os

import pytest

from tests.fresh import printed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

FORKED = """
import os, signal, sys, threading
os.environ["SUBQUAD_NUM_THREADS"] = "2"
from threadpoolctl import threadpool_info, threadpool_limits
import subquad
from subquad.engine import threads
from subquad.exp_poly import balls
threadpool_limits(2, "blas")

def blas():
    return sorted({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})

def other(block):
    with block:
        held.set()
        leave.wait()

def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends a child that hangs
        work()
        os._exit(0)
    print("signal or status of the child:", os.waitpid(child, 0)[1])

held, leave = threading.Event(), threading.Event()
"""
OTHER = """
threading.Thread(target=other, args=({block},), daemon=True).start()
held.wait()
in_child(lambda: {work})
print(blas())
leave.set()
"""
DONE = "signal or status of the child: 0"
PASSES = "threads.for_each(4, lambda: None, lambda _, i: None)"


def test_a_child_is_not_limited_by_its_parents_thread():
    code = FORKED + OTHER.format(
        block="threads.single_threaded_blas()",
        work=f"(print(blas()), {PASSES}, print(blas()), sys.stdout.flush())",
    )
    assert printed(code).splitlines() == ["[2]", "[2]", DONE, "[1]"]


@pytest.mark.parametrize(
    "lock, work",
    [
        ("threads.single_threaded_blas._lock", PASSES),
        ("balls.precision(100)", "subquad.minimal_degree(1.0, 1e-3)"),
        pytest.param(
            "__import__('subquad.engine.cpu.compiled', fromlist='_')._lock",
            "sys.modules['subquad.engine.cpu.compiled']._lock.acquire()",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("numba") is None, reason="needs numba"
            ),
        ),
    ],
)
def test_a_child_does_not_wait_for_a_lock_of_its_parents_thread(lock, work):
    assert printed(FORKED + OTHER.format(block=lock, work=work)).splitlines()[0] == DONE


def test_a_child_forked_inside_the_limit_leaves_it_in_order():
    code = (
        FORKED
        + f"""
def work():
    limit.__exit__(None, None, None)
    print(blas())
    with threads.single_threaded_blas():
        print(blas())
    {PASSES}
    print(blas())
    sys.stdout.flush()

limit = threads.single_threaded_blas()
limit.__enter__()
in_child(work)
limit.__exit__(None, None, None)
print(blas())
"""
    )
    assert printed(code).splitlines() == ["[2]", "[1]", "[2]", DONE, "[2]"]
