"""What the argument `devices` stands for; shards in the memory of one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np

from subquad.engine.fleet import Fleet

CPU = "cpu"


class CpuFleet(Fleet):
    """Shards in the memory of this process, worked on one after the other by all its threads."""

    @property
    def speedup(self) -> float:
        """1: one machine does the work of all shards."""
        return 1.0

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
    numbers = all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in listed)
    communicator = all(hasattr(devices, name) for name in ("rank", "all_gather", "all_reduce"))
    if not communicator and not (listed and numbers):
        msg = (
            f"`devices` is {devices!r}; pass None, a list of CUDA device numbers, a list of "
            '"cpu" (one for each shard), or an initialised communicator of cupyx.distributed.'
        )
        raise ValueError(msg)
    try:
        from subquad.engine import gpu_fleet  # brings CuPy
    except ImportError:
        msg = (
            f"`devices` is {devices!r}, which needs CuPy: install subquad[cuda12] or "
            "subquad[cuda13]."
        )
        raise ValueError(msg) from None
    return gpu_fleet.CommunicatorFleet(devices) if communicator else gpu_fleet.of_devices(*listed)
