"""Tiles of the two passes, each in one call without the GIL, by numba: the `fast` extra.

The same sums in the same tiles and chunks as those of `subquad.engine.cpu`, so within the same
rounding bounds; only the order within a tile and a chunk, which these leave open, is this file's
own. Beside other threads each call of NumPy is a chance to wait for the interpreter; here one call
does some tiles. And features go from where they are built, in cache, straight into registers: BLAS
copies its operands first.

Columns are padded to whole registers; where they are one more than that, the last is added up
apart. Integers are made by np.int64 here and there: for a literal, numba would compile once more.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
import numpy as np

from subquad.engine import microkernel, sizes
from subquad.engine.microkernel import (
    ROWS,
    TOKENS,
    VECTOR_BYTES,
    VECTORS,
    add_dots,
    combine,
    products_of,
    write_product,
)
from subquad.features import block_sizes, suffix_offsets

AVAILABLE = microkernel.AVAILABLE
FEATURES = 2 * ROWS
"""Features built at once in `accumulate`, of a tile of tokens: they stay in the first cache."""
CHUNK = sizes.FEATURE_CHUNK
_SOURCES = b"".join(Path(path).read_bytes() for path in (__file__, microkernel.__file__))
MARK = zlib.crc32(_SOURCES + repr((FEATURES, CHUNK, ROWS, TOKENS, VECTORS, VECTOR_BYTES)).encode())
"""What compiled code was made from, which it returns: numba keeps code by the date of this file
alone, and buffers of other sizes than it was made for would be overrun."""

_one, _two, _three, _four = map(products_of, range(1, 5))
_inner: Callable[[Any], Any] = numba.njit(
    nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)


@_inner
def _add_products(left, at, row_step, step, right, begin, length, out, to, vectors):
    """Add a product to ROWS rows of `out`, (rows, width), `vectors` registers of columns."""
    width = right.shape[1]
    if vectors == 4:
        _four(left, at, row_step, step, right, begin, width, length, out, to, width)
    elif vectors == 3:
        _three(left, at, row_step, step, right, begin, width, length, out, to, width)
    elif vectors == 2:
        _two(left, at, row_step, step, right, begin, width, length, out, to, width)
    else:
        _one(left, at, row_step, step, right, begin, width, length, out, to, width)


@_inner
def _build(stored, base, leads, offsets, k, start, stop, tokens, out, to):
    """Write monomials start..stop of degree k to out[to:]; those of degree k - 1 begin at base."""
    step, a = out.shape[1], 0
    for row in range(start, stop):
        while leads[k, a + 1] <= row:
            a += 1
        source = base + offsets[k, a] + row - leads[k, a]
        write_product(stored, a * step, stored, source * step, tokens, out,
                      (to + row - start) * step)  # fmt: skip


@_inner
def _load(rows, first, t, tokens, stored, blocks, leads, offsets):
    """Take t rows, zeros up to `tokens`, and build every degree below the top; return its base.

    What an earlier tile left of weights beyond t is multiplied by these zeros.
    """
    d, degree, zero = rows.shape[1], len(blocks) - 1, np.int64(0)
    for i in range(d):
        for j in range(t):
            stored[i, j] = rows[first + j, i]
        for j in range(t, tokens):
            stored[i, j] = 0
    base = zero
    for k in range(2, degree):
        _build(stored, base, leads, offsets, k, zero, blocks[k], tokens, stored,
               base + blocks[k - 1])  # fmt: skip
        base += blocks[k - 1]
    return base


@_inner
def _add_moments(features, row, count, t, tokens, weights, weight, sums, to, spare, apart):
    """Add features[row:row + count, :t] @ weights[:t] to sums[to:to + count]."""
    step, width = features.shape[1], weights.shape[1]
    lanes = VECTOR_BYTES // weights.itemsize
    columns = width - lanes if apart else width
    for i in range(0, count, ROWS):
        whole = count - i >= ROWS
        out, at = (sums, to + i) if whole else (spare, np.int64(0))
        if not whole:
            spare[:, :] = 0.0
        for c in range(0, columns, VECTORS * lanes):
            _add_products(features, (row + i) * step, step, np.int64(1), weights, c, t, out,
                          at * width + c, min(VECTORS, (columns - c) // lanes))  # fmt: skip
        if apart:
            add_dots(features, (row + i) * step, step, weight, tokens, out, at * width + columns,
                     width)  # fmt: skip
        if not whole:
            for k in range(count - i):
                for c in range(width):
                    sums[to + i + k, c] += spare[k, c]


@_inner
def _take_weights(W, first, t, weights, weight):
    columns = W.shape[1]
    for j in range(t):
        for c in range(columns):
            weights[j, c] = W[first + j, c]
        weight[j] = W[first + j, columns - 1]


@_inner
def _add_weights(W, first, t, sums, spare):
    """Add the moments of degree 0, tile by tile like the others."""
    spare[:, :] = 0.0
    for j in range(first, first + t):
        for c in range(W.shape[1]):
            spare[0, c] += W[j, c]
    for c in range(W.shape[1]):
        sums[0, c] += spare[0, c]


def _accumulate(
    K, W, blocks, leads, offsets, piece, pieces, stored, top, weights, weight, spare, sums
):  # pragma: no cover - runs compiled
    degree, size, zero = len(blocks) - 1, weights.shape[0], np.int64(0)
    lanes = VECTOR_BYTES // weights.itemsize
    apart = weights.shape[1] - W.shape[1] == lanes - 1
    for first in range(0, len(K), size):
        t = min(size, len(K) - first)
        tokens = -(-t // lanes) * lanes
        _take_weights(W, first, t, weights, weight)
        base, below = _load(K, first, t, tokens, stored, blocks, leads, offsets), zero
        if piece == 0:
            _add_weights(W, first, t, sums, spare)
            for k in range(1, max(degree, 2)):
                _add_moments(stored, below, blocks[k], t, tokens, weights, weight, sums,
                             below + 1, spare, apart)  # fmt: skip
                below += blocks[k]
        to = base + blocks[degree - 1] + 1
        for i in range(piece, -(-blocks[degree] // FEATURES) if degree > 1 else 0, pieces):
            start, stop = i * FEATURES, min((i + 1) * FEATURES, blocks[degree])
            _build(stored, base, leads, offsets, degree, start, stop, tokens, top, zero)
            _add_moments(top, zero, stop - start, t, tokens, weights, weight, sums, to + start,
                         spare, apart)  # fmt: skip
    return MARK


@_inner
def _add_sums(features, row, count, t, table, to, total, ends, apart):
    """Add features[row:row + count, :t].T @ table[to:to + count] to total and, apart, ends."""
    step, width = features.shape[1], table.shape[1]
    lanes = VECTOR_BYTES // table.itemsize
    columns = width - lanes if apart else width
    for c in range(0, columns, VECTORS * lanes):
        for i in range(0, t, ROWS):
            _add_products(features, row * step + i, np.int64(1), step, table, to * width + c, count,
                          total, i * width + c, min(VECTORS, (columns - c) // lanes))  # fmt: skip
    if apart:
        combine(table, to * width + columns, width, features, row * step, step, count, ends)


def _contract(
    Q, table, coefficients, blocks, leads, offsets, stored, top, total, ends, numerator, by_degree
):  # pragma: no cover - runs compiled
    degree, d_v = len(blocks) - 1, numerator.shape[1]
    size: Any = np.int64(TOKENS)
    apart = table.shape[1] - d_v == VECTOR_BYTES // table.itemsize
    for first in range(0, len(Q), size):
        t = min(size, len(Q) - first)
        base = _load(Q, first, t, size, stored, blocks, leads, offsets)
        to = np.int64(0)
        for k in range(1, degree + 1):
            total[:, :] = 0.0
            ends[:] = 0.0
            for start in range(0, blocks[k], CHUNK):
                stop = min(start + CHUNK, blocks[k])
                if k == 1 or k < degree:
                    _add_sums(stored, to + start, stop - start, t, table, to + start, total, ends,
                              apart)  # fmt: skip
                else:
                    _build(stored, base, leads, offsets, k, start, stop, size, top, np.int64(0))
                    _add_sums(top, np.int64(0), stop - start, t, table, to + start, total, ends,
                              apart)  # fmt: skip
            for j in range(t):
                for c in range(d_v):
                    numerator[first + j, c] += coefficients[k] * total[j, c]
                by_degree[first + j, k] = ends[j] if apart else total[j, d_v]
            to += blocks[k]
    return MARK


_lock = threading.Lock()


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
        rows(given, 2, True), rows(given, 2, True), *recipe, whole, whole, *buffers,
        rows(given), rows(given, 1), wide, wide,
    )  # fmt: skip
    contract = whole(
        rows(given, 2, True), rows(given, 2, True), rows(numba.float64, 1, True), *recipe,
        *buffers, wide, rows(numba.float64, 1), wide, wide,
    )  # fmt: skip
    return _compile(_accumulate, accumulate), _compile(_contract, contract)


def _compile(function: Callable, signature: Any) -> Any:
    options = {"nogil": True, "error_model": "numpy"}
    try:
        made = numba.njit(signature, cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep the compiled code
        return numba.njit(signature, **options)(function)
    if made(*_no_rows(signature)) != MARK:  # it was kept from other sources
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
            *_features(d, degree, tokens, FEATURES, dtype), aligned((tile, wide), dtype),
            aligned((tokens,), dtype), aligned((ROWS, wide), np.float64),
        )  # fmt: skip

    def add(self, K, W, sums: np.ndarray, piece: int, pieces: int) -> None:
        """Add the moments of some tiles to `sums` (r, width), as `cpu._KeyTiles` does."""
        K, W = (np.ascontiguousarray(x, self._dtype) for x in (K, W))
        self._call(K, W, *self._recipe, piece, pieces, *self._buffers, sums)


class QueryTiles:
    """What one thread holds for `contract`."""

    def __init__(self, d: int, degree: int, columns: int, dtype: np.dtype) -> None:
        self._recipe, self._call, self._dtype = _recipe(d, degree), _made(dtype)[1], dtype.name
        self._buffers = (
            *_features(d, degree, TOKENS, CHUNK, dtype),
            aligned((TOKENS, width(columns, dtype)), np.float64), aligned((TOKENS,), np.float64),
        )  # fmt: skip

    def add(self, Q, table, coefficients, numerator, by_degree) -> None:
        """Add degrees >= 1 of some rows to `numerator`, write their normalisers to `by_degree`."""
        Q, coefficients = np.ascontiguousarray(Q, self._dtype), np.ascontiguousarray(coefficients)
        self._call(Q, table, coefficients, *self._recipe, *self._buffers, numerator, by_degree)
