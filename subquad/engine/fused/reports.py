"""What a run of a plan holds while it is under way, and what it tells the host: a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import calcsize, pack_into
from typing import Any

import cupy
import numpy as np

from subquad.engine.fused.launches import scratch_places

GIVEN, REPORTED = "9Q", 6
"""Addresses of a run (gpu/given.cu); numbers of a head (`key_report`), of 8 bytes each."""


@dataclass(frozen=True)
class Report:
    """What heads were found to be.

    Attributes
    ----------
    key_norms : array (heads,)
        The largest of a prepared key, rounded up; NaN where keys have NaN.
    classes : array (heads, 3)
        1 where the data are in range, else 0; steps that cover the offset, powers that cover the
        ratio, 0 where they are not.
    offsets : array (heads,)
        |weighted mean of the prepared keys| over their largest norm, at most 1.
    ratios : array (heads,)
        `Frame.value_ratio`, at least 1.
    """

    key_norms: np.ndarray
    classes: np.ndarray
    offsets: np.ndarray
    ratios: np.ndarray


class RunBuffers:
    """The memory of one run at a time, on the device and pinned, with the graphs that know it."""

    def __init__(self, heads: int, words: int, scratch: Sequence[tuple[str, int]]) -> None:
        parts = [("given", calcsize(GIVEN)), ("found", 4 * words), *scratch]
        places, size = scratch_places(parts)
        self._memory = cupy.cuda.alloc(size)
        self.at = {name: self._memory.ptr + place for name, place in places.items()}
        (self._memory + places["found"]).memset_async(0, 4 * words)  # and 0 again after each run
        ends = np.cumsum([calcsize(GIVEN), 8 * heads * REPORTED, 4 * heads]).tolist()
        self._pinned = cupy.cuda.alloc_pinned_memory(ends[2])
        self.told, self.report, self.longest = (self._pinned.ptr + end for end in (0, *ends[:2]))
        numbers = np.frombuffer(self._pinned, np.uint8, ends[2])
        self._given = numbers[: ends[0]].data
        self._numbers = numbers[ends[0] : ends[1]].view(np.float64).reshape(heads, REPORTED)
        self._squares = numbers[ends[1] :].view(np.float32)
        self.reported, self.done = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
        self.graphs: tuple[Any, ...] | None = None
        """Of the keys and of the queries; empty where they cannot be had, None before."""
        self.used = False

    def tell(self, *addresses: int) -> None:
        """Say where everything is that the next run has of its own."""
        pack_into(GIVEN, self._given, 0, *addresses)

    def keys(self) -> Report:
        """Return what the keys and values are, as soon as that is known."""
        self.reported.synchronize()
        numbers = self._numbers.copy()
        return Report(_roots(numbers[:, 0]), numbers[:, 1:4], numbers[:, 4], numbers[:, 5])

    def queries(self, stream: Any) -> np.ndarray:
        """Return the largest norms of prepared queries, rounded up, once all of it is done."""
        self.done.record(stream)
        self.done.synchronize()
        return _roots(self._squares)


def _roots(squares: np.ndarray) -> np.ndarray:
    """Return the roots of numbers, rounded up."""
    return np.sqrt(squares, dtype=np.float64) * (1.0 + 2.0**-50)
