"""The launches of heads of one shape, kept for every plan of it and captured as CUDA graphs.

What differs from run to run (where Q, K, V, the output and a plan's own units are) is told to the
kernels in a few words of device memory (gpu/given.cu), copied there from pinned memory by the first
node of a graph. Everything else a graph may know by heart: it belongs to a `RunBuffers`, which has
the scratch memory and the report of one run at a time. Runs that overlap, by threads or streams,
take a slot each. The first run of a slot is launched kernel by kernel, so that a plan run once
captures nothing; a second one captures, with nothing launched, and launches the graphs. There are
two, for an event to be recorded between them: CuPy has none for within.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from struct import calcsize
from typing import Any
from weakref import WeakValueDictionary

import cupy
import numpy as np
from cupy.cuda import runtime

from subquad.engine.fused.launches import key_side, query_side, run
from subquad.engine.fused.reports import GIVEN, RunBuffers
from subquad.engine.fused.sizes import sizes_for
from subquad.engine.gpu.kernels import THREADS, blocks_for, row_kernel
from subquad.features import feature_dimension

BLOCKS = 1056
"""Most blocks of a pass over the rows: 8 for each multiprocessor."""
KEPT_SLOTS, KEPT_BYTES = 4, 2**29
"""Slots that wait for the next run, of one shape, and their memory in all: more is given back."""
NONE, ONE = np.zeros(4), np.int32(1)


class Passes:
    """The launches of heads that go together, on the current device.

    `shape` is (n, m, d, d_v), one that the fused passes have; `keys_weighted`: keys have weights.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        heads: int,
        degree: int,
        operands: str,
        keys_weighted: bool,
    ) -> None:
        (n, m, d, d_v), here = shape, int(runtime.getDevice())
        self._m, self._d, self._columns, self._heads = m, np.int32(d), np.int32(d_v), heads
        self._keys_weighted = keys_weighted
        sizes = sizes_for(d, d_v, degree, operands)
        self._key_side = key_side(sizes, heads, m, here)
        self._query_side = query_side(sizes, heads, n, here)
        self._moments, self._words = feature_dimension(d, degree) * (d_v + 1), heads * (5 + 2 * d_v)
        self._scratch = [
            ("units", 8 * heads * 7 * d_v),
            ("values", 4 * heads * 8 * d_v),
            ("weights", 8 * heads * m if keys_weighted else 0),
            ("norms", 8 * heads * (degree + 1)),
            ("moments", 8 * heads * self._moments),
            ("keys", self._key_side.bytes),
            ("queries", self._query_side.bytes),
        ]
        self._ends = _ends(m, d_v, heads)
        self._logits = _by_warps("key_logits", m, d, heads)
        self._weights = row_kernel("key_weights"), (blocks_for(m), heads), (THREADS,), 0
        self._report = row_kernel("key_report"), (heads,), (32,), 0
        self._last = row_kernel("query_report"), (blocks_for(self._words, BLOCKS),), (THREADS,), 0
        self._free: list[RunBuffers] = []
        size = sum(part for _, part in self._scratch)
        self._kept = min(KEPT_SLOTS, KEPT_BYTES // max(1, size))

    def slot(self) -> RunBuffers:
        """Return RunBuffers for one run, to be handed to `free` once that is done."""
        try:
            return self._free.pop()
        except IndexError:  # all are in use, by other threads
            return RunBuffers(self._heads, self._words, self._scratch)

    def free(self, slot: RunBuffers) -> None:
        """Keep RunBuffers for the next run, or let go of it."""
        if len(self._free) < self._kept:
            self._free.append(slot)

    def launch(self, slot: RunBuffers, stream: Any) -> None:
        """Launch a run on the current stream, of what `slot.tell` said."""
        parts = partial(self._keys, slot), partial(self._queries, slot)
        if slot.used and slot.graphs is None:
            slot.graphs = captured(parts)
        slot.used = True
        keys, queries = (graph.launch for graph in slot.graphs) if slot.graphs else parts
        keys()
        slot.reported.record(stream)
        queries()

    def _found(self, slot: RunBuffers) -> tuple[int, ...]:
        """Return where logits, norms of queries and of keys, blocks at the end, ends are kept.

        The largest of each head, 8 bytes and 4 and 4; 4; of each column two words; 0 before a run.
        """
        return tuple(slot.at["found"] + self._heads * place for place in (0, 8, 12, 16, 20))

    def _keys(self, slot: RunBuffers) -> None:
        """Launch all that the report on keys and values needs."""
        at, (logits, _, longest, left, ends), m = slot.at, self._found(slot), self._m
        here = cupy.cuda.get_current_stream().ptr
        runtime.memcpyAsync(
            at["given"], slot.told, calcsize(GIVEN), runtime.memcpyHostToDevice, here
        )
        run(self._ends, at["given"], m, self._columns, ends, left, at["units"], at["values"])
        if self._keys_weighted:
            run(self._logits, at["given"], m, self._d, at["weights"], logits)
            run(self._weights, at["weights"], m, logits)
        self._key_side.launch(
            0,
            0,
            (at["given"], at["values"], longest, ONE),
            at["weights"] if self._keys_weighted else 0,
            at["keys"],
            at["moments"],
            at["norms"],
        )
        run(
            self._report,
            at["given"],
            at["moments"],
            self._moments,
            self._d,
            self._columns,
            longest,
            at["units"],
            slot.report,
        )

    def _queries(self, slot: RunBuffers) -> None:
        """Launch the pass over the queries and the report on them."""
        at, (logits, longest, *_) = slot.at, self._found(slot)
        self._query_side.launch(
            0,
            at["moments"],
            NONE,
            0,
            True,
            (at["given"], at["values"], longest, ONE),
            at["queries"],
            0,
            0,
        )
        run(self._last, logits, self._words, 2 * self._heads, np.int32(self._heads), slot.longest)


_PASSES: WeakValueDictionary[tuple, Passes] = WeakValueDictionary()


def passes_for(
    shape: tuple[int, int, int, int], heads: int, degree: int, operands: str, keys_weighted: bool
) -> Passes:
    """Return the Passes of a shape on the current device: one, as long as any plan has it."""
    key = (*shape, heads, degree, operands, keys_weighted, int(runtime.getDevice()))
    found = _PASSES.get(key)
    if found is None:
        found = Passes(shape, heads, degree, operands, keys_weighted)
        found = _PASSES.setdefault(key, found)
    return found


def captured(parts: tuple[Callable[[], None], ...]) -> tuple[Any, ...]:
    """Return what each part launches as a graph; nothing where that cannot be captured.

    Nothing runs. The stream waits for no other and the mode is `relaxed`, so that neither another
    thread's work nor memory that is freed meanwhile disturbs it, nor it them.
    """
    stream, graphs = cupy.cuda.Stream(non_blocking=True), []
    try:
        with stream:
            for part in parts:
                stream.begin_capture(runtime.streamCaptureModeRelaxed)
                try:
                    part()
                finally:
                    graph = stream.end_capture()
                graphs.append(graph)
    except RuntimeError:  # of the driver: what cannot be captured is launched one by one
        return ()
    return tuple(graphs)


def _by_warps(name: str, rows: int, columns: int, heads: int) -> tuple:
    """Return the launch of a pass over the rows of each head, one warp a row."""
    grid = min(-(-BLOCKS // heads), -(-rows // (THREADS // 32))), heads
    return row_kernel(name, -(-columns // 32)), grid, (THREADS,), 0


def _ends(rows: int, columns: int, heads: int) -> tuple:
    """Return the launch that finds the ends of columns, four of them to a thread where it can."""
    if columns < 4 or 128 % columns:
        return _by_warps("column_ends", rows, columns, heads)
    # Half as many blocks: those of a head wait for each other at the same few words.
    grid = min(-(-BLOCKS // (2 * heads)), -(-rows * columns // (4 * THREADS))), heads
    return row_kernel("column_ends4"), grid, (THREADS,), 0
