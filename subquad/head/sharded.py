"""A problem whose rows lie in shards on a Fleet, and Partials of shards made one.

Centres, scales and value units are those of all rows, found before any shard makes a State or a
Partial; so what the shards make can be added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.engine.shards.fleet import Fleet
from subquad.head.problem import Key, Problem
from subquad.head.sides import NotFiniteError


def problem_on(fleet: Fleet | None, Q, K, V, *, scale=None, key_mask=None) -> Problem:
    """Return the Problem, its rows in shards where there is a Fleet."""
    if fleet is None:
        return Problem(Q, K, V, scale=scale, key_mask=key_mask)
    return ShardedProblem(fleet, Q, K, V, scale=scale, key_mask=key_mask)


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
        try:
            super().__init__(Q, K, V, scale=scale, key_mask=key_mask)
        except NotFiniteError:
            msg = "`Q`, `K` or `V` has entries of another process that are not finite."
            raise NotFiniteError(msg) from None

    @property
    def sizes(self) -> tuple[tuple[int, ...], int, int, int, int]:
        """Leading dimensions, n, m (of the first head, without dropped keys), d and d_v."""
        head = self.heads[0]
        return (self.lead, head.Q.shape[0], *head.K.shape, head.V.shape[1])

    def on_a_device(self, find: Callable[[Array], Any]) -> Any:
        """Return what `find` returns for a shard of the queries, on its device."""
        Q: Any = self.heads[0].Q
        return Q.map(find)[0]

    def _parts(self, index: tuple[int, ...]) -> tuple[tuple[Array, ...], tuple[Key, ...]]:
        whole = super()._parts(index)[0]
        fleet = self.fleet.for_rows(max(x.shape[0] for x in whole))
        Q, K, V = map(fleet.place, whole)
        if not np.array_equal(K.starts, V.starts):
            msg = (
                f"`V` has {np.diff(V.starts)} rows in the processes, `K` {np.diff(K.starts)}: "
                "each key needs one value."
            )
            raise ValueError(msg)
        return (Q, K, V), (("Q", *index), ("K", *index), ("V", *index))
