"""The passes of `subquad.engine.rows` on CuPy: entry by entry bit for bit the CPU's numbers.

The kernels are compiled without fused multiply-adds, and round float64 once to what is stored.
Sums (norms, dot products, means, changes of basis) are taken in another order than on the CPU, a
fixed one; the bounds hold for any.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from subquad.arrays.formats import U64
from subquad.engine.gpu.blas import product
from subquad.engine.gpu.kernels import THREADS, blocks_for, launch
from subquad.engine.gpu.measures import centred_norms, column_ranges, stacked_rows

__all__ = [
    "affine",
    "column_range",
    "column_ranges",
    "device_measures",
    "restored_values",
    "rotated",
    "rotated_reach",
    "rounded",
    "row_dots",
    "row_measures",
    "stacked_rows",
    "centred_norms",
    "take_rows",
    "weighted_mean",
    "weighted_values",
]

ROTATED_ROWS = 1 << 16
"""Rows whose float64 copy is held at once by the changes of basis."""
SHARES = 512
"""Most blocks that a pass over the columns is divided into."""


def affine(x, in_scale, centre, out_scale, dtype: str) -> Any:
    """Return (x * in_scale - centre) * out_scale rounded once to `dtype`."""
    n, d = x.shape
    out = cupy.empty((n, d), dtype)
    units = _units(d, in_scale, centre, out_scale)
    launch("affine", (x, out), blocks_for(n * d), (*_strided(x), units, out))
    return out


def rounded(x, dtype: str) -> Any:
    """Return x (n, columns) float64 rounded once; CuPy's own cast loses subnormal numbers."""
    return affine(x, 1.0, 0.0, 1.0, dtype)


def row_measures(x, in_scale, centre) -> tuple[np.ndarray, np.ndarray]:
    """Return (norms, largest absolute entries) of the rows of x * in_scale - centre, rounded up."""
    norms, entries = device_measures(x, in_scale, centre)
    return norms.get(), entries.get()


def device_measures(x, in_scale, centre) -> tuple[Any, Any]:
    """Return what `row_measures` does, on the device."""
    n, d = x.shape
    norms, entries = cupy.empty(n), cupy.empty(n)
    outward = 1.0 + (d + 8) * U64
    arguments = (
        *_strided(x),
        _units(d, in_scale, centre),
        outward,
        float(np.sqrt(d)),
        norms,
        entries,
    )
    launch("measures", (x,), blocks_for(32 * n), arguments)
    return norms, entries


def row_dots(x, in_scale, centre, vector) -> Any:
    """Return (x * in_scale - centre) @ vector, shape (n,), float64."""
    n, d = x.shape
    out = cupy.empty(n)
    arguments = (*_strided(x), _units(d, in_scale, centre, vector), out)
    launch("dots", (x,), blocks_for(32 * n), arguments)
    return out


def column_range(x) -> tuple[np.ndarray, np.ndarray]:
    """Return (smallest, largest) entry of each column, NaN where a column has one."""
    if x.flags.c_contiguous:
        x = x.reshape(-1, x.shape[-1])
    ends = np.concatenate([_ends(x[index]) for index in np.ndindex(x.shape[:-2])])
    return ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)


def _ends(x) -> np.ndarray:
    """Return (shares, 2, columns): the smallest and largest entries of shares of the rows."""
    n, d = x.shape
    blocks, share, lanes = _shares(n, d)
    out = cupy.empty((blocks * lanes, 2, d))
    launch("extremes", (x,), blocks, (*_strided(x), share, lanes, out))
    return out.get()


def weighted_mean(x, in_scale, weights=None) -> np.ndarray:
    """Return the mean of the rows of x * in_scale, shape (columns,), float64."""
    n, d = x.shape
    blocks, share, lanes = _shares(n, d)
    out = cupy.empty((blocks * lanes, d))
    used = 0 if weights is None else weights
    arguments = (*_strided(x), float(in_scale), used, share, lanes, out)
    launch("column_sums", (x,), blocks, arguments)
    return out.get().sum(axis=0) / (n if weights is None else weights.get().sum())


def take_rows(x, in_scale, rows) -> np.ndarray:
    """Return x[rows] * in_scale on the host, float64."""
    return cupy.take(x, cupy.asarray(rows), axis=0).get().astype(np.float64) * in_scale


def weighted_values(v, in_scale, centre, out_scale, weights, dtype: str) -> Any:
    """Return [x, 1] * weights with x = (v * in_scale - centre) * out_scale in [-1, 1]."""
    m, d_v = v.shape
    out = cupy.empty((m, d_v + 1), dtype)
    used = 0 if weights is None else weights
    arguments = (*_strided(v), _units(d_v, in_scale, centre, out_scale), used, out)
    launch("weighted", (v, out), blocks_for(out.size), arguments)
    return out


def restored_values(x, in_scale, centre, radius, low, high, dtype: str, divisor=None) -> Any:
    """Return (centre + radius * x / divisor) / in_scale within [low, high], rounded to `dtype`."""
    n, d_v = x.shape
    if divisor is not None:
        x = x / divisor[:, None]
    out = cupy.empty((n, d_v), dtype)
    units = _units(d_v, in_scale, centre, radius, low, high)
    arguments = (cupy.ascontiguousarray(x), n, d_v, units, out)
    launch("restored", (out,), blocks_for(out.size), arguments)
    return out


def rotated(x, in_scale, centre, out_scale, basis, dtype: str) -> Any:
    """Return ((x * in_scale - centre) * out_scale) @ basis: float64, rounded once to `dtype`."""
    out, basis = cupy.empty(x.shape, dtype), cupy.asarray(basis)
    for start in range(0, x.shape[0], ROTATED_ROWS):
        rows = affine(x[start : start + ROTATED_ROWS], in_scale, centre, out_scale, "float64")
        out[start : start + ROTATED_ROWS] = rounded(product(rows, basis), dtype)
    return out


def rotated_reach(x, in_scale, centre, out_scale, basis) -> np.ndarray:
    """Return the largest |entry| of each column of `rotated`, as computed in float64."""
    basis, found = cupy.asarray(basis), []
    for start in range(0, x.shape[0], ROTATED_ROWS):
        rows = affine(x[start : start + ROTATED_ROWS], in_scale, centre, out_scale, "float64")
        found += [np.abs(end) for end in column_range(product(rows, basis))]
    return np.max(found, axis=0)


def _units(columns: int, *parts) -> Any:
    """Return floats or arrays (columns,) as one array (parts, columns) on the device."""
    host = np.array([np.broadcast_to(part, columns) for part in parts], dtype=np.float64)
    return cupy.asarray(host)


def _strided(x) -> tuple[Any, ...]:
    """Return what a kernel needs to read rows of any strides: array, sizes, strides."""
    return (x, *x.shape, *(stride // x.itemsize for stride in x.strides))


def _shares(n: int, columns: int) -> tuple[int, int, int]:
    """Return (blocks, rows of a block, lanes): functions of the sizes alone."""
    blocks = max(1, min(SHARES, -(-n // 256)))
    return blocks, -(-n // blocks), max(1, THREADS // columns)
