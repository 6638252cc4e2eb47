"""What every method needs on a head in shards: Partials merged over ranks, rows chosen, results.

Each method's own `run_on_shards` stands with it: States are summed, large keys gathered, Partials
merged, and every rank has the sums of its own queries in the end. What is added over ranks is
rounded once, which the bounds of one device leave room for: `gammas_for` counts eight tiles more
than there are, `a_priori_terms` 2^-50.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy as np

from subquad.arrays.arithmetic import OUTWARD, Array, namespace
from subquad.arrays.formats import U64
from subquad.bounds.partial import Partial
from subquad.engine.shards.fleet import Fleet, Sharded
from subquad.head.problem import Head

Norms = Sequence[np.ndarray]
"""Host arrays of the rows of each local shard."""


def finished(
    head: Head, partials: Sequence[Partial], finish: Callable[[Partial], tuple[Array, list[Array]]]
) -> tuple[Array, list[Array]]:
    """Return what `finish` makes of each shard, (output, rows of each Term), joined at home."""
    Q: Any = head.Q
    outputs, terms = zip(*Q.fleet.map(finish, partials), strict=True)
    columns = zip(*terms, strict=True)
    return Q.fleet.home(outputs, Q.home), [Q.fleet.home(column, Q.home) for column in columns]


def merge_over(fleet: Fleet, partials: Sequence[Partial]) -> list[Partial]:
    """Return the Partial over the keys of all ranks, on each device: the same bits on each.

    The largest log_shift of each row, an exact re-shift, then sums in the order of the ranks:
    one rounding whatever their number, booked in `rounding`. No leading dimensions.
    """
    if fleet.ranks == 1:
        return list(partials)
    shifts = fleet.map(
        lambda s: namespace(s).max(s, axis=0), fleet.stack([p.log_shift for p in partials])
    )
    packed = fleet.stack(fleet.map(lambda p, s: _packed(p.in_units(s)), partials, shifts))
    return fleet.map(lambda stack, shift: _added(fleet, stack, shift), packed, shifts)


def _packed(p: Partial) -> Array:
    """Return a Partial as one array (n, d_v + 5), without log_shift."""
    xp = namespace(p.normaliser)
    columns = p.normaliser, p.error, p.rounding, p.ratio, p.perturbation
    one = xp.ones_like(p.normaliser)  # a column may be one number for all rows
    return xp.concat([p.numerator, xp.stack([x * one for x in columns], axis=1)], axis=1)


def _added(fleet: Fleet, stack: Array, shift: Array) -> Partial:
    """Return the sum of packed Partials (ranks, n, d_v + 5) in units of 2**shift."""
    xp = namespace(stack)
    total, largest = fleet.added(stack), xp.max(stack, axis=0)
    numerator, normaliser = total[:, :-5], total[:, -5]
    size = xp.max(xp.abs(numerator), axis=-1) + xp.abs(normaliser)
    # What the sum loses beside its one rounding: (ranks u)^2 of the absolute values.
    absolute = xp.sum(xp.max(xp.abs(stack[..., :-4]), axis=-1), axis=0)
    lost = U64 * OUTWARD * (size + 2.0 * U64 * stack.shape[0] ** 2 * absolute)
    error, rounding = total[:, -4] * OUTWARD, total[:, -3] * OUTWARD + lost
    ratio, perturbation = largest[:, -2], largest[:, -1]
    return Partial(numerator, normaliser, shift, error, ratio, rounding, perturbation)


def rows_chosen(x: Sharded, chosen: np.ndarray) -> list[np.ndarray]:
    """Return which rows of each local shard are chosen, by their numbers in it."""
    return [np.flatnonzero(own) for own in x.own(chosen)]


def empty_partial(Q: Array, V: Array) -> Partial:
    """Return the Partial of the queries Q over no keys, for values like V."""
    return Partial.empty(Q.shape[0], V.shape[1], array_api_compat.array_namespace(Q))


def shards_of(x: Any) -> Sharded:
    """Return x, which is Sharded."""
    assert isinstance(x, Sharded)
    return x


def fleet_of_head(head: Head) -> Fleet:
    """Return the Fleet on which the rows of a head lie."""
    return shards_of(head.Q).fleet
