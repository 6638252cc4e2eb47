"""What the argument `devices` stands for; shards in the memory of one process."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy as np

from subquad.engine.shards.fleet import Fleet, Sharded

CPU = "cpu"


class CpuFleet(Fleet):
    """Shards in the memory of this process, worked on one after the other by all its threads."""

    @property
    def speedup(self) -> float:
        """1: one machine does the work of all shards."""
        return 1.0

    def for_rows(self, count: int) -> Fleet:
        """Return a Fleet with no more equal shards than rows: an empty one costs as much as one."""
        alone = len(self.local) == self.ranks and len(set(self.shares)) == 1
        return CpuFleet([1.0] * count) if alone and self.ranks > count else self

    def stack(self, parts: Sequence[Any]) -> list[Any]:
        """Return one stack for all ranks."""
        return [np.stack(parts)] * len(self.local)

    def carry(self, x: Any) -> Any:
        """Return x; TypeError unless it is NumPy's."""
        if not array_api_compat.is_numpy_array(x):
            msg = (
                f"`devices` names CPUs but the arrays are {type(x).__module__}'s: "
                "pass NumPy arrays, or the numbers of CUDA devices."
            )
            raise TypeError(msg)
        return x

    def home(self, parts: Sequence[Any], like: Any) -> Any:
        """Return the parts joined."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class ProcessFleet(CpuFleet):
    """One rank of several processes that make the same calls, each with NumPy rows of its own.

    For `devices`: every process passes its own rows and gets its own back. With mpi4py,
    ``ProcessFleet(comm.rank, comm.size, comm.allgather)``; on dask, `subquad.cluster` makes it.

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


def fleet_of(devices: Any) -> Fleet | None:
    """Return the Fleet that the argument `devices` stands for; None where it is None.

    A sequence of CUDA device numbers, or of "cpu" once for each shard; an initialised communicator
    of `cupyx.distributed`; or a Fleet. ValueError otherwise.
    """
    if devices is None or isinstance(devices, Fleet):
        return devices
    several = isinstance(devices, list | tuple | range | np.ndarray)
    listed = [x.item() if isinstance(x, np.generic) else x for x in devices] if several else []
    if listed and all(name == CPU for name in listed):
        return CpuFleet([1.0] * len(listed))
    cuda = all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in listed)
    communicator = all(hasattr(devices, name) for name in ("rank", "all_gather", "all_reduce"))
    if not communicator and not (listed and cuda):
        msg = (
            f"`devices` is {devices!r}; pass None, a list of CUDA device numbers, a list of "
            '"cpu" (one for each shard), or an initialised communicator of cupyx.distributed.'
        )
        raise ValueError(msg)
    try:
        from subquad.engine.shards import gpu_fleet  # brings CuPy
    except ImportError:
        msg = (
            f"`devices` is {devices!r}, which needs CuPy: install subquad[cuda12] or "
            "subquad[cuda13]."
        )
        raise ValueError(msg) from None
    return gpu_fleet.CommunicatorFleet(devices) if communicator else gpu_fleet.of_devices(*listed)
