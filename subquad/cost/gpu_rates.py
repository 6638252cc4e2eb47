"""How fast the passes run on the current CUDA device: measured on the engine by CUDA events."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import cupy
import numpy as np

from subquad.engine.passes import COMPUTE_DTYPES, accumulate, contract, exact_block
from subquad.engine.rows import fused_operands, rows_of
from subquad.features import feature_dimension

REPEATS = 3
PAIRS, TOKENS, ROWS = 1 << 14, 1 << 19, 1 << 18
"""Queries and keys of the exact probes, of the polynomial probes, rows prepared: enough of each
that the launches do not count."""
COLUMNS, PROBED_D = (8, 64), 32
OVERHEAD = 2e-3
"""Seconds of a call without its passes, about: launches, and waits of the host."""

Speeds = tuple[float, float, float, float, float]
"""Flops of the exact path, pairs, flops of the polynomial path, features, entries; per second."""


def speeds() -> dict[str, Speeds]:
    """Return the Speeds of the current device by compute dtype; about a second, once a process.

    Of the fused passes as well, where the device has them.
    """
    return _speeds_of(cupy.cuda.runtime.getDevice())


def memory_bytes() -> float:
    """Return the memory of the current device."""
    return float(cupy.cuda.runtime.memGetInfo()[1])


@lru_cache(maxsize=16)
def _speeds_of(device: int) -> dict[str, Speeds]:
    found = {dtype: _speeds(dtype) for dtype in COMPUTE_DTYPES}
    for operands in fused_operands(cupy.empty(0)):
        found[operands] = _fused(operands, found["float32"])
    return found


def _fused(operands: str, stored: Speeds) -> Speeds:
    """Return the Speeds with the polynomial path by the fused passes, at one shape.

    Building their features takes no time that the products do not take; measuring another shape
    would need a kernel compiled for it alone.
    """
    columns = COLUMNS[1]
    Q, K, W = _rows("float32", TOKENS, (columns, columns, columns + 1))
    seconds = _seconds(partial(_two_passes, Q, K, abs(W), operands))
    flops = 2.0 * (columns + 8) * 2.0 * TOKENS * feature_dimension(columns, 2)
    return (*stored[:2], flops / seconds, math.inf, stored[4])


def _speeds(dtype: str) -> Speeds:
    exact, polynomial = [], []
    for columns in COLUMNS:
        Q, K, W = _rows(dtype, PAIRS, (columns,) * 3)
        exact.append(_seconds(partial(exact_block, Q, K, abs(W))))
        Q, K, W = _rows(dtype, TOKENS, (PROBED_D, PROBED_D, columns))
        polynomial.append(_seconds(partial(_two_passes, Q, K, abs(W))))
    (x,) = _rows(dtype, ROWS, (COLUMNS[1],))
    tokens = 2.0 * TOKENS * feature_dimension(PROBED_D, 2)
    return (
        *_line(exact, float(PAIRS) ** 2, 4.0),
        *_line(polynomial, tokens, 2.0),
        x.size / _seconds(partial(rows_of(x).affine, x, 1.0, 0.0, 1.0, dtype)),
    )


def _rows(dtype: str, count: int, columns: tuple[int, ...]) -> list[Any]:
    rng = cupy.random.default_rng(0)
    return [(0.1 * rng.standard_normal((count, d))).astype(dtype) for d in columns]


def _two_passes(Q: Any, K: Any, W: Any, operands: str | None = None) -> None:
    state = accumulate(K, W, 2, key_centre=np.zeros(K.shape[1]), operands=operands)
    contract(Q, state, [1.0, 1.0, 0.5])


def _seconds(call: Callable[[], object]) -> float:
    """Return the least time of a few calls on the current stream, after one to warm up."""
    call()
    start, stop, found = cupy.cuda.Event(), cupy.cuda.Event(), []
    for _ in range(REPEATS):
        start.record()
        call()
        stop.record()
        stop.synchronize()
        found.append(1e-3 * cupy.cuda.get_elapsed_time(start, stop))
    return min(found)


def _line(seconds: list[float], items: float, flops: float) -> tuple[float, float]:
    """Return (flops, items) per second from the times at few and at many columns.

    `flops` are those of one item and column. Each rate keeps a tenth of the time at least, so
    that noise cannot make it negative.
    """
    (few, many), (low, high) = COLUMNS, (s / items for s in seconds)
    per_column = min(max((high - low) / (many - few), 0.1 * high / many), high / many)
    return flops / per_column, 1.0 / max(low - per_column * few, 0.1 * low)
