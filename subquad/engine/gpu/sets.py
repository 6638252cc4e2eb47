"""The two passes of `cpu.sets` on CuPy: same tiles, chunks and lengths, so same bounds.

The monomials are built from their factors, in the order of the CPU's parents; see
`subquad.engine.gpu.passes` for the rest.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from subquad.engine.gpu.passes import KEY_FEATURES, add_moments, row_sums, table_of
from subquad.engine.gpu.tiles import MOST_ROWS, Factors, step_numbers, tokens_first, tokens_last
from subquad.engine.lengths import padded, set_tile_for
from subquad.features.anisotropic import MonomialSet


def accumulate_set(Y: Any, W: Any, kept: MonomialSet) -> Any:
    """Return sum_j y_j^s w_j^T, (r, columns) float64, of Y (m, d) and W (m, columns)."""
    (m, d), columns, numbers = Y.shape, W.shape[1], step_numbers(Y.dtype)
    tile = set_tile_for(m, kept.r)
    width, table = padded(columns), Factors(set_factors(kept))
    total = cupy.zeros((kept.r, width))
    each = min(kept.r, KEY_FEATURES) * (tile + width) + tile * (d + width)
    share = tile * max(1, min(numbers // each, MOST_ROWS))
    for start in range(0, m, share):
        rows = slice(start, start + share)
        x, w = tokens_last(Y[rows], tile), tokens_first(W[rows], tile, width)
        add_moments(x, w, table, total, numbers)
    return cupy.ascontiguousarray(total[:, :columns])


def contract_set(X: Any, moments: Any, kept: MonomialSet) -> Any:
    """Return sum_s x_i^s moments_s / alpha_s!, (n, columns) float64, of X (n, d)."""
    out = cupy.empty((X.shape[0], moments.shape[1]))
    table = table_of(moments, cupy.asarray(kept.coefficients()), X.dtype)
    for rows, total in row_sums(X, table, Factors(set_factors(kept))):
        out[rows] = total[: moments.shape[1]].T
    return out


def set_factors(kept: MonomialSet) -> np.ndarray:
    """Return the variables of each monomial, (r, degree) int16: the last one multiplied first.

    -1 stands before the factors of those of lower degree.
    """
    table = np.full((kept.r, max(kept.degree, 1)), -1, dtype=np.int16)
    for start, stop, variable in kept.runs:
        table[start:stop] = table[kept.parents[start:stop]]
        free = table.shape[1] - 1 - np.count_nonzero(table[start] >= 0)  # one degree a run
        table[start:stop, free] = variable
    return table
