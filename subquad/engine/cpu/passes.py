"""The two passes on NumPy: O(m r d_v) and O(n r d_v), memory O(r d_v + tiles), r = C(d+g, g).

Large ones run compiled where numba is installed (`fast`): the same tiles and chunks, so all below
holds for them too; their columns are padded to whole registers.

Rounding, degree by degree. u is the unit roundoff of the compute dtype, u64 = 2^-53. Every
number of the result is a sum over (monomial alpha, key j) of
``c_k * multinomial * q^alpha * k_j^alpha * w_j``, and each summand passes through, for k >= 1,

* k - 1 roundings in u: the monomial of the key, a product of k stored numbers;
* T in u: product and sum over the keys of a tile, T = `sizes.tile_size` (any order, FMA or not);
* fewer than `sizes.tile_count` in u64: sums over tiles, then over groups of tiles, in order, and
  over States (+);
* 2 in u64: the multinomial as a float64 (exact below 2^53), its product with the moment;
* 1 in u: that product stored in the compute dtype;
* k - 1 in u: the monomial of the query;
* min(r_k, C) in u: product and sum over a chunk of monomials, C = `sizes.FEATURE_CHUNK`;
* ceil(r_k / C) in u64: sums over chunks;
* 1 in u64 for the coefficient, at most `degree` in u64 for the sum over degrees (numerator only).

So L_k = T + min(r_k, C) + 2k - 1 in u, plus tiles + chunks + degree + 3 in u64, and since
sum_alpha multinomial |q^alpha| |k^alpha| <= (|q| |k|)^k, degree k is off by at most
gamma_{L_k} |q|^k M_k, M_k = sum_j w_j |k_j|^k (`cpu_norms`); L_k is `sizes.contraction_length`.
Degree 0 is summed in float64: T + tiles + degree + 1 roundings in u64, none in u. The last column
is bounded alike.
Not counted: the rounding of the inputs to the compute dtype, which is done before.

Assumed: no overflow (it shows as inf or NaN), and no underflow. Each product that does underflow
loses at most eta, the smallest subnormal number; with X = max(1, |q|_inf), Y = max(1, |K|_inf)
that adds, to a row and |c_k|, at most 2 eta [ |q|_1^k ((k-1) Y^(k-1) sum_j w_j + m)
+ (k-1) X^(k-1) sum_j w_j |k_j|_1^k + r_k (X^k + 1) ].
"""

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np

from subquad.engine import lengths
from subquad.engine.cpu import fast
from subquad.engine.cpu.blocks import norm_moments, over_rows
from subquad.engine.cpu.tiles import FeatureTile, products
from subquad.engine.threads import for_each
from subquad.features import block_sizes, multinomials


def accumulate(K, W, degree: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return (moments by degree, norm moments) of checked keys (m, d) and weights (m, columns).

    Tiles are dealt in order to groups, each with its own accumulator, and the groups are added
    in order; where accumulators are so large that groups are few, the chunks of the top degree
    are dealt to pieces as well. The result does not depend on the threads.
    """
    (m, d), columns = K.shape, W.shape[1]
    blocks, compiled = block_sizes(d, degree), fast.passes(m, d, degree)
    width = compiled.width(columns, K.dtype) if compiled else columns
    tile, tiles = lengths.tile_for(m, d, degree), lengths.tile_count(m, d, degree)
    groups, pieces = lengths.accumulator_layout(tiles, d, degree, width)
    span = lengths.tiles_at_once(tile, d, degree)
    buffers_of = compiled.KeyTiles if compiled else _KeyTiles
    # One array: where memory comes in large pages, so does this.
    sums = np.zeros((groups, sum(blocks), width))

    def one_share(buffers, i: int) -> None:
        group, piece = divmod(i, pieces)
        last = tiles * (group + 1) // groups
        for t in range(tiles * group // groups, last, span):
            rows = slice(t * tile, min(m, (t + span) * tile, last * tile))
            buffers.add(K[rows], W[rows], sums[group], piece, pieces)

    work = 2.0 * m * sum(blocks) * columns * (fast.EARLIER if compiled else 1.0)
    for_each(
        groups * pieces, lambda: buffers_of(d, degree, tile, columns, K.dtype), one_share, work
    )
    total = _added(sums, columns)
    parts = [total[a:b] for a, b in itertools.pairwise(np.cumsum([0, *blocks]))]
    return parts, norm_moments(K, W, degree)


def _added(sums: np.ndarray, columns: int) -> np.ndarray:
    """Return the sum over the groups, in order, (r, columns)."""
    if len(sums) == 1 and sums.shape[2] == columns:
        return sums[0]
    total = np.zeros((sums.shape[1], columns))  # of its own: the groups' memory is given back

    def block(_: int, rows: slice) -> None:
        for part in sums:
            total[rows] += part[rows, :columns]

    over_rows([total], block)
    return total


class _KeyTiles:
    """What one thread holds for `accumulate`: features of some tiles, multiplied tile by tile."""

    def __init__(self, d: int, degree: int, tile: int, columns: int, dtype: np.dtype) -> None:
        span = lengths.tiles_at_once(tile, d, degree)
        self._features, self._tile = FeatureTile(d, degree, span * tile, dtype), tile
        self._weights = np.empty((0, columns), dtype)
        self._products = np.empty(span * lengths.FEATURE_CHUNK * columns, dtype)
        self._sum = np.empty((lengths.FEATURE_CHUNK, columns))

    def add(self, K, W, sums: np.ndarray, piece: int, pieces: int) -> None:
        """Add the moments of some tiles to `sums` (r, columns).

        Of the top degree those of every `pieces`-th chunk; piece 0 has those below.
        """
        self._weights = np.ascontiguousarray(W)  # BLAS takes no other
        self._features.load(K)
        blocks = self._features.block_sizes
        if piece == 0:
            self._add_weights(sums[0])
        start = 1
        for k, r in enumerate(blocks[1:], start=1):
            top = k == len(blocks) - 1
            if top or piece == 0:
                self._add(sums[start : start + r], k, *((piece, pieces) if top else (0, 1)))
            start += r

    def _runs(self) -> Iterator[tuple[slice, int]]:
        """Yield (tokens, tiles of equal length): the whole tiles, then what is left."""
        tokens, tile = len(self._weights), self._tile
        whole = tokens // tile
        if whole:
            yield slice(0, whole * tile), whole
        if whole * tile < tokens:
            yield slice(whole * tile, tokens), 1

    def _add_weights(self, total: np.ndarray) -> None:
        """Add the moments of degree 0 to `total`, in float64."""
        for tokens, tiles in self._runs():
            W = self._weights[tokens].reshape(tiles, -1, len(total))
            total += np.sum(np.sum(W, axis=1, dtype=np.float64), axis=0)

    def _add(self, total: np.ndarray, k: int, piece: int, pieces: int) -> None:
        """Add the degree-k moments of the tiles, every `pieces`-th chunk of them, to `total`."""
        columns = total.shape[1]
        for start, stop, features in self._features.blocks(k, piece, pieces):
            rows, sums = stop - start, total[start:stop]
            for tokens, tiles in self._runs():
                out = self._products[: tiles * rows * columns].reshape(tiles, rows, columns)
                left = features[:, tokens].reshape(rows, tiles, -1).transpose(1, 0, 2)
                products(left, self._weights[tokens].reshape(tiles, -1, columns), out)
                sums += (
                    out[0]
                    if tiles == 1
                    else np.add.reduce(out, axis=0, dtype=np.float64, out=self._sum[:rows])
                )


def contract(Q, moments, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (numerator (n, d_v), last column by degree (n, len(coefficients))), float64."""
    (n, d), columns, degree = Q.shape, moments[0].shape[1], len(coefficients) - 1
    compiled = fast.passes(n, d, degree)
    tile, moments = lengths.query_tile(n, d, degree), moments[: degree + 1]
    table = (
        np.zeros((sum(map(len, moments[1:])), columns), Q.dtype)
        if compiled is None
        else (
            compiled.aligned(
                (sum(map(len, moments[1:])), compiled.width(columns, Q.dtype)), Q.dtype
            )
        )
    )
    _fill(table, moments, d)
    numerator, by_degree = np.zeros((n, columns - 1)), np.zeros((n, degree + 1))

    def one_tile(buffers, i: int) -> None:
        rows = slice(i * tile, min(n, (i + 1) * tile))
        numerator[rows] += coefficients[0] * moments[0][0, :-1]
        by_degree[rows, 0] = moments[0][0, -1]
        if degree > 0:
            buffers.add(Q[rows], table, coefficients, numerator[rows], by_degree[rows])

    work = 2.0 * n * columns * sum(map(len, moments)) * (fast.EARLIER if compiled else 1.0)
    buffers_of = compiled.QueryTiles if compiled else partial(_QueryTiles, tile=tile)
    for_each(-(-n // tile), lambda: buffers_of(d, degree, columns, Q.dtype), one_tile, work)
    return numerator, by_degree


def _fill(table: np.ndarray, moments, d: int) -> None:
    """Write the moments of degrees >= 1 times their multinomials to `table`, one below another."""
    columns, starts = moments[0].shape[1], np.cumsum([0, *map(len, moments[1:])])
    parts = [table[a:b, :columns] for a, b in itertools.pairwise(starts)]

    def block(k: int, rows: slice) -> None:
        np.multiply(
            moments[k + 1][rows],
            multinomials(d, k + 1)[rows, None],
            out=parts[k][rows],
            casting="same_kind",
        )

    over_rows(parts, block)


class _QueryTiles:
    """What one thread holds for `contract`."""

    def __init__(self, d: int, degree: int, columns: int, dtype: np.dtype, tile: int) -> None:
        self._features = FeatureTile(d, degree, tile, dtype)
        self._product = np.empty((tile, columns), dtype)
        self._total = np.empty((tile, columns))

    def add(self, Q, table, coefficients, numerator, by_degree) -> None:
        """Add degrees >= 1 of some rows to `numerator`, write their normalisers to `by_degree`."""
        self._features.load(Q)
        start = 0
        for k, r in enumerate(self._features.block_sizes[1:], start=1):
            total = self._degree_sum(table[start : start + r], k)
            by_degree[:, k] = total[:, -1]
            total *= coefficients[k]
            numerator += total[:, :-1]
            start += r

    def _degree_sum(self, table: np.ndarray, k: int) -> np.ndarray:
        """Return the degree-k monomials of the tile, transposed, @ table: (t, columns), float64."""
        total = None
        for start, stop, features in self._features.blocks(k):
            out = self._product[: features.shape[1]]
            products(features.T[None], table[None, start:stop], out[None])
            if total is None:
                total = self._total[: len(out)]
                total[...] = out
            else:
                total += out
        assert total is not None  # a block has at least one monomial
        return total
