"""The passes of `subquad.engine.rows` that measure rows and columns, on NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from subquad.arrays.formats import U64
from subquad.engine.cpu.blocks import block_rows, over_blocks
from subquad.engine.threads import ENTRY_WORK, for_each, parallel_map

FOLD = 8
"""Rows side by side over which extremes are taken first: longer runs are faster."""
TINY = 2.0**-470
"""Norms below it may be short by what underflowed."""
SUMMED = 1024
"""Rows summed in float32 before the sum goes into float64."""


def row_measures(x, in_scale, centre) -> tuple[Any, Any]:
    """Return (norms, largest absolute entries) of the rows of x * in_scale - centre, rounded up."""
    norms, entries = np.empty(x.shape[0]), np.empty(x.shape[0])
    up = _outward(x.shape[1])

    def write(y: np.ndarray, rows: slice) -> None:
        norms[rows] = _norms(y, up)
        entries[rows] = np.abs(y, out=y).max(axis=1) * up

    over_blocks(write, x, in_scale, centre, 1.0)
    return norms, entries


def _row_norms(x, in_scale, centre) -> Any:
    """Return the norms alone, at less than half the price where rows are short."""
    norms, up = np.empty(x.shape[0]), _outward(x.shape[1])

    def write(y: np.ndarray, rows: slice) -> None:
        norms[rows] = _norms(y, up)

    over_blocks(write, x, in_scale, centre, 1.0)
    return norms


def _norms(y: np.ndarray, up: float) -> np.ndarray:
    """Return the norms of the rows of y (n, d), rounded up; `up` is `_outward(d)`."""
    norms = np.sqrt(np.einsum("ij,ij->i", y, y)) * up
    # Squares below 2**-1022 vanish, so a norm may be short by 2**-500, which is nothing beside
    # TINY; a row of zeros has norm 0, and one whose squares overflow a finite one.
    unsure = np.flatnonzero(~((norms >= TINY) & (norms < np.inf)))
    if unsure.size:
        most = np.abs(y[unsure]).max(axis=1) * (np.sqrt(y.shape[1]) * up**2)
        norms[unsure] = np.minimum(norms[unsure] + 2.0**-500, most)
    return norms


def _outward(d: int) -> float:
    """Return a factor that makes up for the roundings of a norm of d numbers: < d/2 + 4."""
    return 1.0 + (d + 8) * U64


def centred_norms(xs, in_scales, centres, means=True) -> list[tuple[Any, Any, float]]:
    """Return (norms, mean, how far off the mean may be) of the rows of each x * in_scale - centre.

    The mean is None without `means`. In one pass of float32 where x is float32, in_scale is not
    extreme and centre / in_scale is a float32 vector; the norms are float32 numbers then, else
    float64.
    """
    single = xs[0].dtype == np.float32 and xs[0].shape[1] <= 2**16
    offsets = [
        np.asarray(centre / in_scale, dtype=np.float32 if single else np.float64)
        for in_scale, centre in zip(in_scales, centres, strict=True)
    ]
    able = [
        single
        and 2.0**-40 <= in_scale <= 2.0**40
        and np.array_equal(o.astype(np.float64) * in_scale, c)
        for o, in_scale, c in zip(offsets, in_scales, centres, strict=True)
    ]
    fast = [i for i, is_able in enumerate(able) if is_able]
    narrow, their_scales, their_offsets = (
        [part[i] for i in fast] for part in (xs, in_scales, offsets)
    )
    found = _in_float32(narrow, their_scales, their_offsets, means)
    answers = []
    for x, in_scale, centre, is_able in zip(xs, in_scales, centres, able, strict=True):
        if is_able:
            answers.append(next(found))
            continue
        norms = _row_norms(x, in_scale, centre)
        slack = 2.0**-30 * (float(norms.max()) + float(np.linalg.norm(centre)))
        answers.append((norms, weighted_mean(x, in_scale) - centre if means else None, slack))
    return answers


def _in_float32(xs, in_scales, offsets, means) -> Iterator[tuple[Any, Any, float]]:
    """Yield what `centred_norms` returns of each float32 x, from x - offset, times in_scale.

    Norms are rounded up: with u = 2^-24 each computed entry is within u of the true one, the sum
    of d squares within gamma_d and 2^-28 (underflow), and three roundings follow: short by less
    than (d + 8) u, which is made good.
    """
    if not xs:
        return
    (n, d), heads, each = xs[0].shape, len(xs), block_rows(xs[0].shape[1])
    blocks, together = -(-n // each), max(1, each // n)  # of a head; heads in a block
    squares, sums = np.empty((heads, n), np.float32), np.zeros((heads, blocks, d))
    moves, ones = [bool(offset.any()) for offset in offsets], np.ones((1, SUMMED), np.float32)

    def one(buffer: np.ndarray, i: int) -> None:
        first, start = i // blocks * together, i % blocks * each
        some, rows = range(first, min(heads, first + together)), slice(start, start + each)
        if blocks == 1 or moves[first]:
            y = buffer[: len(some), : len(xs[first][rows])]
            for out, head in zip(y, some, strict=True):
                np.subtract(xs[head][rows], offsets[head], out=out)
        else:
            y = xs[first][rows][None]
        np.einsum("hij,hij->hi", y, y, out=squares[first : some.stop, rows])
        for at in range(0, y.shape[1] if means else 0, SUMMED):
            part = y[:, at : at + SUMMED]
            sums[first : some.stop, i % blocks] += (ones[:, : part.shape[1]] @ part)[:, 0]

    shape, count = (together, min(each, n), d), -(-heads // together) * blocks
    for_each(count, lambda: np.empty(shape, np.float32), one, ENTRY_WORK * heads * n * d)
    up = np.array(in_scales)[:, None] * (1.0 + (d + 8) * 2.0**-24)
    every = np.sqrt(squares) * up.astype(np.float32)
    sure = ((squares >= d * 2.0**-96) & (squares < np.inf)).all(axis=1)
    mean = sums.sum(axis=1) * (np.array(in_scales)[:, None] / n) if means else [None] * heads
    for i, norms in enumerate(every):
        if not sure[i]:
            _exactly(norms, squares[i], xs[i], in_scales[i], offsets[i])
        # A sum of 1024 numbers is within 2^-14 of the sum of their magnitudes.
        yield norms, mean[i], 2.0**-13 * float(norms.max())


def _exactly(norms, squares, x, in_scale, offset) -> None:
    """Replace norms whose squares are near an end of the range of float32."""
    d = x.shape[1]
    unsure = np.flatnonzero(~((squares >= d * 2.0**-96) & (squares < np.inf)))
    exact = _row_norms(x[unsure], in_scale, offset.astype(np.float64) * in_scale)
    with np.errstate(over="ignore"):
        near = exact.astype(np.float32)
    norms[unsure] = np.where(near < exact, np.nextafter(near, np.float32(np.inf)), near)


def row_dots(x, in_scale, centre, vector) -> Any:
    """Return (x * in_scale - centre) @ vector, shape (n,), float64."""
    out = np.empty(x.shape[0])

    def write(y: np.ndarray, rows: slice) -> None:
        np.dot(y, vector, out=out[rows])

    over_blocks(write, x, in_scale, centre, 1.0)
    return out


def column_range(x) -> tuple[Any, Any]:
    """Return (smallest, largest) entry of each column, NaN where a column has one."""
    if x.flags.c_contiguous:
        x = x.reshape(-1, x.shape[-1])
    found = column_ranges([x[index] for index in np.ndindex(x.shape[:-2])])
    return found[:, 0].min(axis=0), found[:, 1].max(axis=0)


def column_ranges(xs) -> Any:
    """Return (heads, 2, columns): the smallest and largest entries of each array (n, columns)."""
    n, columns = xs[0].shape
    each = block_rows(columns)
    blocks = -(-n // each)
    found = parallel_map(
        lambda i: _extremes(xs[i // blocks][i % blocks * each :][:each]),
        range(len(xs) * blocks),
        ENTRY_WORK * len(xs) * n * columns,
    )
    ends = np.array(found, dtype=np.float64).reshape(len(xs), blocks, 2, columns)
    return np.stack([ends[:, :, 0].min(axis=1), ends[:, :, 1].max(axis=1)], axis=1)


def stacked_rows(xs, rows) -> Any:
    """Return rows of each array, (heads, count, columns), float32 or float64, in C order."""
    own = [rows] * len(xs) if isinstance(rows, slice) else rows
    shape = len(xs), len(xs[0][own[0]]), xs[0].shape[1]
    out = np.empty(shape, np.result_type(xs[0].dtype, np.float32))
    for some, x, index in zip(out, xs, own, strict=True):
        some[...] = x[index]
    return out


def _extremes(block) -> tuple[Any, Any]:
    """Return (smallest, largest) entry of each column of a block (..., rows, columns)."""
    columns = block.shape[-1]
    if block.flags.c_contiguous and block.size % (FOLD * columns) == 0:
        wide = block.reshape(-1, FOLD * columns)
        low, high = (end.reshape(FOLD, columns) for end in (wide.min(axis=0), wide.max(axis=0)))
        return low.min(axis=0), high.max(axis=0)
    axes = tuple(range(block.ndim - 1))
    return block.min(axis=axes), block.max(axis=axes)


def weighted_mean(x, in_scale, weights=None) -> Any:
    """Return the mean of the rows of x * in_scale, shape (columns,), float64."""
    n, columns = x.shape
    each = block_rows(columns)
    sums = np.zeros((-(-n // each), columns))
    ones = np.ones(min(each, n))

    def add(y: np.ndarray, rows: slice) -> None:
        sums[rows.start // each] = (ones[: len(y)] if weights is None else weights[rows]) @ y

    over_blocks(add, x, in_scale, 0.0, 1.0)
    return sums.sum(axis=0) / (n if weights is None else weights.sum())


def rotated_reach(x, in_scale, centre, out_scale, basis) -> Any:
    """Return the largest |entry| of each column of `rotated`, as computed in float64."""
    found = list[np.ndarray]()

    def look(y: np.ndarray, _: slice) -> None:
        found.extend(map(np.abs, _extremes(y @ basis)))

    over_blocks(look, x, in_scale, centre, out_scale)
    return np.max(found, axis=0)
