"""The two passes compiled by numba, the `fast` extra: made once, kept, made anew where stale.

What runs compiled stands in `compiled_loops`; here is how it is made, and the memory that a thread
holds to run it, which must have the sizes that the loops were compiled for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from subquad.engine.cpu import compiled_loops as loops
from subquad.engine.cpu import microkernel
from subquad.engine.cpu.microkernel import ROWS, TOKENS, VECTOR_BYTES
from subquad.features import block_sizes, suffix_offsets

AVAILABLE = microkernel.AVAILABLE

_lock = threading.Lock()


def _after_fork() -> None:
    """Give a child a lock of its own: the thread that held its parent's is not there."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _made(dtype: np.dtype) -> tuple[Any, Any]:
    """Return the two passes for a compute dtype: some seconds once a machine, then kept."""
    with _lock:  # or each thread would compile them
        return _made_once(dtype.name)


@lru_cache(maxsize=2)
def _made_once(dtype: str) -> tuple[Any, Any]:
    given = numba.from_dtype(np.dtype(dtype))

    def rows(kind, inner=2, fixed=False):
        return numba.types.Array(kind, inner, "C", readonly=fixed)

    whole = numba.int64
    recipe = [rows(whole, 1, True), rows(whole, 2, True), rows(whole, 2, True)]
    buffers = [rows(given), rows(given)]
    wide = rows(numba.float64)
    accumulate = whole(
        rows(given, 2, True),
        rows(given, 2, True),
        *recipe,
        whole,
        whole,
        *buffers,
        rows(given),
        rows(given, 1),
        wide,
        wide,
    )
    contract = whole(
        rows(given, 2, True),
        rows(given, 2, True),
        rows(numba.float64, 1, True),
        *recipe,
        *buffers,
        wide,
        rows(numba.float64, 1),
        wide,
        wide,
    )
    return _compile(loops.accumulate, accumulate), _compile(loops.contract, contract)


def _compile(function: Callable, signature: Any) -> Any:
    try:
        made = numba.njit(signature, cache=True, **loops.OPTIONS)(function)
    except RuntimeError:  # nowhere to keep the compiled code
        return numba.njit(signature, **loops.OPTIONS)(function)
    if made(*_no_rows(signature)) != loops.MARK:  # it was kept from other sources
        made.recompile()
    return made


def _no_rows(signature: Any) -> list[Any]:
    """Return arguments that leave nothing to do: of the first two arrays no row."""
    found: list[Any] = []
    for kind in signature.args:
        if isinstance(kind, numba.types.Array):
            shape = (0 if len(found) < 2 else 1,) + (1,) * (kind.ndim - 1)
            found.append(np.zeros(shape, kind.dtype.name))
        else:
            found.append(1)
    return found


@lru_cache(maxsize=64)
def _recipe(d: int, degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (block sizes, first row led by each variable in a degree, where its suffix begins)."""
    blocks = np.array(block_sizes(d, degree), np.int64)
    leads, offsets = (np.zeros((degree + 1, d + 1), np.int64) for _ in "lo")
    for k in range(1, degree + 1):
        offsets[k, :d] = suffix_offsets(d, k - 1)
        leads[k, 1:] = np.cumsum(blocks[k - 1] - offsets[k, :d])
    return blocks, leads, offsets


def width(columns: int, dtype: np.dtype) -> int:
    """Return the columns of sums and tables: whole registers."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    return -(-columns // lanes) * lanes


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return zeros whose rows, where they are whole registers, begin where registers may."""
    dtype = np.dtype(np.dtype(dtype).name)  # in this machine's order
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(size + VECTOR_BYTES, np.uint8)
    start = -raw.ctypes.data % VECTOR_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


def _features(d: int, degree: int, tokens: int, at_once: int, dtype: np.dtype) -> tuple:
    """Return memory for the monomials below the top degree, and some of those of it."""
    stored = sum(block_sizes(d, degree)[1 : max(degree, 2)])
    top = at_once if degree > 1 else 0
    return tuple(aligned((r + ROWS, tokens), dtype) for r in (stored, top))


class KeyTiles:
    """What one thread holds for `accumulate`."""

    def __init__(self, d: int, degree: int, tile: int, columns: int, dtype: np.dtype) -> None:
        self._recipe, self._call, self._dtype = _recipe(d, degree), _made(dtype)[0], dtype.name
        wide, tokens = width(columns, dtype), width(tile, dtype)
        self._buffers = (
            *_features(d, degree, tokens, loops.FEATURES, dtype),
            aligned((tile, wide), dtype),
            aligned((tokens,), dtype),
            aligned((ROWS, wide), np.float64),
        )

    def add(self, K, W, sums: np.ndarray, piece: int, pieces: int) -> None:
        """Add the moments of some tiles to `sums` (r, width), as `cpu._KeyTiles` does."""
        K, W = (np.ascontiguousarray(x, self._dtype) for x in (K, W))
        self._call(K, W, *self._recipe, piece, pieces, *self._buffers, sums)


class QueryTiles:
    """What one thread holds for `contract`."""

    def __init__(self, d: int, degree: int, columns: int, dtype: np.dtype) -> None:
        self._recipe, self._call, self._dtype = _recipe(d, degree), _made(dtype)[1], dtype.name
        self._buffers = (
            *_features(d, degree, TOKENS, loops.CHUNK, dtype),
            aligned((TOKENS, width(columns, dtype)), np.float64),
            aligned((TOKENS,), np.float64),
        )

    def add(self, Q, table, coefficients, numerator, by_degree) -> None:
        """Add degrees >= 1 of some rows to `numerator`, write their normalisers to `by_degree`."""
        Q, coefficients = np.ascontiguousarray(Q, self._dtype), np.ascontiguousarray(coefficients)
        self._call(Q, table, coefficients, *self._recipe, *self._buffers, numerator, by_degree)
