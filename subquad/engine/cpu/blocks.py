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
    use: Callable[[np.ndarray, slice], None], x: Any, in_scale: Any, centre: Any, out_scale: Any
) -> None:
    """Call use(y, rows) for every block of rows: y = (x[rows] * in_scale - centre) * out_scale.

    In float64, of which y is the thread's own to compute in. Powers of two commute with rounding
    while nothing nears the ends of the range, so (x - centre / in_scale) * (in_scale * out_scale)
    is the same number; what does nothing is left out.
    """
    n, columns = x.shape
    each = min(block_rows(columns), n)
    units = powers_of_two(in_scale)
    offset, factor = centre / units, units * out_scale
    scales = not np.all(units == in_scale), bool(np.any(factor != 1.0))
    moves = bool(np.any(offset != 0.0))

    def one(buffer: np.ndarray, i: int) -> None:
        rows = slice(i * each, min(n, (i + 1) * each))
        y = buffer[: rows.stop - rows.start]
        y[...] = x[rows]
        if scales[0]:
            y *= in_scale
        if moves:
            y -= offset
        if scales[1]:
            y *= factor
        use(y, rows)

    count, work = -(-n // each) if n else 0, ENTRY_WORK * n * columns
    for_each(count, lambda: np.empty((each, columns)), one, work)


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

    def add(_: int, rows: slice) -> None:
        squares = np.einsum("ij,ij->i", K[rows], K[rows], dtype=np.float64)
        norm, faint = np.sqrt(squares), squares < 2.0**-960  # where a square may have underflowed
        if faint.any():
            norm[faint] = np.sqrt(d) * np.abs(K[rows][faint]).max(axis=1)
        power, weight = np.ones(len(norm)), W[rows, -1].astype(np.float64)
        counted = (norm > 0) & (weight > 0)
        for k in range(degree + 1):
            # Never let a term underflow to 0: the moment is an upper bound.
            terms = np.maximum(weight * power, 2.0**-1022, where=counted, out=weight * power)
            norms[rows.start // lengths.STATE_ROWS, k] += terms.sum()
            power *= norm
            np.maximum(power, 2.0**-1022, where=counted, out=power)

    over_rows([K], add)
    total, k = norms.sum(axis=0), np.arange(degree + 1)
    # Roundings are fewer than m + k (d/2 + 4).
    raised = total * (1.0 + (m + k * (d / 2 + 4) + 8) * 2.0**-52)
    return np.where(total > 0, np.nextafter(raised, np.inf), total)
