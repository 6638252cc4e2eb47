"""Tiles and lengths of the passes over any set of r monomials, on every device.

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

import numpy as np

from subquad.engine import lengths
from subquad.engine.lengths import padded


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
        * (padded(columns) * (set_groups(lengths.GROUPS, r, columns) + 2) + threads * tile_size(r))
    )


def set_groups(tiles: int, r: int, columns: int) -> int:
    """Return the groups with accumulators of their own, as many as SET_BYTES hold."""
    fitting = lengths.SET_BYTES // (r * padded(columns) * 8)
    return max(1, min(tiles, lengths.GROUPS, fitting))
