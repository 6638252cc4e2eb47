"""The passes over stacks of `subquad.engine.rows` on CuPy: a launch or two for all heads.

A head is shared out by its sizes alone, so that it has the same bits in any stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from subquad.arrays.formats import U64
from subquad.engine.gpu.kernels import THREADS, blocks_for, launch

SHARES, SHARE_ROWS = 128, 256
"""Blocks that a pass over the columns of a head is divided into at most, and rows of one at
least."""


def centred_norms(
    xs: Sequence[Any], in_scales: Sequence[float], centres: Sequence[np.ndarray], means: bool = True
) -> list[tuple[np.ndarray, np.ndarray | None, float]]:
    """Return (norms, mean, error of the mean) of the rows of each x * in_scale - centre.

    The mean is None without `means`.
    """
    n, d = xs[0].shape
    about, scales = np.array(centres), np.array(in_scales)[:, None]
    units = np.stack([np.broadcast_to(scales, about.shape), about], axis=1)
    norms, outward = cupy.empty((len(xs), n)), 1.0 + (d + 8) * U64
    _launch(
        "stack_norms",
        xs,
        blocks_for(32 * n),
        n,
        (cupy.asarray(units), outward, float(np.sqrt(d)), norms),
    )
    found: Any = [None] * len(xs)
    if means:
        found = _shares("stack_sums", xs, d).sum(axis=1) * (scales / n) - about
    slacks = 2.0**-30 * np.linalg.norm(about, axis=1)
    return [
        (own, mean, 2.0**-30 * float(own.max()) + float(slack))
        for own, mean, slack in zip(norms.get(), found, slacks, strict=True)
    ]


def column_ranges(xs: Sequence[Any]) -> np.ndarray:
    """Return (heads, 2, columns): the smallest and largest entries of each array, NaN if one is."""
    d = xs[0].shape[1]
    ends = _shares("stack_ends", xs, 2 * d)
    return np.stack([ends[..., :d].min(axis=1), ends[..., d:].max(axis=1)], axis=1)


def stacked_rows(xs: Sequence[Any], rows: Any) -> np.ndarray:
    """Return rows of each array, (heads, count, columns), float32 or float64."""
    shared = isinstance(rows, slice)
    index = np.arange(xs[0].shape[0])[rows] if shared else np.ascontiguousarray(rows, np.int64)
    count, d = index.shape[-1], xs[0].shape[1]
    out = cupy.empty((len(xs), count, d), xs[0].dtype)
    _launch(
        "stack_rows",
        xs,
        blocks_for(count * d),
        count,
        (cupy.asarray(index), 0 if shared else count, out),
    )
    return out.get().astype(np.result_type(out.dtype, np.float32), copy=False)


def _shares(kernel: str, xs: Sequence[Any], size: int) -> np.ndarray:
    """Return (heads, shares, size): what a kernel finds of the columns in shares of the rows."""
    n, d = xs[0].shape
    blocks = max(1, min(SHARES, -(-n // SHARE_ROWS)))
    out = cupy.empty((len(xs), blocks, size))
    _launch(kernel, xs, blocks, n, (-(-n // blocks), max(1, THREADS // d), out))
    return out.get()


def _launch(kernel: str, xs: Sequence[Any], blocks: int, rows: int, arguments: tuple) -> None:
    """Run a kernel on `blocks` blocks a head."""
    places = np.array([(x.data.ptr, *(s // x.itemsize for s in x.strides)) for x in xs], np.int64)
    arguments = (cupy.asarray(places), rows, xs[0].shape[1], *arguments)
    launch(kernel, (xs[0],), (blocks, len(xs)), arguments)
