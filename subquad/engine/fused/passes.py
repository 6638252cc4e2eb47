"""The fused passes on Hopper: features in registers, products on tensor cores (`fused/`).

For degrees 2 and 3, d a multiple of 16 up to 128, d_v up to 128, any number of heads in one
launch. Time is that of the products, about 2 (n + m) r (d_v + 8) operations, three times as many
where operands are split: see the experiment `gpu`. No feature is ever written to memory.
Partial sums are added in a fixed order, so that the same input gives the same bits on every run.
Accuracy: see `subquad.engine.fused.rounding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cupy
import numpy as np

from subquad.engine.fused.launches import (
    OPTIONS,
    PREPARED,
    available,
    key_side,
    product_source,
    query_side,
    source,
)
from subquad.engine.fused.sizes import OPERANDS, sizes_for
from subquad.features import block_sizes, feature_dimension


def accumulate(K: Any, W: Any, degree: int, operands: str) -> tuple[Any, Any]:
    """Return (moments (heads, r, d_v + 1), norm moments (heads, degree + 1)), float64.

    K is (heads, m, d) and W (heads, m, d_v + 1), float32, m >= 1; both results are on the device,
    the moments in graded order, the norm moments those of K before it was rounded: of norms rounded
    up in float32, but for entries below 2^-63, and summed in float64 to the nearest.
    """
    K, W = cupy.ascontiguousarray(K), cupy.ascontiguousarray(W)
    (heads, m, d), columns = K.shape, W.shape[2]
    sizes = sizes_for(d, columns - 1, degree, operands)
    side = key_side(sizes, heads, m, cupy.cuda.runtime.getDevice())
    scratch = cupy.cuda.alloc(side.bytes)
    moments = cupy.empty((heads, feature_dimension(d, degree), columns))
    norm_moments = cupy.empty((heads, degree + 1))
    side.launch(
        K.data.ptr, W.data.ptr, PREPARED, 0, scratch.ptr, moments.data.ptr, norm_moments.data.ptr
    )
    return moments, norm_moments


def contract(
    Q: Any,
    moments: Any,
    coefficients: Sequence[float] | np.ndarray,
    operands: str,
    *,
    divide: bool = False,
) -> tuple[Any, Any]:
    """Return (numerator (heads, n, d_v), normalisers by degree (heads, n, 4)), float32.

    Q is (heads, n, d) float32, `moments` as `accumulate` returns them, `coefficients` one for
    each degree, (degree + 1,) for all heads or (heads, degree + 1). With `divide` the first result
    is numerator over normaliser. Degrees above the State's are 0 in the second.
    """
    Q, moments = cupy.ascontiguousarray(Q), cupy.ascontiguousarray(moments)
    c = four_coefficients(coefficients)
    (heads, n, d), d_v, degree = Q.shape, moments.shape[2] - 1, np.shape(coefficients)[-1] - 1
    sizes = sizes_for(d, d_v, degree, operands)
    assert moments.shape[1] == feature_dimension(d, degree), (moments.shape, degree)
    side = query_side(sizes, heads, n, cupy.cuda.runtime.getDevice())
    own = 0 if c.ndim == 1 else uploaded(c).data.ptr
    scratch = cupy.cuda.alloc(side.bytes)
    out = cupy.empty((heads, n, d_v), cupy.float32)
    by_degree = cupy.empty((heads, n, 4), cupy.float32)
    side.launch(
        Q.data.ptr,
        moments.data.ptr,
        c if c.ndim == 1 else np.zeros(4),
        own,
        divide,
        PREPARED,
        scratch.ptr,
        out.data.ptr,
        by_degree.data.ptr,
    )
    return out, by_degree


def four_coefficients(coefficients: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return coefficients (..., degree + 1) as (..., 4), float64: 0 for the degrees above."""
    c = np.asarray(coefficients, dtype=np.float64)
    four = np.zeros((*c.shape[:-1], 4))
    four[..., : c.shape[-1]] = c
    return four


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


__all__ = [
    "OPERANDS",
    "OPTIONS",
    "accumulate",
    "available",
    "contract",
    "four_coefficients",
    "joined",
    "product_source",
    "source",
    "split",
    "uploaded",
]
