"""The two passes on CuPy, portable: feature tiles by one kernel, products by cuBLAS.

Time O(m r d_v) and O(n r d_v) as on the CPU, memory O(r d_v) and `gpu_tiles.TILE_BYTES`. Tiles of
keys and chunks of monomials are the CPU's own (`sizes.tile_for`, `sizes.FEATURE_CHUNK`), many of
them in one batched product, and are added up in float64 in a fixed order; so the accounting of
`cpu.passes`, line by line, holds here with the same lengths, and a plan's bounds do not
depend on where it runs. Feature by feature the numbers are those of the CPU, bit for bit; sums
differ in their order. The same inputs give the same bits on every run on one kind of GPU with one
version of cuBLAS (see `subquad.engine.gpu.blas`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cupy
import numpy as np

from subquad.engine import lengths
from subquad.engine.gpu.blas import products
from subquad.engine.gpu.kernels import THREADS, launch
from subquad.engine.gpu.rows import device_measures, rounded
from subquad.engine.gpu.tiles import (
    MOST_ROWS,
    Factors,
    add_up,
    factors,
    step_numbers,
    tokens_first,
    tokens_last,
)
from subquad.engine.lengths import padded
from subquad.features import block_sizes, multinomials

KEY_FEATURES, QUERY_TOKENS = 4096, 8192
"""What a step takes at least, where there is as much: features of keys, tokens of queries."""

NORM_BLOCKS = 32


def accumulate(K: Any, W: Any, degree: int) -> tuple[list[Any], np.ndarray]:
    """Return (moments by degree, on the device; norm moments, on the host) of checked arrays."""
    (m, d), columns = K.shape, W.shape[1]
    width, blocks = padded(columns), block_sizes(d, degree)
    tile, numbers = lengths.tile_for(m, d, degree), step_numbers(K.dtype)
    tables = [Factors(factors(d, k)) for k in range(1, degree + 1)]
    totals = [cupy.zeros((r, width)) for r in blocks]
    each = min(max(blocks), KEY_FEATURES) * (tile + width) + tile * (d + width)
    share = tile * max(1, min(numbers // each, MOST_ROWS))
    for start in range(0, m, share):
        rows = slice(start, start + share)
        x, w = tokens_last(K[rows], tile), tokens_first(W[rows], tile, width)
        # Degree 0 in float64: at most 31 roundings for each factor 32 of keys, and one a step,
        # fewer than the T + tiles that are counted.
        add_up(w.reshape(-1, width), totals[0][0])
        for table, total in zip(tables, totals[1:], strict=True):
            add_moments(x, w, table, total, numbers)
    return [cupy.ascontiguousarray(t[:, :columns]) for t in totals], _norm_moments(K, W, degree)


def add_moments(x: Any, w: Any, table: Factors, total: Any, numbers: int) -> None:
    """Add the moments of some monomials of x (b, d, tile), w (b, tile, width) to `total`."""
    batch, tile, width = w.shape
    most = max(1, min(numbers // (batch * (tile + width)), MOST_ROWS, len(table)))
    for first in range(0, len(table), most):
        rows = min(most, len(table) - first)
        features = table.tile(x, first, rows)
        out = cupy.empty((batch, rows, width), w.dtype)
        add_up(products(features, w, out), total[first : first + rows])


def _norm_moments(K: Any, W: Any, degree: int) -> np.ndarray:
    """Return sum_j w_j |k_j|^k for k = 0..degree, rounded up, w the last column of W."""
    m, d = K.shape
    if m == 0:
        return np.zeros(degree + 1)
    norms, _ = device_measures(K, 1.0, 0.0)
    out = cupy.empty((degree + 1, NORM_BLOCKS * THREADS))
    arguments = (norms, W[:, -1], W.strides[0] // W.itemsize, m, out)
    launch("power_sums", (W,), (NORM_BLOCKS, degree + 1), arguments)
    sums = out.get().sum(axis=1)
    # Roundings are fewer than m + k: the sum in any order, and the powers of rounded-up norms.
    factor = 1.0 + (m + np.arange(degree + 1) + 16) * 2.0**-52
    return np.where(sums > 0.0, np.nextafter(sums * factor, np.inf), sums)


def contract(Q: Any, moments: Any, coefficients: np.ndarray) -> tuple[Any, Any]:
    """Return (numerator (n, d_v), last column by degree (n, g + 1)), float64, on the device."""
    n, degree = Q.shape[0], len(coefficients) - 1
    columns = moments[0].shape[1]
    numerator, by_degree = cupy.empty((n, columns - 1)), cupy.empty((n, degree + 1))
    numerator[...] = moments[0][0, :-1] * float(coefficients[0])
    by_degree[:, 0] = moments[0][0, -1]
    for k in range(1, degree + 1):
        c, monomials = cupy.asarray(multinomials(Q.shape[1], k)), Factors(factors(Q.shape[1], k))
        for rows, total in row_sums(Q, table_of(moments[k], c, Q.dtype), monomials):
            by_degree[rows, k] = total[columns - 1]
            numerator[rows] += (total[: columns - 1] * float(coefficients[k])).T
    return numerator, by_degree


def row_sums(Q: Any, table: Any, monomials: Factors) -> Iterator[tuple[slice, Any]]:
    """Yield (rows, sums (padded columns, t), float64): `table` times the monomials of the rows."""
    (n, d), (chunks, width, rows), numbers = Q.shape, table.shape, step_numbers(Q.dtype)
    at_once = numbers // (max(1, min(n, QUERY_TOKENS)) * (rows + width))
    at_once = max(1, min(at_once, chunks, MOST_ROWS // rows))
    tokens = max(64, numbers // (at_once * (rows + width) + 2 * width + d) // 64 * 64)
    for start in range(0, n, tokens):
        part = Q[start : start + tokens]
        x = tokens_last(part, part.shape[0])
        total = cupy.zeros((width, part.shape[0]))
        for chunk in range(0, chunks, at_once):
            used = table[chunk : chunk + at_once]
            built = monomials.tile(x, chunk * rows, used.shape[0] * rows)
            out = cupy.empty((used.shape[0], width, part.shape[0]), Q.dtype)
            add_up(products(used, built.reshape(-1, rows, part.shape[0]), out), total)
        yield slice(start, start + tokens), total


def table_of(moments: Any, coefficients: Any, dtype: Any) -> Any:
    """Return the moments (r, columns) times coefficients (r,), (chunks, padded columns, monomials).

    In the compute dtype; chunks are of equal length, at most `sizes.FEATURE_CHUNK`, the last one
    filled up with zeros.
    """
    r, columns = moments.shape
    chunks = -(-r // lengths.FEATURE_CHUNK)
    rows = -(-r // chunks)
    table = cupy.zeros((chunks * rows, padded(columns)), dtype)
    table[:r, :columns] = rounded(moments * coefficients[:, None], dtype)
    return cupy.ascontiguousarray(table.reshape(chunks, rows, -1).swapaxes(1, 2))
