"""The fused kernels (`fused/`): compiled for one shape, and their launches made ready for one size.

Nothing here allocates: whoever launches brings the memory, as addresses, so that what is launched
again and again costs the host little more than the launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from subquad.engine.fused.sizes import FLUSH_STEPS, KEY_WARPS, QUERY_GROUPS, Sizes

OPTIONS = ("--gpu-architecture=sm_90a", "-std=c++17")
FILES = ("common", "pack_keys", "key_pass", "state", "query_pass")
"""One source in the order in which its parts need each other."""


def available() -> bool:
    """Return whether the current device runs the fused passes: they need wgmma (sm_90)."""
    return _capability(cupy.cuda.runtime.getDevice()) == "90"


@lru_cache(maxsize=64)
def _capability(device: int) -> str:
    return str(cupy.cuda.Device(device).compute_capability)


@lru_cache(maxsize=64)
def _multiprocessors(device: int) -> int:
    return int(cupy.cuda.Device(device).attributes["MultiProcessorCount"])


def product_source(columns: int) -> str:
    """Return the CUDA function `wgmma`: acc += operand (64 x 16) times tile (16 x columns)."""
    count = columns // 2
    acc = ", ".join(f"%{i}" for i in range(count))
    operand = ", ".join(f"%{count + i}" for i in range(4))
    outputs = ", ".join(f'"+f"(d[{i}])' for i in range(count))
    inputs = ", ".join(f'"r"(a[{i}])' for i in range(4))
    kind = f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.bf16.bf16"
    return (
        "__device__ __forceinline__ void wgmma(float (&d)[NC / 2], const u32 (&a)[4], u64 tile) {\n"
        f'    asm volatile("{kind} {{{acc}}}, {{{operand}}}, %{count + 4}, 1, 1, 1, 0;"\n'
        f'        : {outputs} : {inputs}, "l"(tile));\n}}\n'
    )


def source(sizes: Sizes) -> str:
    """Return the CUDA source of the kernels for one shape."""
    key_steps, key_stages = sizes.key_stage
    query_stages, resident = sizes.query_stages
    defined = {
        "D": sizes.d,
        "CW": sizes.d_v,
        "NC": sizes.columns,
        "DEGREE": sizes.degree,
        "X3": int(sizes.parts == 2),
        "NACC": sizes.accumulators,
        "FLUSH_STEPS": FLUSH_STEPS,
        "KEY_STEPS": key_steps,
        "KEY_STAGES": key_stages,
        "PACK_STAGES": sizes.pack_stages,
        "Q_GROUPS": QUERY_GROUPS,
        "Q_STAGES": query_stages,
        "Q_RESIDENT": resident,
    }
    folder = Path(__file__).parent
    parts = folder.parent / "gpu" / "given.cu", *(folder / f"{name}.cu" for name in FILES)
    text = "".join(part.read_text(encoding="utf-8") for part in parts)
    lines = "".join(f"#define {name} {value}\n" for name, value in defined.items())
    return lines + text.replace("//WGMMA//", product_source(sizes.columns))


@lru_cache(maxsize=64)
def _kernels(sizes: Sizes, device: int) -> dict[str, Any]:
    module = cupy.RawModule(code=source(sizes), backend="nvrtc", options=OPTIONS)
    shared = {
        "pack_keys": sizes.pack_shared,
        "key_pass": sizes.key_shared,
        "reduce_state": 0,
        "pack_state": 0,
        "query_pass": sizes.query_shared,
    }
    found = {}
    for name, size in shared.items():
        kernel = module.get_function(name)
        if size > 48 * 1024:
            kernel.max_dynamic_shared_size_bytes = size
        found[name] = kernel.kernel
    return found


def scratch_places(parts: Sequence[tuple[str, int]]) -> tuple[dict[str, int], int]:
    """Return where parts of so many bytes begin in one block of memory, and its size."""
    places, end = {}, 0
    for name, size in parts:
        places[name] = end
        end += -(-size // 512) * 512
    return places, end


PREPARED = (0, 0, 0, np.int32(0))
"""In place of what the kernels are told of raw rows, where rows are prepared already.

Else: the run's `Given` (gpu/given.cu), which tells where rows, output, coefficients and units are,
a row being (x * in_scale - centre) * out_scale; what `value_units` has of the values, (heads, 8,
d_v) float32; where the largest squared norm of a prepared row of a head is to be, float32, 0
before; and how many of 4 bytes apart those are. Addresses.
"""


class KeySide:
    """The launches of the pass over the keys, for one shape on one device; see `accumulate`."""

    def __init__(self, sizes: Sizes, heads: int, m: int, device: int) -> None:
        multiprocessors = _multiprocessors(device)
        steps, groups = sizes.key_steps(m), sizes.groups(m, heads, multiprocessors)
        blocks = max(1, min(multiprocessors // heads, -(-m // sizes.pack_rows)))
        self.places, self.bytes = scratch_places(
            [
                ("fragments", heads * steps * sizes.key_bytes),
                ("tiles", heads * steps * sizes.tile_bytes),
                ("sums", 8 * heads * (sizes.chunks + 1) * sizes.columns * blocks),
                ("norms", 8 * heads * (sizes.degree + 1) * blocks),
                ("partial", 4 * heads * groups * sizes.partial_rows * sizes.columns),
            ]
        )
        entries = -(-sizes.partial_rows * sizes.columns // 4 // 256)
        warps = (sizes.chunks + 1) * sizes.columns + sizes.degree + 1
        kernels = _kernels(sizes, device)
        self._pack = kernels["pack_keys"], (blocks, heads), (sizes.pack_threads,), sizes.pack_shared
        self._pass = (
            kernels["key_pass"],
            (groups, sizes.feature_groups, heads),
            (32 * KEY_WARPS,),
            sizes.key_shared,
        )
        self._reduce = kernels["reduce_state"], (entries + -(-warps // 8), heads), (256,), 0
        self._m, self._steps = np.int32(m), np.int32(steps)
        self._groups, self._blocks = np.int32(groups), np.int32(blocks)

    def launch(
        self, K: int, W: int, raw: tuple, weights: int, scratch: int, moments: int, norms: int
    ) -> None:
        """Launch it on the current stream; all but `raw` are addresses, 0 for no weights.

        K and W are 0 where rows are raw.
        """
        at = {name: scratch + place for name, place in self.places.items()}
        run(
            self._pack,
            K,
            W,
            self._m,
            self._steps,
            at["fragments"],
            at["tiles"],
            at["sums"],
            at["norms"],
            *raw,
            weights,
        )
        run(self._pass, at["fragments"], at["tiles"], self._steps, at["partial"])
        run(
            self._reduce,
            at["partial"],
            at["sums"],
            at["norms"],
            self._groups,
            self._blocks,
            moments,
            norms,
        )


class QuerySide:
    """The launches of the pass over the queries, for one shape on one device; see `contract`."""

    def __init__(self, sizes: Sizes, heads: int, n: int, device: int) -> None:
        self.places, self.bytes = scratch_places(
            [
                ("table", heads * sizes.blocks * sizes.tile_bytes),
                ("constants", 4 * heads * sizes.columns),
            ]
        )
        kernels, rows = _kernels(sizes, device), 64 * QUERY_GROUPS
        self._pack = kernels["pack_state"], (sizes.blocks, heads), (128,), 0
        self._pass = kernels["query_pass"], (-(-n // rows), heads), (2 * rows,), sizes.query_shared
        self._n = np.int32(n)

    def launch(
        self,
        Q: int,
        moments: int,
        c: np.ndarray,
        own: int,
        divide: bool,
        raw: tuple,
        scratch: int,
        out: int,
        by_degree: int,
    ) -> None:
        """Launch it on the current stream.

        `c` are four coefficients, or `own` is the address of those of each head; `by_degree` is 0
        where the normalisers are not wanted. Q, `own` and `out` are 0 where rows are raw.
        """
        table, constants = (scratch + self.places[name] for name in ("table", "constants"))
        run(self._pack, moments, *c, table, constants, raw[0], own)
        run(
            self._pass,
            Q,
            table,
            constants,
            self._n,
            *c.astype(np.float32),
            np.int32(divide),
            out,
            by_degree,
            *raw,
            own,
        )


def run(launch: tuple, *arguments) -> None:
    """Run (kernel, grid, block, bytes of shared memory) on the current stream."""
    kernel, grid, block, shared = launch
    kernel(grid, block, arguments, shared)


key_side = lru_cache(maxsize=256)(KeySide)
query_side = lru_cache(maxsize=256)(QuerySide)
