"""Heads through the fused passes at once: nothing measured beforehand, no wait for the host.

What the bound rests on (largest norms, means of the keys, ranges of the values) is found on the
device beside the work, and all but the queries' norms reach the host while their pass still runs.
Beside the two passes, which take the rows as they are, V is read once more, and K as well where
keys have weights. What is the same in every run (sizes, launches, units) is kept in `FusedHeads`,
and the launches as CUDA graphs (`subquad.engine.fused.graphs`), so that a run is little more than
two launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime

from subquad.arrays.arithmetic import Affine
from subquad.engine.fused import passes as fused_passes
from subquad.engine.fused.graphs import Passes, passes_for
from subquad.engine.fused.reports import Report, RunBuffers

SINGLE = np.dtype(np.float32)


@dataclass(frozen=True)
class Units:
    """How the rows of a head enter; its keys weigh exp((k * in_scale - centre) . tilt)."""

    query: Affine
    key: Affine
    tilt: np.ndarray | None


def replayable(*arrays: Any) -> bool:
    """Return whether these are CuPy's, float32 rows in C order, as the kernels take them."""
    for x in arrays:
        if not (isinstance(x, cupy.ndarray) and x.dtype == SINGLE and x.flags.c_contiguous):
            return False
        if x.data.ptr % 16:
            return False
    return True


def device() -> int:
    """Return the current device."""
    return int(runtime.getDevice())


def available() -> bool:
    """Return whether the current device has the fused passes."""
    return fused_passes.available()


def empty(shape: tuple[int, ...], dtype: str) -> Any:
    """Return an array that is still to be filled."""
    return cupy.empty(shape, dtype)


def fill(array: Any, numbers: np.ndarray) -> None:
    """Copy numbers of the host, behind what is under way; they may change as soon as it returns."""
    numbers = np.ascontiguousarray(numbers)  # as `array` is
    host = numbers.__array_interface__["data"][0]
    here = cupy.cuda.get_current_stream().ptr
    runtime.memcpyAsync(array.data.ptr, host, numbers.nbytes, runtime.memcpyHostToDevice, here)


class FusedHeads:
    """Heads that go together, on the current device, with all that is the same in every run.

    `shape` is (n, m, d, d_v), one that the fused passes have, `coefficients` (heads, degree + 1),
    `limits` (heads, 5) as `key_report` takes them.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        units: Sequence[Units],
        coefficients: np.ndarray,
        operands: str,
        limits: np.ndarray,
    ) -> None:
        self._shape, self.heads, degree = shape, len(units), coefficients.shape[1] - 1
        own = (
            _sides([u.key for u in units]),
            _sides([u.query for u in units]),
            fused_passes.four_coefficients(coefficients),
            _tilts(units),
            limits,
        )
        self._own = [fused_passes.uploaded(x) for x in own]
        self._at = [x.data.ptr for x in self._own]
        keys_weighted = any(u.tilt is not None for u in units)
        self._passes = passes_for(shape, self.heads, degree, operands, keys_weighted)

    def start(self, Q: Any, K: Any, V: Any, out: Any, first: int) -> Pending:
        """Launch all that fills these heads of `out` (..., n, d_v), from `first` on.

        Q (..., n, d), K (..., m, d) and V (..., m, d_v) are `replayable`.
        """
        (n, m, d, d_v), stream = self._shape, cupy.cuda.get_current_stream()
        slot = self._passes.slot()
        slot.tell(
            Q.data.ptr + 4 * first * n * d,
            K.data.ptr + 4 * first * m * d,
            V.data.ptr + 4 * first * m * d_v,
            out.data.ptr + 4 * first * n * d_v,
            *self._at,
        )
        self._passes.launch(slot, stream)
        return Pending(self._passes, slot, stream)


class Pending:
    """Heads under way. `queries` must be called once, for their memory to be free again."""

    def __init__(self, passes: Passes, slot: RunBuffers, stream: Any) -> None:
        self._passes, self._slot, self._stream = passes, slot, stream

    def keys(self) -> Report:
        """Return what the keys and values are, as soon as that is known."""
        return self._slot.keys()

    def queries(self) -> np.ndarray:
        """Return the largest norms of prepared queries, rounded up, once all is done."""
        norms = self._slot.queries(self._stream)
        self._passes.free(self._slot)
        return norms


def _sides(sides: Sequence[Affine]) -> np.ndarray:
    """Return centre, in_scale, out_scale of each head as the passes take them: gpu/given.cu."""
    rows = [[*centre, in_scale, out_scale, 0.0, 0.0] for in_scale, centre, out_scale in sides]
    return np.array(rows, np.float32)


def _tilts(units: Sequence[Units]) -> np.ndarray:
    """Return (in_scale, centre, tilt) of the keys of each head, (heads, 3, d)."""
    rows = []
    for u in units:
        in_scale, centre, _ = u.key
        tilt = np.zeros_like(centre) if u.tilt is None else u.tilt
        rows.append([np.full_like(centre, in_scale), centre, tilt])
    return np.array(rows)
