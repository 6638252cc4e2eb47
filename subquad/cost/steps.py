"""Overhead of the passes on the CPU, all time but arithmetic: in Python, or waiting for a thread.

A step is one NumPy call on a tile: a microsecond or more, whatever the tile holds, and several
where it waits for the interpreter, which other threads want as well. Where features are few, steps
are most of the time. The first `THREAD_WORK` operations of a pass are done at the pace of one
thread, or cost as much by starting others. And where tokens are few, most of the time goes into
accumulators, one for each group of tiles: zeroed in fresh memory, added up, and made into tables.
All are counted from the sizes, like the tiles themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from subquad.engine import lengths
from subquad.engine.cpu import fast as cpu_fast
from subquad.engine.lengths import exact_work, padded
from subquad.engine.threads import THREAD_WORK
from subquad.features import block_sizes, feature_dimension

PASS_STEPS = 200.0
"""Steps of one pass whatever its size: checks, buffers, the BLAS set to one thread and back."""
LOAD_STEPS = 10.0
"""Steps of a load, the tokens whose features are built together: taken, transposed, views made."""
BUILD_STEPS, SUM_STEPS, PRODUCT_STEPS = 1.0, 3.0, 2.0
"""Steps of one multiplication of features; of a chunk of them in `accumulate`, one or two products
and their sum in float64; and in `contract`, a product and its sum."""
COMPILED_STEPS = 6.0
"""Steps of a load of compiled passes, which is one call."""
BLOCK_STEPS = 12.0
"""Steps of a block of exact weights: two products, exp, row maxima and what shifts them."""
GATHERED, ORDERED = 0.9, 0.3
"""Passes over the input more: where rows are taken from it and their sums put back in their places,
which misses the cache both times; and where rows are put in order before that."""


@dataclass(frozen=True)
class Overhead:
    """The cost of some passes that is not arithmetic.

    Attributes
    ----------
    steps : float
        NumPy calls, or what costs as much.
    alone, alone_pairs : float
        Operations of polynomials, and exact pairs, that one thread does while the others wait.
    filled : float
        Bytes of accumulators and tables, filled and read again.
    """

    steps: float = 0.0
    alone: float = 0.0
    alone_pairs: float = 0.0
    filled: float = 0.0

    def __add__(self, other: Overhead) -> Overhead:
        return Overhead(
            self.steps + other.steps,
            self.alone + other.alone,
            self.alone_pairs + other.alone_pairs,
            self.filled + other.filled,
        )


NONE = Overhead()


def more_passes(count: int) -> Overhead:
    """Return the Calls of so many passes more over the same rows, each large enough for threads."""
    steps = PASS_STEPS + lengths.GROUPS * LOAD_STEPS
    return Overhead(count * steps, float(count * THREAD_WORK))


def both_passes(keys: int, queries: int, d: int, d_v: int, degree: int) -> Overhead:
    """Return the Calls of `accumulate` and `contract`, of one State and one polynomial."""
    compiled = (cpu_fast.expected(tokens, d, degree) for tokens in (keys, queries))
    return _both_passes(keys, queries, d, d_v, degree, *compiled)


@lru_cache(maxsize=4096)
def _both_passes(
    keys: int, queries: int, d: int, d_v: int, degree: int, of_keys: bool, of_queries: bool
) -> Overhead:
    sums = _accumulate_calls(keys, d, d_v, degree, of_keys)
    return sums + _contract_calls(queries, d, d_v, degree, of_queries)


def accumulate_calls(keys: int, d: int, d_v: int, degree: int) -> Overhead:
    """Return the Calls of `accumulate` over so many keys."""
    return _accumulate_calls(keys, d, d_v, degree, cpu_fast.expected(keys, d, degree))


@lru_cache(maxsize=4096)
def _accumulate_calls(keys: int, d: int, d_v: int, degree: int, compiled: bool) -> Overhead:
    if keys <= 0:
        return NONE
    tile, tiles = lengths.tile_for(keys, d, degree), lengths.tile_count(keys, d, degree)
    groups, pieces = lengths.accumulator_layout(tiles, d, degree, padded(d_v + 1))
    loads = groups * -(-tiles // (groups * lengths.tiles_at_once(tile, d, degree))) * pieces
    steps = PASS_STEPS + loads * _load_steps(d, degree, SUM_STEPS, compiled)
    filled = (groups + 1) * _sum_bytes(d, d_v, degree)  # those of the groups, and their sum
    return Overhead(steps, _alone(keys, d, d_v, degree, compiled), filled=filled)


def contract_calls(queries: int, d: int, d_v: int, degree: int) -> Overhead:
    """Return the Calls of `contract` over so many queries."""
    return _contract_calls(queries, d, d_v, degree, cpu_fast.expected(queries, d, degree))


@lru_cache(maxsize=4096)
def _contract_calls(queries: int, d: int, d_v: int, degree: int, compiled: bool) -> Overhead:
    if queries <= 0:
        return NONE
    loads = -(-queries // lengths.query_tile(queries, d, degree))
    steps = PASS_STEPS + loads * _load_steps(d, degree, PRODUCT_STEPS, compiled)
    filled = _sum_bytes(d, d_v, degree)
    return Overhead(steps, _alone(queries, d, d_v, degree, compiled), filled=filled)


def exact_calls(queries: int, keys: int, d: int, d_v: int) -> Overhead:
    """Return the Calls of `exact_block`."""
    if min(queries, keys) <= 0:
        return NONE
    rows, groups = lengths.exact_shares(queries, keys)
    blocks = -(-queries // rows) * max(groups, -(-keys // lengths.EXACT_KEY_BLOCK))
    alone = min(float(queries) * keys, THREAD_WORK / exact_work(1, 1, d, d_v + 1))
    filled = 8.0 * groups * queries * (d_v + 1)
    return Overhead(PASS_STEPS + blocks * BLOCK_STEPS, alone_pairs=alone, filled=filled)


def _alone(tokens: int, d: int, d_v: int, degree: int, compiled: bool) -> float:
    least = THREAD_WORK / (cpu_fast.EARLIER if compiled else 1.0)
    return min(2.0 * tokens * feature_dimension(d, degree) * padded(d_v + 1), least)


def _sum_bytes(d: int, d_v: int, degree: int) -> float:
    return 8.0 * feature_dimension(d, degree) * padded(d_v + 1)


def _load_steps(d: int, degree: int, chunk: float, compiled: bool) -> float:
    """Return the steps of a load: `chunk` for each chunk of features, plus its multiplications."""
    if compiled:
        return COMPILED_STEPS
    steps = LOAD_STEPS
    for k, r in enumerate(block_sizes(d, degree)[1:], start=1):
        chunks = -(-r // lengths.FEATURE_CHUNK)
        builds = 0 if k == 1 else d + chunks - 1
        steps += BUILD_STEPS * builds + chunk * chunks
    return steps
