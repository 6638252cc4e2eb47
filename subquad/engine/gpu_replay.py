"""Heads through the fused passes at once: nothing measured beforehand, no wait for the host.

What the bound rests on (largest norms, means of the keys, ranges of the values) is found on the
device beside the work, and all but the queries' norms reach the host while their pass still runs.
Beside the two passes, which take the rows as they are, V is read once more. What is the same in
every run (sizes, launches, units) is kept in `Heads`, so that a run is little more than its
launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np

from subquad.engine import gpu_fused
from subquad.engine.fused_sizes import sizes_for
from subquad.engine.gpu_kernels import THREADS, blocks_for, row_kernel
from subquad.engine.gpu_launches import key_side, query_side, run, scratch_places
from subquad.engine.gpu_reports import Pending, Slot
from subquad.features import feature_dimension

BLOCKS = 1056
"""Most blocks of a pass over the rows: 8 for each multiprocessor."""
NONE, ONE = np.zeros(4), np.int32(1)
Affine = tuple[float, np.ndarray, float]
"""pre, centre (d,), post: rows enter as (x * pre - centre) * post."""


@dataclass(frozen=True)
class Units:
    """How the rows of a head enter; its keys weigh exp((k * pre - centre) . tilt)."""

    query: Affine
    key: Affine
    tilt: np.ndarray | None


def replayable(*arrays: Any) -> bool:
    """Return whether these are CuPy's, float32 rows in C order, as the kernels take them."""
    return all(
        isinstance(x, cupy.ndarray) and x.dtype == np.float32 and x.flags.c_contiguous
        and x.data.ptr % 16 == 0 for x in arrays
    )  # fmt: skip


def device() -> int:
    """Return the current device."""
    return int(cupy.cuda.runtime.getDevice())


def output_for(shape: tuple[int, ...]) -> Any:
    """Return an array for the output."""
    return cupy.empty(shape, cupy.float32)


class Heads:
    """Heads that go together, on the current device, with all that is the same in every run.

    `shape` is (n, m, d, d_v), one that the fused passes have, `coefficients` (heads, degree + 1).
    """

    def __init__(
        self, shape: tuple[int, int, int, int], units: Sequence[Units],
        coefficients: np.ndarray, operands: str,
    ) -> None:  # fmt: skip
        (n, m, d, d_v), heads, degree = shape, len(units), coefficients.shape[1] - 1
        self.shape, self.heads, here = shape, heads, device()
        sizes = sizes_for(d, d_v, degree, operands)
        self._keys = key_side(sizes, heads, m, here)
        self._queries = query_side(sizes, heads, n, here)
        self._kept = [gpu_fused.uploaded(x) for x in (
            _sides([u.key for u in units]), _sides([u.query for u in units]),
            gpu_fused.padded(coefficients), _tilts(units))]  # fmt: skip
        self._tilted = any(u.tilt is not None for u in units)
        self._moments = feature_dimension(d, degree) * (d_v + 1)
        self._words, self._reported = heads * (4 + 2 * d_v), 2 + d + 2 * d_v
        self._places, self._bytes = scratch_places([
            ("units", 8 * heads * 7 * d_v), ("values", 4 * heads * 8 * d_v),
            ("weights", 8 * heads * m if self._tilted else 0), ("norms", 8 * heads * (degree + 1)),
            ("moments", 8 * heads * self._moments), ("keys", self._keys.bytes),
            ("queries", self._queries.bytes),
        ])  # fmt: skip
        self._ends = _ends(m, d_v, heads)
        self._logits = _by_warps("key_logits", m, d, heads)
        self._units, self._report = ((row_kernel(name), (heads,), (THREADS,), 0)
                                     for name in ("value_units", "key_report"))  # fmt: skip
        self._last = row_kernel("query_report"), (blocks_for(self._words, BLOCKS),), (THREADS,), 0
        self._weights = row_kernel("key_weights"), (blocks_for(m), heads), (THREADS,), 0
        self._free: list[Slot] = []

    def start(self, Q: Any, K: Any, V: Any, out: Any, first: int) -> Pending:
        """Launch all that fills these heads of `out` (..., n, d_v), from `first` on.

        Q (..., n, d), K (..., m, d) and V (..., m, d_v) are `replayable`.
        """
        (n, m, d, d_v), stream, heads = self.shape, cupy.cuda.get_current_stream(), self.heads
        try:
            slot = self._free.pop()
        except IndexError:  # all are in use, by other threads
            slot = Slot(heads, self._reported, self._words)
        # Of each head: largest logit (8 bytes), query, key (4 each), ends of the columns; 0 before.
        logit = slot.found
        longest_query, longest_key, ends = (logit + heads * size for size in (8, 12, 16))
        columns = np.int32(d_v)
        v = V.data.ptr + 4 * first * m * d_v
        run(self._ends, v, m, columns, ends)
        memory = cupy.cuda.alloc(self._bytes)
        at = {name: memory.ptr + place for name, place in self._places.items()}
        run(self._units, ends, columns, at["units"], at["values"])
        q, k = Q.data.ptr + 4 * first * n * d, K.data.ptr + 4 * first * m * d
        key_sides, query_sides, own, tilts = (x.data.ptr for x in self._kept)
        if self._tilted:
            run(self._logits, k, m, np.int32(d), tilts, at["weights"], logit)
            run(self._weights, at["weights"], m, logit)
        self._keys.launch(
            k, v, (key_sides, at["values"], longest_key, ONE),
            at["weights"] if self._tilted else 0, at["keys"], at["moments"], at["norms"],
        )  # fmt: skip
        run(self._report, at["moments"], self._moments, np.int32(d), columns, longest_key,
            at["units"], slot.report)  # fmt: skip
        slot.reported.record(stream)
        self._queries.launch(
            q, at["moments"], NONE, own, True, (query_sides, at["values"], longest_query, ONE),
            at["queries"], out.data.ptr + 4 * first * n * d_v, 0,
        )  # fmt: skip
        run(self._last, logit, self._words, 2 * heads, np.int32(heads), slot.longest)
        slot.done.record(stream)
        return Pending(slot, self._free, d, memory)


def _by_warps(name: str, rows: int, columns: int, heads: int) -> tuple:
    """Return the launch of a pass over the rows of each head, one warp a row."""
    grid = min(-(-BLOCKS // heads), -(-rows // (THREADS // 32))), heads
    return row_kernel(name, -(-columns // 32)), grid, (THREADS,), 0


def _ends(rows: int, columns: int, heads: int) -> tuple:
    """Return the launch that finds the ends of columns, four of them to a thread where it can."""
    if columns < 4 or 128 % columns:
        return _by_warps("column_ends", rows, columns, heads)
    grid = min(-(-BLOCKS // heads), -(-rows * columns // (4 * THREADS))), heads
    return row_kernel("column_ends4"), grid, (THREADS,), 0


def on_device(numbers: np.ndarray) -> Any:
    """Return numbers on the device, the caller's own; no wait where the same came before."""
    return gpu_fused.uploaded(numbers).copy()


def _sides(sides: Sequence[Affine]) -> np.ndarray:
    """Return centre, pre, post of each head as the passes take them: `gpu_launches.PREPARED`."""
    rows = [[*centre, pre, post, 0.0, 0.0] for pre, centre, post in sides]
    return np.array(rows, np.float32)


def _tilts(units: Sequence[Units]) -> np.ndarray:
    """Return (pre, centre, tilt) of the keys of each head, (heads, 3, d)."""
    rows = []
    for u in units:
        pre, centre, _ = u.key
        tilt = np.zeros_like(centre) if u.tilt is None else u.tilt
        rows.append([np.full_like(centre, pre), centre, tilt])
    return np.array(rows)
