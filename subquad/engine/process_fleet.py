"""A Fleet of processes, wherever they run: all it needs is a way to hear of one another."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from subquad.engine.devices import CpuFleet
from subquad.engine.fleet import Fleet, Sharded


class ProcessFleet(CpuFleet):
    """One rank of several processes that make the same calls, each with NumPy rows of its own.

    For `devices`: every process passes its own rows and gets its own back. With mpi4py,
    ``ProcessFleet(comm.rank, comm.size, comm.allgather)``; on dask, `subquad.cluster.client` makes it.

    Parameters
    ----------
    rank, ranks : int
        Which of how many this process is, from 0.
    gather : callable
        ``gather(part)`` returns the arrays that all processes passed, by rank, all of one shape
        and dtype. Called by all of them equally often; what it raises ends the call.
    """

    speedup = Fleet.speedup

    def __init__(
        self, rank: int, ranks: int, gather: Callable[[np.ndarray], Sequence[np.ndarray]]
    ) -> None:
        whole = all(isinstance(x, numbers.Integral) for x in (rank, ranks))
        if not (whole and 0 <= rank < ranks):
            msg = f"`rank` is {rank!r} of {ranks!r}: give a number from 0 to one below the ranks."
            raise ValueError(msg)
        super().__init__([1.0] * ranks, [rank])
        self._gather = gather

    def stack(self, parts: Sequence[Any]) -> list[Any]:
        """Return the parts of all processes stacked."""
        (part,) = parts
        return [np.stack(self._gather(np.ascontiguousarray(part)))]

    def place(self, x: Any) -> Sharded:
        """Return the rows x of this process as its shard of those of all."""
        return self.sharded([self.carry(x)], x[:0])
