"""Times of several ways to do one thing, taken in turns in one run; the peers they are held to."""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from subquad.engine.cpu import fast as cpu_fast
from subquad.engine.threads import thread_count

BLOCK = 512
Answer = TypeVar("Answer")


def samples(
    functions: Mapping[str, Callable[[], object]], repeats: int = 3, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of each function, called in turns after `warm_up` rounds.

    In turns, so that another load on the machine slows all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warm_up + repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return times


def interleaved(
    functions: Mapping[str, Callable[[], object]], repeats: int = 3, warm_up: int = 1
) -> dict[str, float]:
    """Return the median seconds of each function, called in turns after `warm_up` rounds."""
    times = samples(functions, repeats, warm_up)
    return {name: statistics.median(values) for name, values in times.items()}


def spread(
    functions: Mapping[str, Callable[[], object]], repeats: int = 3
) -> dict[str, dict[str, float]]:
    """Return median, least and most seconds of each function, in turns, warm already."""
    return {
        name: {"median": statistics.median(x), "least": min(x), "most": max(x)}
        for name, x in samples(functions, repeats, warm_up=0).items()
    }


COMPILED = ", fast"
"""What a way of ours is called more where its passes run compiled."""


def ours(name: str, call: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """Return `call` on NumPy alone and, where numba is installed, with its passes compiled."""
    able = cpu_fast.passes(cpu_fast.LEAST_PRODUCTS, 2, 2) is not None
    return {name: lambda: on_numpy(call), **({name + COMPILED: call} if able else {})}


def features_by() -> str:
    """Return what runs the passes of large problems, "numba" or "NumPy".

    Loaded here, so that rates measured from now on are of it.
    """
    cpu_fast.passes(cpu_fast.LEAST_PRODUCTS, 8, 2)
    return "numba" if cpu_fast.expected(cpu_fast.LEAST_PRODUCTS, 8, 2) else "NumPy"


def on_numpy(call: Callable[[], Answer]) -> Answer:
    """Return call(), none of its passes compiled."""
    before = os.environ.get(cpu_fast.VARIABLE)
    os.environ[cpu_fast.VARIABLE] = "0"
    try:
        return call()
    finally:
        if before is None:
            del os.environ[cpu_fast.VARIABLE]
        else:
            os.environ[cpu_fast.VARIABLE] = before


def numpy_softmax(Q: np.ndarray, K: np.ndarray, V: np.ndarray, scale: float) -> np.ndarray:
    """Return exact attention as one writes it in plain NumPy, 512 rows at a time, in Q's dtype."""
    output = np.empty((len(Q), V.shape[1]), Q.dtype)
    keys = np.ascontiguousarray(K.T) * Q.dtype.type(scale)
    for start in range(0, len(Q), BLOCK):
        block = slice(start, start + BLOCK)
        weights = Q[block] @ keys
        weights -= weights.max(axis=1, keepdims=True)
        np.exp(weights, out=weights)
        output[block] = (weights @ V) / weights.sum(axis=1, keepdims=True)
    return output


def gemm(size: int) -> Callable[[], np.ndarray]:
    """Return a function that multiplies two square float32 matrices on as many threads as we."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), np.float32) for _ in "ab")
    out = np.empty_like(a)

    def call() -> np.ndarray:
        with threadpool_limits(thread_count(), "blas"):
            return np.matmul(a, b, out=out)

    return call


@lru_cache(maxsize=1)
def torch_available() -> bool:
    """Return whether PyTorch can be imported; it is a peer here, never needed."""
    if importlib.util.find_spec("torch") is None:
        return False
    try:
        import torch  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def sdpa(Q: np.ndarray, K: np.ndarray, V: np.ndarray, scale: float) -> Callable[[], np.ndarray]:
    """Return a function that runs PyTorch's scaled_dot_product_attention on as many threads as we.

    The arrays are handed over (no copy) before the clock starts. Needs torch.
    """
    import torch

    torch.set_num_threads(thread_count())
    tensors = [torch.from_numpy(x)[None, None] for x in (Q, K, V)]

    def call() -> np.ndarray:
        with torch.inference_mode():
            out = torch.nn.functional.scaled_dot_product_attention(*tensors, scale=scale)
        return out[0, 0].numpy()

    return call
