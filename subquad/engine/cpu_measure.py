"""The passes of `subquad.engine.prepare` that measure rows and columns, on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from subquad.engine.cpu_blocks import block_rows, entering, over_blocks
from subquad.engine.threads import ENTRY_WORK, parallel_map

FOLD = 8
"""Rows side by side over which extremes are taken first: longer runs are faster."""
SUMMED = 1024
"""Rows summed in float32 before the sum goes into float64."""


def row_measures(x, pre, centre) -> tuple[Any, Any]:
    """Return (norms, largest absolute entries) of the rows of x * pre - centre, rounded up."""
    n, d = x.shape
    norms, entries = np.empty(n), np.empty(n)
    outward = 1.0 + (d + 8) * 2.0**-53
    enter = entering(pre, centre, 1.0)

    def block(y: np.ndarray, rows: slice) -> None:
        enter(x[rows], y)
        norm = np.sqrt(np.einsum("ij,ij->i", y, y)) * outward
        np.abs(y, out=y)
        entries[rows] = y.max(axis=1) * outward
        # Squares below 2**-1022 vanish, so the norm of what is left may be short by 2**-500; but
        # a row of zeros has norm 0.
        most = entries[rows] * (np.sqrt(d) * outward)
        norms[rows] = np.minimum(norm + 2.0**-500, most)

    over_blocks(block, x.shape)
    return norms, entries


def survey(x, pre, centre) -> tuple[Any, Any, float]:
    """Return (norms, mean, how far off the mean may be) of the rows of x * pre - centre.

    In one pass of float32 where x is float32 and the numbers are far from the ends of its range;
    the norms are float32 numbers then, else float64. Rounded up: with u = 2^-24 each computed
    entry is within u of the true one, the sum of d squares within gamma_d and 2^-28 (underflow),
    and three roundings follow: short by less than (d + 8) u, which is made good.
    """
    single = x.dtype == np.float32 and 2.0**-40 <= pre <= 2.0**40 and x.shape[1] <= 2**16
    offset = np.asarray(centre / pre, dtype=np.float32 if single else np.float64)
    if not single or not np.array_equal(offset.astype(np.float64) * pre, centre):
        norms = row_measures(x, pre, centre)[0]
        slack = 2.0**-30 * (float(norms.max()) + float(np.linalg.norm(centre)))
        return norms, weighted_mean(x, pre) - centre, slack
    n, d = x.shape
    squares, each, moves = np.empty(n, np.float32), block_rows(d), bool(offset.any())
    sums, ones = np.zeros((-(-n // each), d)), np.ones(SUMMED, np.float32)

    def block(y: np.ndarray, rows: slice) -> None:
        y = np.subtract(x[rows], offset, out=y) if moves else x[rows]
        np.einsum("ij,ij->i", y, y, out=squares[rows])
        for start in range(0, len(y), SUMMED):
            some = y[start : start + SUMMED]
            sums[rows.start // each] += ones[: len(some)] @ some

    over_blocks(block, x.shape, np.float32)
    norms = np.sqrt(squares) * np.float32(pre * (1.0 + (d + 8) * 2.0**-24))
    unsure = np.flatnonzero(~((squares >= d * 2.0**-96) & (squares < np.inf)))
    if unsure.size:
        exact = row_measures(x[unsure], pre, centre)[0]
        with np.errstate(over="ignore"):
            near = exact.astype(np.float32)
        norms[unsure] = np.where(near < exact, np.nextafter(near, np.float32(np.inf)), near)
    # A sum of 1024 numbers is within 2^-14 of the sum of their magnitudes.
    return norms, sums.sum(axis=0) * (pre / n), 2.0**-13 * float(norms.max())


def row_dots(x, pre, centre, vector) -> Any:
    """Return (x * pre - centre) @ vector, shape (n,), float64."""
    out = np.empty(x.shape[0])
    enter = entering(pre, centre, 1.0)

    def block(y: np.ndarray, rows: slice) -> None:
        enter(x[rows], y)
        np.dot(y, vector, out=out[rows])

    over_blocks(block, x.shape)
    return out


def column_range(x) -> tuple[Any, Any]:
    """Return (smallest, largest) entry of each column, NaN where a column has one."""
    columns = x.shape[-1]
    if x.flags.c_contiguous:
        x = x.reshape(-1, columns)
    rows = block_rows(columns) if x.ndim == 2 else 1
    ends = parallel_map(
        lambda start: _extremes(x[start : start + rows]), range(0, x.shape[0], rows),
        ENTRY_WORK * x.size,
    )
    low, high = (np.array([end[i] for end in ends], dtype=np.float64) for i in range(2))
    return low.min(axis=0), high.max(axis=0)


def _extremes(block) -> tuple[Any, Any]:
    """Return (smallest, largest) entry of each column of a block (..., rows, columns)."""
    columns = block.shape[-1]
    if block.flags.c_contiguous and block.size % (FOLD * columns) == 0:
        wide = block.reshape(-1, FOLD * columns)
        low, high = (end.reshape(FOLD, columns) for end in (wide.min(axis=0), wide.max(axis=0)))
        return low.min(axis=0), high.max(axis=0)
    axes = tuple(range(block.ndim - 1))
    return block.min(axis=axes), block.max(axis=axes)


def weighted_mean(x, pre, weights=None) -> Any:
    """Return the mean of the rows of x * pre, shape (columns,), float64."""
    n, columns = x.shape
    each = block_rows(columns)
    sums = np.zeros((-(-n // each), columns))
    enter, ones = entering(pre, 0.0, 1.0), np.ones(min(each, n))

    def block(y: np.ndarray, rows: slice) -> None:
        enter(x[rows], y)
        sums[rows.start // each] = (ones[: len(y)] if weights is None else weights[rows]) @ y

    over_blocks(block, x.shape)
    return sums.sum(axis=0) / (n if weights is None else weights.sum())


def rotated_reach(x, pre, centre, post, basis) -> Any:
    """Return the largest |entry| of each column of `rotated`, as computed in float64."""
    enter, found = entering(pre, centre, post), list[np.ndarray]()

    def block(y: np.ndarray, rows: slice) -> None:
        enter(x[rows], y)
        found.extend(map(np.abs, _extremes(y @ basis)))

    over_blocks(block, x.shape)
    return np.max(found, axis=0)
