"""How fast the passes run on the current CUDA device: measured on the engine by CUDA events."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import cupy
import numpy as np

from subquad.engine import prepare
from subquad.engine.dispatch import COMPUTE_DTYPES, accumulate, contract, exact_block
from subquad.features import feature_dimension

REPEATS = 3
PAIRS, TOKENS, ROWS = 1 << 14, 1 << 19, 1 << 18
"""Queries and keys of the exact probes, of the polynomial probes, rows prepared: enough of each
that the launches do not count."""
COLUMNS, PROBED_D = (8, 64), 32

Speeds = tuple[float, float, float, float, float]
"""Flops of the exact path, pairs, flops of the polynomial path, features, entries; per second."""


def speeds() -> dict[str, Speeds]:
    """Return the Speeds of the current device by compute dtype; under a second, once a process."""
    return _speeds_of(cupy.cuda.runtime.getDevice())


@lru_cache(maxsize=16)
def _speeds_of(device: int) -> dict[str, Speeds]:
    return {dtype: _speeds(dtype) for dtype in COMPUTE_DTYPES}


def _speeds(dtype: str) -> Speeds:
    rng = cupy.random.default_rng(0)

    def rows(count: int, columns: int) -> Any:
        return (0.1 * rng.standard_normal((count, columns))).astype(dtype)

    exact, polynomial = [], []
    for columns in COLUMNS:
        Q, K, W = rows(PAIRS, columns), rows(PAIRS, columns), abs(rows(PAIRS, columns))
        exact.append(_seconds(partial(exact_block, Q, K, W)))
        Q, K, W = rows(TOKENS, PROBED_D), rows(TOKENS, PROBED_D), abs(rows(TOKENS, columns))
        polynomial.append(_seconds(partial(_two_passes, Q, K, W)))
    x = rows(ROWS, COLUMNS[1])
    tokens = 2.0 * TOKENS * feature_dimension(PROBED_D, 2)
    return (
        *_line(exact, float(PAIRS) ** 2, 4.0), *_line(polynomial, tokens, 2.0),
        x.size / _seconds(partial(_prepared, x, dtype)),
    )  # fmt: skip


def _two_passes(Q: Any, K: Any, W: Any) -> None:
    state = accumulate(K, W, 2, key_centre=np.zeros(K.shape[1]))
    contract(Q, state, [1.0, 1.0, 0.5])


def _prepared(x: Any, dtype: str) -> None:
    prepare.affine(x, 1.0, 0.0, 1.0, dtype)
    for _ in range(2):
        prepare.row_measures(x, 1.0, 0.0)


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
