"""The fused passes on Hopper: features in registers, products on tensor cores (`fused/`).

For degrees 2 and 3, d a multiple of 16 up to 128, d_v up to 128, any number of heads in one
launch. Time is that of the products: about 2 (n + m) r (d_v + 8) operations at three quarters of
the rate of a large bfloat16 product; no feature is ever written to memory. Partial sums are added
in a fixed order, so that the same input gives the same bits on every run. Accuracy: see
`subquad.engine.fused_sizes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from subquad.engine.fused_sizes import (
    FLUSH_STEPS,
    KEY_WARPS,
    OPERANDS,
    QUERY_GROUPS,
    Sizes,
    sizes_for,
)
from subquad.features import block_sizes, feature_dimension

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
        "D": sizes.d, "CW": sizes.d_v, "NC": sizes.columns, "DEGREE": sizes.degree,
        "X3": int(sizes.parts == 2), "NACC": sizes.accumulators, "FLUSH_STEPS": FLUSH_STEPS,
        "KEY_STEPS": key_steps, "KEY_STAGES": key_stages, "PACK_STAGES": sizes.pack_stages,
        "Q_GROUPS": QUERY_GROUPS, "Q_STAGES": query_stages, "Q_RESIDENT": resident,
    }  # fmt: skip
    folder = Path(__file__).with_name("fused")
    text = "".join((folder / f"{name}.cu").read_text(encoding="utf-8") for name in FILES)
    lines = "".join(f"#define {name} {value}\n" for name, value in defined.items())
    return lines + text.replace("//WGMMA//", product_source(sizes.columns))


@lru_cache(maxsize=64)
def _kernels(sizes: Sizes, device: int) -> dict[str, Any]:
    module = cupy.RawModule(code=source(sizes), backend="nvrtc", options=OPTIONS)
    shared = {
        "pack_keys": sizes.pack_shared, "key_pass": sizes.key_shared, "reduce_state": 0,
        "pack_state": 0, "query_pass": sizes.query_shared,
    }  # fmt: skip
    found = {}
    for name, size in shared.items():
        kernel = module.get_function(name)
        if size > 48 * 1024:
            kernel.max_dynamic_shared_size_bytes = size
        found[name] = kernel
    return found


def _launch(name: str, sizes: Sizes, grid: tuple, threads: int, shared: int, *arguments) -> None:
    kernel = _kernels(sizes, cupy.cuda.runtime.getDevice())[name]
    kernel(grid, (threads,), arguments, shared_mem=shared)


@dataclass(frozen=True)
class Raw:
    """What the rows of heads are made of that the passes take as the caller has them.

    Attributes
    ----------
    sides : array (heads, d + 4), float32
        centre, pre, post, two more: a row is (x * pre - centre) * post.
    values : array (heads, 8, d_v), float32
        Of the kernel `value_units`: what values enter and the output leaves by.
    largest : array (heads, ...), float64
        The first of each head is 0, and becomes in its first bytes, float32, the largest squared
        norm of a prepared row, rounded up (of a query as rounded to the operands, up by so much).
    weights : array (heads, m), float64, optional
        Of the keys, at most 1.
    """

    sides: Any
    values: Any
    largest: Any
    weights: Any = None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What both passes are told."""
        return self.sides, self.values, self.largest, np.int32(self.largest.strides[0] // 4)


PREPARED = (0, 0, 0, np.int32(0))
"""In place of `Raw.arguments` where rows are prepared already."""


def accumulate(
    K: Any, W: Any, degree: int, operands: str, raw: Raw | None = None
) -> tuple[Any, Any]:
    """Return (moments (heads, r, d_v + 1), norm moments (heads, degree + 1)), float64.

    K is (heads, m, d) and W (heads, m, d_v + 1), float32, m >= 1; both results are on the device,
    the moments in graded order, the norm moments those of K before it was rounded, rounded up.
    With `raw` they are K and V (heads, m, d_v) as the caller has them.
    """
    K, W = cupy.ascontiguousarray(K), cupy.ascontiguousarray(W)
    (heads, m, d), columns = K.shape, W.shape[2] + (raw is not None)
    sizes = sizes_for(d, columns - 1, degree, operands)
    multiprocessors = _multiprocessors(cupy.cuda.runtime.getDevice())
    steps, blocks = -(-m // 16), max(1, min(multiprocessors // heads, -(-m // sizes.pack_rows)))
    groups = sizes.groups(m, heads, multiprocessors)
    fragments = cupy.empty((heads, steps * sizes.key_bytes), cupy.uint8)
    tiles = cupy.empty((heads, steps * sizes.tile_bytes), cupy.uint8)
    sums = cupy.empty((heads, sizes.chunks + 1, sizes.columns, blocks))
    norms = cupy.empty((heads, degree + 1, blocks))
    _launch(
        "pack_keys", sizes, (blocks, heads), sizes.pack_threads, sizes.pack_shared,
        K, W, np.int32(m), np.int32(steps), fragments, tiles, sums, norms,
        *(PREPARED if raw is None else raw.arguments),
        0 if raw is None or raw.weights is None else raw.weights,
    )  # fmt: skip
    partial = cupy.empty((heads, groups, sizes.partial_rows, sizes.columns), cupy.float32)
    _launch(
        "key_pass", sizes, (groups, sizes.feature_groups, heads), 32 * KEY_WARPS, sizes.key_shared,
        fragments, tiles, np.int32(steps), partial,
    )  # fmt: skip
    moments = cupy.empty((heads, feature_dimension(d, degree), columns))
    norm_moments = cupy.empty((heads, degree + 1))
    entries = -(-sizes.partial_rows * sizes.columns // 4 // 256)
    warps = (sizes.chunks + 1) * sizes.columns + degree + 1
    _launch(
        "reduce_state", sizes, (entries + -(-warps // 8), heads), 256, 0,
        partial, sums, norms, np.int32(groups), np.int32(blocks), moments, norm_moments,
    )  # fmt: skip
    return moments, norm_moments


def contract(
    Q: Any, moments: Any, coefficients: Sequence[float] | np.ndarray, operands: str, *,
    divide: bool = False, raw: Raw | None = None, out: Any = None,
) -> tuple[Any, Any]:  # fmt: skip
    """Return (numerator (heads, n, d_v), normalisers by degree (heads, n, 4)), float32.

    Q is (heads, n, d) float32, `moments` as `accumulate` returns them, `coefficients` one for
    each degree, (degree + 1,) for all heads or (heads, degree + 1). With `divide` the first result
    is numerator over normaliser; with `raw` the queries are taken as they are and it is in the
    units of V. It is written to `out` where that is given. Degrees above the State's are 0 in the
    second.
    """
    Q = cupy.ascontiguousarray(Q)
    c = np.asarray(coefficients, dtype=np.float64)
    (heads, n, d), d_v, degree = Q.shape, moments.shape[2] - 1, c.shape[-1] - 1
    sizes = sizes_for(d, d_v, degree, operands)
    assert moments.shape[1] == feature_dimension(d, degree), (moments.shape, degree)
    c = np.pad(c, [(0, 0)] * (c.ndim - 1) + [(0, 3 - degree)])
    own = 0 if c.ndim == 1 else uploaded(c)
    c = c if c.ndim == 1 else np.zeros(4)
    table = cupy.empty((heads, sizes.blocks * sizes.tile_bytes), cupy.uint8)
    constants = cupy.empty((heads, sizes.columns), cupy.float32)
    _launch(
        "pack_state", sizes, (sizes.blocks, heads), 128, 0,
        moments, *map(np.float64, c), table, constants, own,
    )  # fmt: skip
    out = cupy.empty((heads, n, d_v), cupy.float32) if out is None else out
    by_degree = cupy.empty((heads, n, 4), cupy.float32)
    rows = 64 * QUERY_GROUPS
    _launch(
        "query_pass", sizes, (-(-n // rows), heads), 2 * rows, sizes.query_shared,
        Q, table, constants, np.int32(n), *map(np.float32, c),
        np.int32(divide or raw is not None), out, by_degree,
        *(PREPARED if raw is None else raw.arguments), own,
    )  # fmt: skip
    return out, by_degree


def uploaded(x: np.ndarray) -> Any:
    """Return x on the current device; the same array for the same numbers, so leave it as it is."""
    return _kept(x.tobytes(), x.dtype.str, x.shape, cupy.cuda.runtime.getDevice())


@lru_cache(maxsize=256)
def _kept(numbers: bytes, dtype: str, shape: tuple[int, ...], device: int) -> Any:
    found = cupy.asarray(np.frombuffer(numbers, dtype).reshape(shape))
    cupy.cuda.get_current_stream().synchronize()  # other streams will find it here
    return found


def joined(moments: Sequence[Any]) -> Any:
    """Return the moments by degree as one array (1, r, d_v + 1), without a copy where they are."""
    first = moments[0]
    place, total = first.data.ptr, 0
    for part in moments:
        if part.data.ptr != place or not part.flags.c_contiguous:
            return cupy.concatenate(moments)[None]
        place, total = place + part.nbytes, total + part.shape[0]
    return cupy.ndarray((1, total, first.shape[1]), first.dtype, first.data)


def split(moments: Any, d: int, degree: int) -> list[Any]:
    """Return the moments (r, columns) as views by degree."""
    ends = np.cumsum(block_sizes(d, degree))
    return [moments[end - r : end] for end, r in zip(ends, block_sizes(d, degree), strict=True)]


__all__ = ["OPERANDS", "accumulate", "available", "contract", "joined", "source", "split"]
