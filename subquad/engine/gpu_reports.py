"""What heads under way tell the host: a few numbers each, in memory that the device writes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np


@dataclass(frozen=True)
class Report:
    """What heads were found to be; NaN where they have one.

    Attributes
    ----------
    key_norms : array (heads,)
        The largest of a prepared key, rounded up.
    key_means : array (heads, d)
        Weighted means of the prepared keys, as rounded to the operands.
    low, high : array (heads, d_v)
        Ranges of the values.
    """

    key_norms: np.ndarray
    key_means: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Slot:
    """What a run finds, on the device, and pinned memory that it reports to, with the events."""

    def __init__(self, heads: int, reported: int, words: int) -> None:
        size = 8 * heads * reported
        self._found = cupy.zeros(words, cupy.uint32)  # and 0 again after each run
        self.found = self._found.data.ptr
        self._memory = cupy.cuda.alloc_pinned_memory(size + 4 * heads)
        self.report, self.longest = self._memory.ptr, self._memory.ptr + size
        numbers = np.frombuffer(self._memory, np.uint8, size + 4 * heads)
        self.numbers = numbers[:size].view(np.float64).reshape(heads, reported)
        self.squares = numbers[size:].view(np.float32)
        self.reported, self.done = (cupy.cuda.Event(disable_timing=True) for _ in range(2))


class Pending:
    """Heads under way. `queries` must be called once, for their memory to be free again."""

    def __init__(self, slot: Slot, free: list[Slot], d: int, memory: Any) -> None:
        self._slot, self._free, self._d, self._memory = slot, free, d, memory

    def keys(self) -> Report:
        """Return what the keys and values are, as soon as that is known."""
        self._slot.reported.synchronize()
        found, ends = self._slot.numbers, 2 + self._d
        d_v = (found.shape[1] - ends) // 2
        with np.errstate(all="ignore"):
            return Report(
                _roots(found[:, 0]), found[:, 2:ends] / found[:, 1:2],
                found[:, ends : ends + d_v].copy(), found[:, ends + d_v :].copy(),
            )  # fmt: skip

    def queries(self) -> np.ndarray:
        """Return the largest norms of prepared queries, rounded up, once the output is there."""
        self._slot.done.synchronize()
        norms = _roots(self._slot.squares)
        self._free.append(self._slot)
        return norms


def _roots(squares: np.ndarray) -> np.ndarray:
    """Return the roots of float32 numbers, rounded up."""
    return np.sqrt(squares, dtype=np.float64) * (1.0 + 2.0**-50)
