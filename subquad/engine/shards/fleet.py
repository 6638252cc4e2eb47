"""Fleet: rows in shards on several devices, and the few ways in which shards hear of each other.

Queries and keys are cut into contiguous runs of rows, one for each rank, of any lengths, also 0.
A process holds the shards of its `local` ranks: all of them where one process has
every device, one where every process makes the same calls on a device of its own. What crosses
shards is stacked or joined in the order of the ranks, and each rank takes sums from the stack by
itself, in that order: all ranks have the same bits, and the same layout has them on every run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np


class Fleet(ABC):
    """Devices by rank. Every process makes the same calls in the same order.

    Attributes
    ----------
    shares : tuple of float
        What part of the rows each rank takes, in any unit; not all 0.
    local : tuple of int
        The ranks whose shards this process holds, ascending.
    """

    def __init__(self, shares: Sequence[float], local: Sequence[int] | None = None) -> None:
        self.shares = tuple(map(float, shares))
        self.local = tuple(range(len(self.shares))) if local is None else tuple(local)
        if not (self.shares and min(self.shares) >= 0.0 and 0.0 < sum(self.shares) < np.inf):
            msg = f"`shares` is {shares!r}; give each device a number of at least 0, not all 0."
            raise ValueError(msg)

    def __deepcopy__(self, memo: dict[int, Any]) -> Fleet:
        """Return this Fleet: devices are not copied."""
        return self

    @property
    def ranks(self) -> int:
        """The number of shards, over all processes."""
        return len(self.shares)

    @property
    def speedup(self) -> float:
        """How many times faster than one device: the largest share is what all wait for."""
        return sum(self.shares) / max(self.shares)

    @abstractmethod
    def stack(self, parts: Sequence[Any]) -> list[Any]:
        """Return the parts (...) of all ranks as (ranks, ...), all of one shape, on each device.

        One answer for each local rank; nobody may write to it.
        """

    @abstractmethod
    def carry(self, x: Any) -> Any:
        """Return an array as one of the current device, without a copy where it is there."""

    @abstractmethod
    def home(self, parts: Sequence[Any], like: Any) -> Any:
        """Return the local parts joined, where the array `like` is."""

    def for_rows(self, count: int) -> Fleet:
        """Return the Fleet for arrays of at most `count` rows: this one, unless fewer ranks do."""
        return self

    def map(self, function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
        """Return [function(*row)] over the local ranks, each with its device as the current one."""
        return [function(*row) for row in zip(*columns, strict=True)]

    def all_gather_host(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the host arrays (rows, ...) of all ranks, alike but for their numbers of rows."""
        if len(self.local) == self.ranks:
            return list(values)
        counts = self._exchanged([np.array([len(x)]) for x in values])[:, 0]
        most = int(counts.max())
        every = self._exchanged([_padded(np, x, most) for x in values])
        return [every[rank, :count] for rank, count in enumerate(counts)]

    def _exchanged(self, values: Sequence[np.ndarray]) -> np.ndarray:
        first = self.stack(self.map(self.carry, values))[0]
        return first.get() if array_api_compat.is_cupy_array(first) else first

    def join(self, parts: Sequence[Any]) -> list[Any]:
        """Return the rows of all ranks in one array, on the device of each local rank."""
        counts = [int(c[0]) for c in self.all_gather_host([np.array([x.shape[0]]) for x in parts])]
        if max(counts) == 0:
            return list(parts)
        xp = array_api_compat.array_namespace(*parts)
        padded = self.map(lambda x: _padded(xp, x, max(counts)), parts)
        return self.map(
            lambda s: xp.concat([s[rank, :count] for rank, count in enumerate(counts)]),
            self.stack(padded),
        )

    def sum(self, parts: Sequence[Any]) -> list[Any]:
        """Return the sum over all ranks, float64, on each device.

        Off by one rounding, and about (ranks 2^-53)^2 of the sum of absolute values.
        """
        return list(parts) if self.ranks == 1 else self.map(self.added, self.stack(parts))

    def added(self, stack: Any) -> Any:
        """Return the sum of a stack (ranks, ...) over its first axis, on the current device."""
        with np.errstate(all="ignore"):  # infinite sums end as NaN, which no bound accepts
            return ordered_sum(stack)

    def sharded(self, parts: Sequence[Any], home: Any) -> Sharded:
        """Return the local parts as shards of one array of rows; `home` is where it came from."""
        counts = self.all_gather_host([np.array([x.shape[0]]) for x in parts])
        return Sharded(self, tuple(parts), np.cumsum([0, *(int(c[0]) for c in counts)]), home)

    def place(self, x: Any) -> Sharded:
        """Return the rows x (n, ...) divided over the ranks by their shares."""
        whole = np.cumsum([0.0, *self.shares])
        starts = np.rint(whole / whole[-1] * x.shape[0]).astype(np.int64)
        cuts = [x[starts[rank] : starts[rank + 1]] for rank in self.local]
        return Sharded(self, tuple(self.map(self.carry, cuts)), starts, x[:0])


@dataclass(frozen=True, eq=False)
class Sharded:
    """Rows (n, ...) of one array on the devices of a Fleet.

    Attributes
    ----------
    parts : tuple of array
        The shards of the local ranks, (rows of the rank, ...).
    starts : array (ranks + 1,)
        The first row of each rank, and n.
    home : array (0, ...)
        No rows, where the array came from and its results belong.
    """

    fleet: Fleet
    parts: tuple[Any, ...]
    starts: np.ndarray
    home: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return (int(self.starts[-1]), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> Any:
        """That of the parts."""
        return self.parts[0].dtype

    def map(self, function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
        """Return [function(part, ...)] over the local shards."""
        return self.fleet.map(function, self.parts, *columns)

    def own(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the rows of a host array (n, ...) that belong to each local shard."""
        return [rows[self.starts[r] : self.starts[r + 1]] for r in self.fleet.local]

    def take(self, rows: Sequence[np.ndarray]) -> Sharded:
        """Return some rows of each local shard, by their numbers in it."""

        def taken(part: Any, index: np.ndarray) -> Any:
            if len(index) == part.shape[0]:  # ascending and distinct: all of them
                return part
            xp = array_api_compat.array_namespace(part)
            return xp.take(part, xp.asarray(index), axis=0)

        return self.fleet.sharded(self.map(taken, rows), self.home)

    def joined(self) -> list[Any]:
        """Return all rows, on the device of each local rank."""
        return self.fleet.join(self.parts)


def ordered_sum(stack: Any) -> Any:
    """Return stack[0] + stack[1] + ..., what each addition loses added up as well (Knuth; Sum2).

    Off by one rounding, and (count 2^-53)^2 of the sum of absolute values (Ogita, Rump and Oishi
    2005).
    """
    total, lost = stack[0], None
    for x in stack[1:]:
        following = total + x
        part = following - total
        error = (total - (following - part)) + (x - part)
        total, lost = following, error if lost is None else lost + error
    return total if lost is None else total + lost


def _padded(xp: Any, x: Any, rows: int) -> Any:
    """Return x (n, ...) with zeros up to `rows` rows."""
    if x.shape[0] == rows:
        return x
    return xp.concat([x, xp.zeros((rows - x.shape[0], *x.shape[1:]), dtype=x.dtype)])
