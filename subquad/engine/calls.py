"""What the passes on the CPU cost beside their arithmetic: Python's own work, and waiting threads.

A step is one NumPy call on a tile, of the microsecond or more that it costs whatever the tile
holds; beside other threads each is a chance to wait for the interpreter, and then costs several.
Where features are few, steps are most of the time. And the first `THREAD_WORK` operations of a
pass are done at the pace of one thread, or cost as much by starting others. Both are counted from
the sizes, like the tiles themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from subquad.engine import fast, sizes
from subquad.engine.threads import THREAD_WORK
from subquad.engine.tiles import padded
from subquad.features import block_sizes, feature_dimension

PASS_STEPS = 150.0
"""Steps of one pass whatever its size: checks, buffers, the BLAS set to one thread and back."""
BLOCK_STEPS = 12.0
"""Steps of a block of exact weights: two products, exp, row maxima and what shifts them."""
PAIR_WORK = 40
"""What exp of a logit and its maximum count, in operations of the products."""


@dataclass(frozen=True)
class Calls:
    """Steps, and operations that one thread does while the others wait; of some passes."""

    steps: float = 0.0
    alone: float = 0.0

    def __add__(self, other: Calls) -> Calls:
        return Calls(self.steps + other.steps, self.alone + other.alone)


NONE = Calls()


def more_passes(count: int) -> Calls:
    """Return the Calls of so many passes more over the same rows, each large enough for threads."""
    return Calls(count * PASS_STEPS, float(count * THREAD_WORK))


def exact_work(queries: int, keys: int, d: int, columns: int) -> float:
    """Return the operations of `exact_block`, in the unit of `THREAD_WORK`."""
    return float(queries) * keys * (2 * d + 2 * columns + PAIR_WORK)


def both_passes(keys: int, queries: int, d: int, d_v: int, degree: int) -> Calls:
    """Return the Calls of `accumulate` and `contract`, of one State and one polynomial."""
    return accumulate_calls(keys, d, d_v, degree) + contract_calls(queries, d, d_v, degree)


@lru_cache(maxsize=4096)
def accumulate_calls(keys: int, d: int, d_v: int, degree: int) -> Calls:
    """Return the Calls of `accumulate` over so many keys."""
    if keys <= 0:
        return NONE
    tile, tiles = sizes.tile_for(keys, d, degree), sizes.tile_count(keys, d, degree)
    groups, pieces = sizes.shares(tiles, d, degree, padded(d_v + 1))
    loads = groups * -(-tiles // (groups * sizes.tiles_at_once(tile, d, degree))) * pieces
    steps = PASS_STEPS + loads * _tile_steps(keys, d, degree, 4, 0)
    return Calls(steps, _alone(keys, d, d_v, degree))


@lru_cache(maxsize=4096)
def contract_calls(queries: int, d: int, d_v: int, degree: int) -> Calls:
    """Return the Calls of `contract` over so many queries."""
    if queries <= 0:
        return NONE
    loads = -(-queries // sizes.query_tile(queries, d, degree))
    steps = PASS_STEPS + loads * _tile_steps(queries, d, degree, 3, 4)
    return Calls(steps, _alone(queries, d, d_v, degree))


def exact_calls(queries: int, keys: int, d: int, d_v: int) -> Calls:
    """Return the Calls of `exact_block`."""
    if min(queries, keys) <= 0:
        return NONE
    rows, groups = sizes.exact_shares(queries, keys)
    blocks = -(-queries // rows) * max(groups, -(-keys // sizes.EXACT_KEY_BLOCK))
    work = exact_work(queries, keys, d, d_v + 1)
    return Calls(PASS_STEPS + blocks * BLOCK_STEPS, min(work, THREAD_WORK))


def _alone(tokens: int, d: int, d_v: int, degree: int) -> float:
    return min(2.0 * tokens * feature_dimension(d, degree) * padded(d_v + 1), THREAD_WORK)


def _tile_steps(tokens: int, d: int, degree: int, chunk: int, each: int) -> float:
    """Return the steps of a tile: `chunk` for a chunk of features, `each` for a degree."""
    compiled = fast.expected(tokens, d, degree)
    steps = 6.0
    for k, r in enumerate(block_sizes(d, degree)[1:], start=1):
        chunks = -(-r // sizes.FEATURE_CHUNK)
        builds = 0 if k == 1 else chunks if compiled else d + chunks - 1
        steps += builds + chunk * chunks + each
    return steps
