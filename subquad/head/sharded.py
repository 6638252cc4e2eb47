"""A problem whose rows lie in shards on a Fleet, and Partials of shards made one.

Centres, scales and value units are those of all rows, found before any shard makes a State or a
Partial; so what the shards make can be added.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from subquad.arrays.arithmetic import OUTWARD, Array, namespace
from subquad.bounds.partial import Partial
from subquad.bounds.rounding import U64
from subquad.cost.rates import Rates, Speed
from subquad.engine.shards.fleet import Fleet
from subquad.head.problem import Key, Problem
from subquad.head.sides import NotFiniteError


def problem_on(fleet: Fleet | None, Q, K, V, *, scale=None, key_mask=None) -> Problem:
    """Return the Problem, its rows in shards where there is a Fleet."""
    if fleet is None:
        return Problem(Q, K, V, scale=scale, key_mask=key_mask)
    return ShardedProblem(fleet, Q, K, V, scale=scale, key_mask=key_mask)


PER_DEVICE = ("state_bytes", "steps")
"""Rates that more devices do not raise."""


class ShardedProblem(Problem):
    """A Problem with the rows of each head divided over the ranks of a Fleet.

    Where every process has one rank, `Q`, `K` and `V` are the rows of this process.
    """

    def __init__(self, fleet: Fleet, Q, K, V, *, scale=None, key_mask=None) -> None:
        self.fleet = fleet
        if key_mask is not None and len(fleet.local) < fleet.ranks:
            msg = (
                "`key_mask` is given, but the keys are divided over processes: drop the keys "
                "that take no part from each process's own instead."
            )
            raise ValueError(msg)
        super().__init__(Q, K, V, scale=scale, key_mask=key_mask)

    @property
    def sizes(self) -> tuple[tuple[int, ...], int, int, int, int]:
        """Leading dimensions, n, m (of the first head, without dropped keys), d and d_v."""
        head = self._heads[0]
        return (self.lead, head.Q.shape[0], *head.K.shape, head.V.shape[1])

    def on_a_device(self, find: Callable[[Array], Any]) -> Any:
        """Return what `find` returns for a shard of the queries, on its device."""
        Q: Any = self._heads[0].Q
        return Q.map(find)[0]

    def _parts(self, index: tuple[int, ...]) -> tuple[tuple[Array, ...], tuple[Key, ...]]:
        Q, K, V = map(self.fleet.place, super()._parts(index)[0])
        if not np.array_equal(K.starts, V.starts):
            msg = (
                f"`V` has {np.diff(V.starts)} rows in the processes, `K` {np.diff(K.starts)}: "
                "each key needs one value."
            )
            raise ValueError(msg)
        return (Q, K, V), (("Q", *index), ("K", *index), ("V", *index))

    def _measure(self) -> None:
        try:
            super()._measure()
        except NotFiniteError:
            msg = "`Q`, `K` or `V` has entries of another process that are not finite."
            raise NotFiniteError(msg) from None


def fleet_rates(rates: Rates, fleet: Fleet) -> Rates:
    """Return the rates of a Fleet of devices that have `rates`, the same in every process.

    But for what each device does for all: filling the State, steps of its own.
    """
    if len(fleet.local) < fleet.ranks:  # clocks differ: those of rank 0 count
        text = np.frombuffer(pickle.dumps(rates), dtype=np.uint8)
        rates = pickle.loads(fleet.known([text])[0].tobytes())

    def together(speed: Speed) -> Speed:
        faster = {f.name: getattr(speed, f.name) * fleet.speedup for f in fields(Speed)}
        return replace(speed, **(faster | {name: getattr(speed, name) for name in PER_DEVICE}))

    numbers: dict[str, Any] = {f.name: getattr(rates, f.name) for f in fields(Rates)}
    speeds = {name: together(x) for name, x in numbers.items() if isinstance(x, Speed)}
    return Rates(**(numbers | speeds))


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
    return Partial(
        numerator,
        normaliser,
        shift,
        error=total[:, -4] * OUTWARD,
        ratio=largest[:, -2],
        rounding=total[:, -3] * OUTWARD + lost,
        perturbation=largest[:, -1],
    )
