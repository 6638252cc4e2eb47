"""Loops of the two passes over some tiles, for numba: each pass is one call without the GIL.

The same sums in the same tiles and chunks as those of `cpu.passes`, so within the same rounding
bounds; only the order within a tile and a chunk, which these leave open, is this file's own. Beside
other threads each call of NumPy is a chance to wait for the interpreter; here one call does some
tiles. And features go from where they are built, in cache, straight into registers: BLAS copies its
operands first. `compiled` compiles them and holds what they work in.

Columns are padded to whole registers; where they are one more than that, the last is added up
apart. Integers are made by np.int64 here and there: for a literal, numba would compile once more.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from subquad.engine import lengths
from subquad.engine.cpu.microkernel import (
    ROWS,
    TOKENS,
    VECTOR_BYTES,
    VECTORS,
    add_dots,
    combine,
    products_of,
    write_product,
)

FEATURES = 2 * ROWS
"""Features built at once in `accumulate`, of a tile of tokens: they stay in the first cache."""
CHUNK = lengths.FEATURE_CHUNK
SOURCES = ("compiled.py", "compiled_loops.py", "microkernel.py")
"""Files of this folder that decide what is compiled: how, the loops, and their instructions."""
_TEXT = b"".join(Path(__file__).with_name(name).read_bytes() for name in SOURCES)
MARK = zlib.crc32(_TEXT + repr((FEATURES, CHUNK, ROWS, TOKENS, VECTORS, VECTOR_BYTES)).encode())
"""What compiled code was made from, which it returns: numba keeps code by the date of this file
alone, and buffers of other sizes than it was made for would be overrun."""

OPTIONS = {"nogil": True, "error_model": "numpy"}
_inner: Callable[[Any], Any] = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)
_one, _two, _three, _four = map(products_of, range(1, 5))


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
        write_product(
            stored, a * step, stored, source * step, tokens, out, (to + row - start) * step
        )


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
        _build(
            stored, base, leads, offsets, k, zero, blocks[k], tokens, stored, base + blocks[k - 1]
        )
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
            _add_products(
                features,
                (row + i) * step,
                step,
                np.int64(1),
                weights,
                c,
                t,
                out,
                at * width + c,
                min(VECTORS, (columns - c) // lanes),
            )
        if apart:
            add_dots(
                features, (row + i) * step, step, weight, tokens, out, at * width + columns, width
            )
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


def accumulate(
    K, W, blocks, leads, offsets, piece, pieces, stored, top, weights, weight, spare, sums
):  # pragma: no cover - runs compiled
    """Return MARK, the moments of keys (m, d) and weights (m, columns) added to sums (r, width).

    Of the top degree those of every `pieces`-th FEATURES; piece 0 has those below.
    """
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
                _add_moments(
                    stored,
                    below,
                    blocks[k],
                    t,
                    tokens,
                    weights,
                    weight,
                    sums,
                    below + 1,
                    spare,
                    apart,
                )
                below += blocks[k]
        to = base + blocks[degree - 1] + 1
        for i in range(piece, -(-blocks[degree] // FEATURES) if degree > 1 else 0, pieces):
            start, stop = i * FEATURES, min((i + 1) * FEATURES, blocks[degree])
            _build(stored, base, leads, offsets, degree, start, stop, tokens, top, zero)
            _add_moments(
                top, zero, stop - start, t, tokens, weights, weight, sums, to + start, spare, apart
            )
    return MARK


@_inner
def _add_sums(features, row, count, t, table, to, total, ends, apart):
    """Add features[row:row + count, :t].T @ table[to:to + count] to total and, apart, ends."""
    step, width = features.shape[1], table.shape[1]
    lanes = VECTOR_BYTES // table.itemsize
    columns = width - lanes if apart else width
    for c in range(0, columns, VECTORS * lanes):
        for i in range(0, t, ROWS):
            _add_products(
                features,
                row * step + i,
                np.int64(1),
                step,
                table,
                to * width + c,
                count,
                total,
                i * width + c,
                min(VECTORS, (columns - c) // lanes),
            )
    if apart:
        combine(table, to * width + columns, width, features, row * step, step, count, ends)


def contract(
    Q, table, coefficients, blocks, leads, offsets, stored, top, total, ends, numerator, by_degree
):  # pragma: no cover - runs compiled
    """Return MARK, degrees >= 1 of queries (n, d) added to numerator (n, d_v), by_degree written.

    The table (r - 1, width) holds the moments of these degrees times their multinomials.
    """
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
                    _add_sums(
                        stored, to + start, stop - start, t, table, to + start, total, ends, apart
                    )
                else:
                    _build(stored, base, leads, offsets, k, start, stop, size, top, np.int64(0))
                    _add_sums(
                        top, np.int64(0), stop - start, t, table, to + start, total, ends, apart
                    )
            for j in range(t):
                for c in range(d_v):
                    numerator[first + j, c] += coefficients[k] * total[j, c]
                by_degree[first + j, k] = ends[j] if apart else total[j, d_v]
            to += blocks[k]
    return MARK
