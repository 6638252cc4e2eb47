"""The two passes over any set of r monomials on NumPy: O((m + n) r d_v), r tile features a thread.

Their rounding: `lengths.set_length`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from subquad.engine import lengths
from subquad.engine.cpu.tiles import product
from subquad.engine.lengths import padded, set_groups, set_tile_for
from subquad.engine.threads import for_each
from subquad.features.anisotropic import MonomialSet

SHORT_RUN, STEP_ROWS = 64, 128
"""Rows up to which runs of one variable are built together; most rows built at once."""


def accumulate_set(Y, W, kept: MonomialSet) -> np.ndarray:
    """Return sum_j y_j^s w_j^T, (r, columns) float64, of keys Y (m, d) and weights W (m, columns).

    Tiles are dealt in order to groups, each with its own sums, and the groups are added in order:
    the result does not depend on the threads.
    """
    m, columns = W.shape
    tile = set_tile_for(m, kept.r)
    tiles = -(-m // tile)
    groups = set_groups(tiles, kept.r, columns)
    sums = np.zeros((groups, kept.r, padded(columns)))

    def setup():
        weights = np.zeros((tile, padded(columns)), W.dtype)
        out = np.empty((lengths.FEATURE_CHUNK, padded(columns)), W.dtype)
        return _SetTile(kept, tile, Y.dtype), weights, out

    def one_group(buffers, group: int) -> None:
        features, weights, out = buffers
        for t in range(tiles * group // groups, tiles * (group + 1) // groups):
            rows = slice(t * tile, min(m, (t + 1) * tile))
            weights[: rows.stop - rows.start, :columns] = W[rows]
            for start, stop, built in features.blocks(Y[rows]):
                product(built, weights[: rows.stop - rows.start], out[: stop - start])
                sums[group, start:stop] += out[: stop - start]

    for_each(groups, setup, one_group)
    total = np.zeros((kept.r, columns))
    for part in sums:
        total += part[:, :columns]
    return total


def contract_set(X, moments: np.ndarray, kept: MonomialSet) -> np.ndarray:
    """Return sum_s x_i^s moments_s / alpha_s!, (n, columns) float64, of queries X (n, d)."""
    n, columns = X.shape[0], moments.shape[1]
    tile = set_tile_for(n, kept.r)
    table = np.zeros((kept.r, padded(columns)), X.dtype)
    with np.errstate(all="ignore"):
        table[:, :columns] = moments * kept.coefficients()[:, None]
    out = np.zeros((n, columns))

    def setup():
        part = np.empty((tile, padded(columns)), X.dtype)
        return _SetTile(kept, tile, X.dtype), part, np.empty(part.shape)

    def one_tile(buffers, i: int) -> None:
        rows = slice(i * tile, min(n, (i + 1) * tile))
        part, total = (buffer[: rows.stop - rows.start] for buffer in buffers[1:])
        total[...] = 0.0
        for start, stop, built in buffers[0].blocks(X[rows]):
            product(built.T, table[start:stop], part)
            total += part
        out[rows] = total[:, :columns]

    for_each(-(-n // tile), setup, one_tile)
    return out


class _SetTile:
    """The monomials of at most `tile` tokens, feature-major, in buffers that a thread reuses."""

    def __init__(self, kept: MonomialSet, tile: int, dtype) -> None:
        self._kept, self._steps = kept, list(_steps(kept))
        d = int(kept.variables.max(initial=0)) + 1
        self._rows, self._factors = np.empty(kept.r * tile, dtype), np.empty((d, tile), dtype)
        self._gathered = np.empty(STEP_ROWS * tile, dtype)
        self._length = 0
        self._views: list[tuple[int, int, list[tuple]]] = []

    def blocks(self, tokens: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (start, stop, features (stop - start, t)) of t tokens (t, d), chunk by chunk.

        A chunk is used while it is still in cache; what is yielded stays until the next call.
        """
        if len(tokens) != self._length:
            self._view(len(tokens))
        np.copyto(self._x, tokens.T[: len(self._x)])
        self._out[0] = 1.0
        for start, stop, steps in self._views:
            for before, parents, block, factor, variables in steps:
                np.take(before, parents, axis=0, out=block, mode="clip")
                if variables is not None:
                    np.take(self._x, variables, axis=0, out=factor, mode="clip")
                np.multiply(block, factor, out=block)
            yield start, stop, self._out[start:stop]

    def _view(self, t: int) -> None:
        """Cut the buffers for t tokens; each slice beside another thread is a chance to wait."""
        kept, r = self._kept, self._kept.r
        self._length, self._out = t, self._rows[: r * t].reshape(r, t)
        self._x = self._factors.reshape(-1)[: len(self._factors) * t].reshape(-1, t)
        self._views = []
        for chunk in range(0, r, lengths.FEATURE_CHUNK):
            end, steps = min(r, chunk + lengths.FEATURE_CHUNK), []  # a step may reach beyond
            for start, stop, variable in self._steps:
                if chunk <= start < end:
                    gathered = self._gathered[: (stop - start) * t].reshape(-1, t)
                    alone = variable is not None
                    steps.append(
                        (
                            self._out[:start],
                            kept.parents[start:stop],
                            self._out[start:stop],
                            self._x[variable] if alone else gathered,
                            None if alone else kept.variables[start:stop],
                        )
                    )
            self._views.append((chunk, end, steps))


def _steps(kept: MonomialSet) -> Iterator[tuple[int, int, int | None]]:
    """Yield (start, stop, variable) of rows that are built at once; None: of several variables.

    Parents come before `start`, as those of one degree all do. Short runs of one variable go
    together: a gathered factor for each row costs less than a call for each run.
    """
    degrees = np.zeros(kept.r, dtype=np.int64)
    runs: list[tuple[int, int, int | None]] = []
    for start, stop, variable in kept.runs:
        degrees[start:stop] = degrees[kept.parents[start]] + 1
        last = runs[-1] if runs else (0, 0, None)
        if runs and stop - last[0] <= SHORT_RUN and degrees[last[0]] == degrees[start]:
            runs[-1] = last[0], stop, None
        else:
            runs.append((start, stop, variable))
    for start, stop, one in runs:
        while start < stop:
            end = min(stop, start + STEP_ROWS)
            yield start, end, one
            start = end
