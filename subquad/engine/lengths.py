"""Tile and chunk sizes, functions of the problem's sizes alone, and the dot lengths they imply.

The lengths enter the rounding bound, so the engine reads them from here and nowhere else.
"""

from math import log

import numpy as np

from subquad.arrays.formats import FORMATS, U64
from subquad.features import block_sizes, feature_dimension

TILE_MIN, KEY_TILE, TILE_STEP = 64, 512, 64
"""Fewest and most tokens of a tile, and what they are a multiple of. More means fewer additions in
float64 and looser bounds."""

TILE_WORK = 2**20
"""Features of a tile, times its tokens, from which a thread of its own pays: a ms or so."""

SHARE_PAIRS = 2**18
"""Exact pairs from which a share of its own pays, as long as TILE_WORK."""

FEATURE_CHUNK = 512
"""Most features in one product, in either pass."""

TILE_BYTES = 32 * 2**20
"""What one thread may hold in features; gives way to TILE_MIN when the degree is absurd."""

TILES_AT_ONCE, CHUNK_ENTRIES = 4, 3 * 2**18
"""Tiles whose features are built together: at most so many, and so many entries of a chunk. Each
call that two threads make on a short tile is a chance to wait for the interpreter; past the second
number features fall out of cache."""

LN2 = log(2.0)

UNSHIFTED_LOGITS = 40.0
"""Up to this bound of the |logits| of a block of exact weights the row maxima are not needed."""

PAIR_WORK = 40
"""What exp of a logit and its maximum count, in operations of the products."""

EXACT_ROW_BLOCK, EXACT_KEY_BLOCK = 1024, 512
"""Rows and keys of one block of weights on the exact path, where there are enough of both."""

GROUPS = 16
"""Accumulators that the keys are dealt to, whatever the number of threads."""

GROUP_BYTES, SET_BYTES = 64 * 2**20, 256 * 2**20
"""What the accumulators of all groups may hold together (one always fits); the second of `sets`.
More of the first is slower to fill than it is to cut the top degree into pieces, as
`accumulator_layout` does; sets are not cut."""

STATE_ROWS = 4096
"""Rows of one step where whole States are added or converted, or keys measured."""

SMALL_PRODUCT = 10**6
"""Most multiply-adds of one matrix product: OpenBLAS copies its operands first above this."""


def product_rows(inner: int, columns: int) -> int | None:
    """Return the rows of one product (rows, inner) @ (inner, columns); None: all of them at once.

    10-40 % faster where SMALL_PRODUCT leaves at least 8 rows. Sums are not cut: no rounding.
    """
    most = SMALL_PRODUCT // max(inner * columns, 1)
    return most // 16 * 16 if most >= 16 else most // 4 * 4 if most >= 8 else None


def tile_size(d: int, degree: int) -> int:
    """Return the most tokens in a tile: the longest dot product of `accumulate`, called T.

    Parameters
    ----------
    d, degree : int
        The size depends on these alone: 512 unless the features of degree < `degree`, with the
        chunk of the top degree, would exceed 32 MiB in float64; then less, down to 64.
    """
    rows = feature_dimension(d, max(degree - 1, 0)) + FEATURE_CHUNK
    fitting = TILE_BYTES // (8 * rows) // TILE_STEP * TILE_STEP
    return max(min(fitting, KEY_TILE), min(TILE_MIN, KEY_TILE))


def tile_for(tokens: int, d: int, degree: int) -> int:
    """Return the tile used for `tokens` rows: shorter than T when few rows must feed many cores."""
    return min(tile_size(d, degree), short_tile(tokens, feature_dimension(d, degree)))


def short_tile(tokens: int, r: int) -> int:
    """Return the tile that makes 8 of `tokens` rows, or fewer that hold TILE_WORK features each."""
    share, least = -(-tokens // (8 * TILE_STEP)), -(-TILE_WORK // (r * TILE_STEP))
    return TILE_STEP * max(share, least, 2)


def tiles_at_once(tile: int, d: int, degree: int) -> int:
    """Return how many tiles of `tile` tokens are built together. Enters no rounding bound."""
    blocks = block_sizes(d, degree)
    longest = max(-(-r // -(-r // FEATURE_CHUNK)) for r in blocks)  # chunks are near-equal
    rows = feature_dimension(d, max(degree - 1, 0)) + FEATURE_CHUNK
    most = min(CHUNK_ENTRIES // (longest * tile), TILE_BYTES // (8 * rows * tile))
    return max(1, min(TILES_AT_ONCE, most))


def query_tile(tokens: int, d: int, degree: int) -> int:
    """Return the tokens of a tile of `contract`, whose products are over features: any length."""
    tile = tile_for(tokens, d, degree)
    share = -(-tokens // (8 * tile)) * tile  # few rows must feed many cores
    return min(tile * tiles_at_once(tile, d, degree), max(share, tile))


def tile_count(tokens: int, d: int, degree: int) -> int:
    """Return the number of tiles of `accumulate`: its float64 additions are fewer than this.

    For a sum of States the sum of their tile counts has the same property.
    """
    return -(-tokens // tile_for(tokens, d, degree))


def contraction_length(k: int, *, d: int, degree: int, tiles: int, dtype: str) -> float:
    """Return L_k: degree k of a row is within gamma_{L_k} |q|^k M_k of its exact value.

    gamma_L = L u / (1 - L u) with u the unit roundoff of `dtype`; roundings in float64 count in
    that unit. See the accounting in `cpu.passes`, whose every line is a summand here.

    Parameters
    ----------
    k, degree : int
        The degree in question, and that of the State (it sets the tile).
    tiles : int
        `tile_count` of the keys, summed over the States that were added.
    dtype : {"float32", "float64"}
        The compute dtype.
    """
    in_unit, tile = U64 / FORMATS[dtype].u, tile_size(d, degree)
    if k == 0:
        return (tile + tiles + degree + 1) * in_unit
    r = block_sizes(d, k)[k]
    single = tile + min(r, FEATURE_CHUNK) + 2 * k - 1
    return single + (tiles + -(-r // FEATURE_CHUNK) + degree + 3) * in_unit


def accumulator_layout(tiles: int, d: int, degree: int, columns: int) -> tuple[int, int]:
    """Return (groups, pieces): accumulators that tiles go to, and shares of the top degree.

    Their product is the parallelism of `accumulate`. Pieces are more than 1 only where GROUP_BYTES
    allows fewer groups than there could be, because each piece builds the lower degrees anew.
    """
    wanted = min(tiles, GROUPS)
    bytes_each = feature_dimension(d, degree) * columns * 8
    groups = min(wanted, max(1, GROUP_BYTES // bytes_each))
    chunks = -(-block_sizes(d, degree)[degree] // FEATURE_CHUNK)
    pieces = min(GROUPS // max(groups, 1), chunks)
    return groups, pieces if groups < wanted else 1


def exact_shares(rows: int, keys: int) -> tuple[int, int]:
    """Return (rows of a block, groups of keys): about GROUPS shares or more, if there is the work.

    A block of weights has about EXACT_ROW_BLOCK * EXACT_KEY_BLOCK entries: more rows to few keys.
    """
    wanted = min(GROUPS, -(-rows * keys // SHARE_PAIRS))
    most = EXACT_ROW_BLOCK * max(1, EXACT_KEY_BLOCK // max(keys, 1))
    blocks = max(1, -(-rows // most))
    groups = min(-(-wanted // blocks), max(1, -(-keys // EXACT_KEY_BLOCK)))
    if groups * blocks < wanted:  # too few keys: fewer rows to a block
        blocks = min(wanted // groups, max(blocks, rows // 16))
    return max(1, -(-rows // max(blocks, 1))), max(groups, 1)


def padded(columns: int) -> int:
    """Return `columns` rounded up to a multiple of 8.

    An odd last column costs BLAS 7-14 %, and cuBLAS wants rows aligned to 16 bytes.
    """
    return -(-columns // 8) * 8


def exact_work(queries: int, keys: int, d: int, columns: int) -> float:
    """Return the operations of `exact_block`, in the unit of `THREAD_WORK`."""
    return float(queries) * keys * (2 * d + 2 * columns + PAIR_WORK)


# The passes over any set of r monomials.


def set_tile(r: int) -> int:
    """Return the most tokens in a tile, called T: 512, fewer where r features of them are large."""
    fitting = TILE_BYTES // (8 * r) // TILE_STEP * TILE_STEP
    return max(TILE_MIN, min(fitting, KEY_TILE))


def set_tile_for(tokens: int, r: int) -> int:
    """Return the tile used for `tokens` rows: shorter where few rows must feed many cores."""
    return min(set_tile(r), short_tile(tokens, r))


def set_length(keys: int, r: int, degree: int, dtype: str) -> float:
    """Return L: a row is within gamma_L of its sum of absolute values; in units of u of `dtype`.

    Rounding. u is the unit roundoff of the compute dtype, u64 = 2^-53, g the degree of the set.
    Every number of the result is a sum over (monomial s, key j) of c_s x^s y_j^s w_j,
    c_s = 1 / alpha!, and each summand passes through

    * g - 1 roundings in u: the monomial of the key; as many for that of the query;
    * T in u: product and sum over the keys of a tile, T = `set_tile`;
    * fewer than tiles = ceil(m / TILE_MIN) + 8 in u64: sums over tiles, then over groups, in order;
    * g in u64: c_s by divisions, and its product with the moment; 1 in u: that, stored;
    * min(r, C) in u: product and sum over a chunk of monomials, C = FEATURE_CHUNK;
    * chunks = ceil(r / C) in u64: sums over these.

    With one of each to spare, L = T + min(r, C) + 2g in u, plus tiles + chunks + g + 1 in u64, and
    the result is off by at most
    gamma_L sum_s c_s |x^s| sum_j w_j |y_j^s| <= gamma_L exp(sum_i |x_i| max_j |y_ji|) sum_j w_j.

    A product that underflows loses at most eta, the smallest subnormal number, and is carried
    through the rest: with |x_i| and |y_i| at most top >= 1 and weights at most 1, less than
    eta top^(2g) m (2g + 4) for each monomial (`set_underflow`).
    """
    in_unit = U64 / FORMATS[dtype].u
    chunks, tiles = -(-r // FEATURE_CHUNK), -(-keys // TILE_MIN) + 8
    single = set_tile(r) + min(r, FEATURE_CHUNK) + 2 * degree
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
        8.0 * r * (padded(columns) * (set_groups(GROUPS, r, columns) + 2) + threads * set_tile(r))
    )


def set_groups(tiles: int, r: int, columns: int) -> int:
    """Return the groups with accumulators of their own, as many as SET_BYTES hold."""
    fitting = SET_BYTES // (r * padded(columns) * 8)
    return max(1, min(tiles, GROUPS, fitting))
