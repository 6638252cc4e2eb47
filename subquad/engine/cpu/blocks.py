"""Blocks of rows dealt to threads, and how rows enter them. NumPy.

In `over_blocks` each thread computes in a block of its own, which stays in cache and is allocated
once: a fresh one for every block would cost more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from subquad.engine import lengths
from subquad.engine.threads import ENTRY_WORK, for_each, parallel_map

BLOCK_ENTRIES = 2**18
"""Entries of a block: 2 MiB in float64. In shorter ones two threads wait for the interpreter."""


def over_blocks(
    block: Callable[[np.ndarray, slice], None], shape: tuple[int, int], dtype: Any = np.float64
) -> None:
    """Call block(y, rows) for every block of rows, y an array of its shape to compute in."""
    n, columns = shape
    rows = min(block_rows(columns), n)

    def one(y: np.ndarray, i: int) -> None:
        start, stop = i * rows, min(n, (i + 1) * rows)
        block(y[: stop - start], slice(start, stop))

    count, work = -(-n // rows) if n else 0, ENTRY_WORK * n * columns
    for_each(count, lambda: np.empty((rows, columns), dtype), one, work)


def block_rows(columns: int) -> int:
    """Return the rows of a block."""
    return max(1, BLOCK_ENTRIES // columns)


def over_rows(arrays, function: Callable[[int, slice], None]) -> None:
    """Call function(k, rows) for each block of rows of every arrays[k], on all threads."""
    step = lengths.STATE_ROWS
    parallel_map(
        lambda item: function(*item),
        [(k, slice(i, i + step)) for k, x in enumerate(arrays) for i in range(0, len(x), step)],
        ENTRY_WORK * sum(x.size for x in arrays),
    )


def affine_writer(in_scale, centre, out_scale) -> Callable[[Any, np.ndarray], None]:
    """Return what writes (x * in_scale - centre) * out_scale of a block x into a float64 block.

    Powers of two commute with rounding while nothing nears the ends of the range, so
    (x - centre / in_scale) * (in_scale * out_scale) is the same number; what does nothing is left
    out.
    """
    units = powers_of_two(in_scale)
    first = None if np.all(units == in_scale) else in_scale
    offset, factor = centre / units, units * out_scale
    moves, scales = bool(np.any(offset != 0.0)), bool(np.any(factor != 1.0))

    def enter(x: Any, y: np.ndarray) -> None:
        y[...] = x
        if first is not None:
            y *= first
        if moves:
            y -= offset
        if scales:
            y *= factor

    return enter


def powers_of_two(in_scale) -> np.ndarray:
    """Return `in_scale` where it is powers of two far from the ends of the range, else 1."""
    units = np.asarray(in_scale, dtype=np.float64)
    mantissa, exponent = np.frexp(units)
    safe = bool(np.all(mantissa == 0.5)) and bool(np.all(abs(exponent) < 200))
    return units if safe else np.ones(())


def norm_moments(K, W, degree: int) -> np.ndarray:
    """Return M_k = sum_j w_j |k_j|^k for k = 0..degree, at least the exact ones."""
    m, d = K.shape
    if m == 0:
        return np.zeros(degree + 1)
    norms = np.zeros((-(-m // lengths.STATE_ROWS), degree + 1))

    def block(_: int, rows: slice) -> None:
        _add_norms(K[rows], W[rows, -1], norms[rows.start // lengths.STATE_ROWS])

    over_rows([K], block)
    return _rounded_up(norms.sum(axis=0), m, d)


def _add_norms(K, weight, norms: np.ndarray) -> None:
    """Add sum_j w_j |k_j|^k of some keys to norms[k], in float64."""
    squares = np.einsum("ij,ij->i", K, K, dtype=np.float64)
    norm = np.sqrt(squares)
    faint = squares < 2.0**-960  # where a square may have underflowed
    if faint.any():
        norm[faint] = np.sqrt(K.shape[1]) * np.abs(K[faint]).max(axis=1)
    power, weight = np.ones(len(K)), weight.astype(np.float64)
    counted = (norm > 0) & (weight > 0)
    for k in range(len(norms)):
        # Never let a term underflow to 0: the moment is an upper bound.
        norms[k] += np.maximum(weight * power, 2.0**-1022, where=counted, out=weight * power).sum()
        power *= norm
        np.maximum(power, 2.0**-1022, where=counted, out=power)


def _rounded_up(norms: np.ndarray, m: int, d: int) -> np.ndarray:
    """Return sums that are at least the exact ones: roundings are fewer than m + k (d/2 + 4)."""
    k = np.arange(len(norms))
    factor = 1.0 + (m + k * (d / 2 + 4) + 8) * 2.0**-52
    return np.where(norms > 0, np.nextafter(norms * factor, np.inf), norms)
