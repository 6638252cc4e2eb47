"""The two passes over any set of r monomials on NumPy: O((m + n) r d_v), r tile features a thread.

Rounding. u is the unit roundoff of the compute dtype, u64 = 2^-53, g the degree of the set. Every
number of the result is a sum over (monomial s, key j) of c_s x^s y_j^s w_j, c_s = 1 / alpha!, and
each summand passes through

* g - 1 roundings in u: the monomial of the key; as many for that of the query;
* T in u: product and sum over the keys of a tile, T = `tile_size`;
* fewer than tiles = ceil(m / TILE_MIN) + 8 in u64: sums over tiles, then over groups, in order;
* g in u64: c_s by divisions, and its product with the moment; 1 in u: that, stored;
* min(r, C) in u: product and sum over a chunk of monomials, C = `sizes.FEATURE_CHUNK`;
* chunks = ceil(r / C) in u64: sums over these.

With one of each to spare, L = T + min(r, C) + 2g in u, plus tiles + chunks + g + 1 in u64
(`set_length`), and the result is off by at most
gamma_L sum_s c_s |x^s| sum_j w_j |y_j^s| <= gamma_L exp(sum_i |x_i| max_j |y_ji|) sum_j w_j.

A product that underflows loses at most eta, the smallest subnormal number, and is carried through
the rest: with |x_i| and |y_i| at most top >= 1 and weights at most 1, less than
eta top^(2g) m (2g + 4) for each monomial (`set_underflow`).
"""

from __future__ import annotations

from collections.abc import Iterator

import array_api_compat
import numpy as np

from subquad.engine import lengths
from subquad.engine.cpu.tiles import product
from subquad.engine.lengths import padded
from subquad.engine.threads import for_each
from subquad.features.anisotropic import MonomialSet

SHORT_RUN, STEP_ROWS = 64, 128
"""Rows up to which runs of one variable are built together; most rows built at once."""


def tile_size(r: int) -> int:
    """Return the most tokens in a tile, called T: 512, fewer where r features of them are large."""
    fitting = lengths.TILE_BYTES // (8 * r) // lengths.TILE_STEP * lengths.TILE_STEP
    return max(lengths.TILE_MIN, min(fitting, lengths.KEY_TILE))


def tile_for(tokens: int, r: int) -> int:
    """Return the tile used for `tokens` rows: shorter where few rows must feed many cores."""
    return min(tile_size(r), lengths.short_tile(tokens, r))


def set_length(keys: int, r: int, degree: int, dtype: str) -> float:
    """Return L: a row is within gamma_L of its sum of absolute values; in units of u of `dtype`."""
    in_unit = 2.0**-53 / (2.0**-24 if dtype == "float32" else 2.0**-53)
    chunks, tiles = -(-r // lengths.FEATURE_CHUNK), -(-keys // lengths.TILE_MIN) + 8
    single = tile_size(r) + min(r, lengths.FEATURE_CHUNK) + 2 * degree
    return single + (tiles + chunks + degree + 1) * in_unit


def set_underflow(keys: int, r: int, degree: int, top: float, dtype: str) -> float:
    """Return what underflowing products may add to |numerator error| + |normaliser error|."""
    eta = 2.0**-149 if dtype == "float32" else 2.0**-1074
    with np.errstate(over="ignore"):
        reach = np.float64(max(top, 1.0)) ** (2 * degree)
    return float(4.0 * reach * eta * r * keys * (2 * degree + 4))


def set_bytes(r: int, columns: int, threads: int) -> float:
    """Return the memory of the two passes: accumulators, table, one tile of features a thread."""
    return (
        8.0
        * r
        * (padded(columns) * (_groups(lengths.GROUPS, r, columns) + 2) + threads * tile_size(r))
    )


def accumulate_set(Y, W, kept: MonomialSet) -> np.ndarray:
    """Return sum_j y_j^s w_j^T, (r, columns) float64, of keys Y (m, d) and weights W (m, columns).

    Tiles are dealt in order to groups, each with its own sums, and the groups are added in order:
    the result does not depend on the threads.
    """
    m, columns = W.shape
    tile = tile_for(m, kept.r)
    if array_api_compat.is_cupy_array(Y):
        from subquad.engine.gpu import sets as gpu_sets  # brings CuPy

        return gpu_sets.accumulate_set(Y, W, kept, tile)
    tiles = -(-m // tile)
    groups = _groups(tiles, kept.r, columns)
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
    if array_api_compat.is_cupy_array(X):
        from subquad.engine.gpu import sets as gpu_sets  # brings CuPy

        return gpu_sets.contract_set(X, moments, kept)
    n, columns = X.shape[0], moments.shape[1]
    tile = tile_for(n, kept.r)
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


def _groups(tiles: int, r: int, columns: int) -> int:
    fitting = lengths.SET_BYTES // (r * padded(columns) * 8)
    return max(1, min(tiles, lengths.GROUPS, fitting))


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
        short = stop - last[0] <= SHORT_RUN and degrees[last[0]] == degrees[start]
        if runs and short:
            runs[-1] = last[0], stop, None
        else:
            runs.append((start, stop, variable))
    for start, stop, one in runs:
        while start < stop:
            end = min(stop, start + STEP_ROWS)
            yield start, end, one
            start = end
