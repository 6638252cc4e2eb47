"""Our own threads over blocks of rows, with the BLAS held to one thread meanwhile.

Two pools that both want every core fight; and a BLAS that splits a product differently for each
number of threads changes the last bits. So blocks are cut by sizes alone, one thread takes whole
blocks, and the result does not depend on how many threads there are.
"""

import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Answer = TypeVar("Answer")

VARIABLE = "SUBQUAD_NUM_THREADS"

THREAD_WORK = 2**28
"""Operations of the passes (some ms of one thread) for which one more thread pays: below it the
threads spend more on waiting for the interpreter than they gain."""
ENTRY_WORK = 2**8
"""What an entry measured or prepared counts in that unit."""


def thread_count() -> int:
    """Return SUBQUAD_NUM_THREADS, or the number of CPUs this process may use; read at each call.

    Raises ValueError if the variable is set to anything but a positive integer.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text:
        if not text.isdecimal() or int(text) < 1:
            msg = f"{VARIABLE} is {text!r}: give a positive integer, or unset it."
            raise ValueError(msg)
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


CARRIERS = ("numpy", "scipy.linalg", "torch", "sklearn")
"""Modules that bring a BLAS of their own, perhaps after our first pass."""


def _blas_libraries() -> tuple[list[Any], list[Any]]:
    """Return the controllers of (process-wide, per-thread) BLAS settings."""
    return _found_with(tuple(name in sys.modules for name in CARRIERS))


@lru_cache(maxsize=2 ** len(CARRIERS))
def _found_with(_carriers: tuple[bool, ...]) -> tuple[list[Any], list[Any]]:
    """Return the controllers of what is loaded now, where these are; finding them takes ms."""
    found = [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]
    per_thread = [lib for lib in found if getattr(lib, "threading_layer", None) == "openmp"]
    return [lib for lib in found if lib not in per_thread], per_thread


def _set_shared(lib: Any, threads: int) -> None:
    # threadpoolctl lets only the thread that set a limit first change it, and ignores the others
    # in silence; whoever leaves last must be able to restore it.
    release = getattr(lib, "clear_controlling_thread", lambda force: None)
    release(force=True)
    lib.set_num_threads(threads)
    release(force=True)


class _BlasLimit:
    """Counts who needs a single-threaded BLAS: the first limits it, the last restores it.

    The setting belongs to the process. Were each caller to restore what it found, two callers
    that overlap would leave the limit in place for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: set[object] = set()
        self._limited: list[tuple[Any, int]] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        user = object()
        with self._lock:
            if not self._users:
                self._limited = [(lib, lib.get_num_threads()) for lib in _blas_libraries()[0]]
                for lib, _ in self._limited:
                    _set_shared(lib, 1)
            self._users.add(user)
        try:
            yield
        finally:
            with self._lock:
                self._users.discard(user)
                if not self._users:
                    self._restore()

    def _restore(self) -> None:
        for lib, threads in self._limited:
            _set_shared(lib, threads)
        self._limited = []

    def after_fork(self) -> None:
        """Start anew in a child: the threads of its parent, which held lock and limit, are gone."""
        self._lock = threading.Lock()
        self._users = set()
        self._restore()


@contextmanager
def _this_thread_limited() -> Iterator[None]:
    """Limit a BLAS on OpenMP, where each thread has its own setting and new ones the default."""
    _, own = _blas_libraries()
    before = [lib.get_num_threads() for lib in own]
    for lib in own:
        lib.set_num_threads(1)
    try:
        yield
    finally:
        for lib, threads in zip(own, before, strict=True):
            lib.set_num_threads(threads)


single_threaded_blas = _BlasLimit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=single_threaded_blas.after_fork)

_own = threading.local()


def for_each(
    count: int,
    setup: Callable[[], Any],
    body: Callable[[Any, int], None],
    work: float = math.inf,
    *,
    alone: bool = False,
) -> None:
    """Return once ``body(buffers, i)`` has run for each i < `count`, `buffers` one per thread.

    `work` is how much there is to do in all, in operations: small work starts fewer threads. Each
    thread calls `setup` once and then takes the next i that is left, so memory grows with the
    threads and not with `count`. Floating-point warnings are off: overflow shows as inf or
    NaN in the result, which no bound accepts. The first exception stops the others and is
    raised. Where it is `alone`, a thread has no others beside it in the passes that `body` makes.
    """
    if getattr(_own, "alone", False):  # limited already, like the BLAS
        buffers = setup() if count else None
        for i in range(count):
            body(buffers, i)
        return
    if count == 0:
        return
    tickets, lock, stop = iter(range(count)), threading.Lock(), threading.Event()

    def share() -> None:
        _own.alone = alone
        try:
            with np.errstate(all="ignore"), _this_thread_limited():
                buffers, i = setup(), 0
                while not stop.is_set():
                    with lock:
                        i = next(tickets, count)
                    if i == count:
                        break
                    body(buffers, i)
        except BaseException:
            stop.set()
            raise
        finally:
            _own.alone = False

    workers = int(min(thread_count(), count, 1.0 + work / THREAD_WORK))
    with single_threaded_blas():
        others = [_pool(os.getpid()).submit(share) for _ in range(workers - 1)]
        try:
            share()
        finally:
            stop.set()  # an interrupt must not wait for every block
            begun = [other for other in others if not other.cancel()]
            wait(begun)
        for other in begun:
            other.result()


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads beside the caller's, kept: starting two took longer than small passes.

    A child made by fork has none of its parent's. What finds no thread free is done by the caller,
    so callers inside one another cannot wait for each other.
    """
    return ThreadPoolExecutor(max(32, 4 * (os.cpu_count() or 1)), f"subquad-{process}")


def parallel_map(
    function: Callable[[Item], Answer],
    items: Iterable[Item],
    work: float = math.inf,
    *,
    alone: bool = False,
) -> list[Answer]:
    """Return [function(item) for item in items], computed by the threads of `for_each`."""
    todo = list(items)
    answers: list[Any] = [None] * len(todo)

    def body(_: None, i: int) -> None:
        answers[i] = function(todo[i])

    for_each(len(todo), lambda: None, body, work, alone=alone)
    return answers
