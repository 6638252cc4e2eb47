"""The passes over rows before the first product: centre, scale, measure. O(n d), blocks in cache.

Everything is computed in float64 on a block of rows and rounded once to the compute dtype, so
that no copy of the input in float64 is ever held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from subquad.engine.threads import parallel_map

ROW_BLOCK = 2048


def supported(x) -> bool:
    """Return whether the passes run on arrays of this library."""
    return array_api_compat.is_numpy_array(x)


def affine(x, pre, centre, post, dtype: str) -> Any:
    """Return (x * pre - centre) * post rounded once to `dtype`, shape (n, columns).

    `pre`, `centre` and `post` are floats or arrays (columns,), float64.
    """
    out = np.empty(x.shape, dtype=dtype)

    def block(start: int, stop: int) -> None:
        y = x[start:stop].astype(np.float64)
        y *= pre
        y -= centre
        y *= post
        out[start:stop] = y

    _over_blocks(block, x.shape[0])
    return out


def row_measures(x, pre, centre) -> tuple[Any, Any]:
    """Return (norms, largest absolute entries) of the rows of x * pre - centre, each (n,) float64.

    Rounded outwards: each is at least the true value.
    """
    n, d = x.shape
    norms, entries = np.empty(n), np.empty(n)
    outward = 1.0 + (d + 8) * 2.0**-53

    def block(start: int, stop: int) -> None:
        y = x[start:stop].astype(np.float64)
        y *= pre
        y -= centre
        norm = np.sqrt(np.einsum("ij,ij->i", y, y)) * outward
        np.abs(y, out=y)
        entries[start:stop] = y.max(axis=1) * outward
        # Squares below 2**-1022 vanish, so the norm of what is left may be short by 2**-500; but
        # a row of zeros has norm 0.
        most = entries[start:stop] * (np.sqrt(d) * outward)
        norms[start:stop] = np.minimum(norm + 2.0**-500, most)

    _over_blocks(block, n)
    return norms, entries


def row_dots(x, pre, centre, vector) -> Any:
    """Return (x * pre - centre) @ vector, shape (n,), float64."""
    out = np.empty(x.shape[0])

    def block(start: int, stop: int) -> None:
        out[start:stop] = (x[start:stop].astype(np.float64) * pre - centre) @ vector

    _over_blocks(block, x.shape[0])
    return out


def column_range(x) -> tuple[Any, Any]:
    """Return (smallest, largest) entry of each column of x (..., n, columns), float64.

    NaN where a column has one.
    """
    blocks = [x[start : start + ROW_BLOCK] for start in range(0, x.shape[0], ROW_BLOCK)]
    axes = tuple(range(x.ndim - 1))
    ends = parallel_map(lambda block: (block.min(axis=axes), block.max(axis=axes)), blocks)
    low, high = (np.array([end[i] for end in ends], dtype=np.float64) for i in range(2))
    return low.min(axis=0), high.max(axis=0)


def scatter_rows(rows: list[Any], parts: list[Any]) -> Any:
    """Return the array whose rows `rows[i]` are `parts[i]`; together they cover 0..n-1 once."""
    out = np.empty((sum(len(index) for index in rows), *parts[0].shape[1:]), parts[0].dtype)
    for index, part in zip(rows, parts, strict=True):
        out[index] = part
    return out


def take_rows(x, pre, rows) -> Any:
    """Return x[rows] * pre on the host, float64."""
    return x[rows].astype(np.float64) * pre


def weighted_mean(x, pre, weights=None) -> Any:
    """Return the mean of the rows of x * pre, shape (columns,), float64."""
    n = x.shape[0]
    sums = np.zeros((-(-n // ROW_BLOCK), x.shape[1]))

    def block(start: int, stop: int) -> None:
        y = x[start:stop].astype(np.float64) * pre
        w = np.ones(stop - start) if weights is None else weights[start:stop]
        sums[start // ROW_BLOCK] = w @ y

    _over_blocks(block, n)
    return sums.sum(axis=0) / (n if weights is None else weights.sum())


def _over_blocks(block: Callable[[int, int], None], n: int) -> None:
    starts = range(0, n, ROW_BLOCK)
    parallel_map(lambda start: block(start, min(n, start + ROW_BLOCK)), starts)


def weighted_values(v, pre, centre, post, weights, dtype: str) -> Any:
    """Return [x, 1] * weights with x = (v * pre - centre) * post in [-1, 1], shape (m, d_v + 1).

    Clipping to [-1, 1] only removes rounding: the exact values lie there. `weights` is an array
    (m,) float64 or None for ones.
    """
    m, d_v = v.shape
    out = np.empty((m, d_v + 1), dtype=dtype)

    def block(start: int, stop: int) -> None:
        y = v[start:stop].astype(np.float64)
        y *= pre
        y -= centre
        y *= post
        np.clip(y, -1.0, 1.0, out=y)
        w = 1.0 if weights is None else weights[start:stop, None]
        out[start:stop, :d_v] = y * w
        out[start:stop, d_v:] = w

    _over_blocks(block, m)
    return out


def restored_values(x, pre, centre, radius, low, high, dtype: str) -> Any:
    """Return (centre + radius * x) / pre within [low, high], rounded to `dtype`, shape (n, d_v).

    The exact output is a mean of values, so clipping to their range only removes error.
    """
    out = np.empty(x.shape, dtype=dtype)

    def block(start: int, stop: int) -> None:
        y = x[start:stop] * radius
        y += centre
        y /= pre
        out[start:stop] = np.clip(y, low, high, out=y)

    _over_blocks(block, x.shape[0])
    return out
