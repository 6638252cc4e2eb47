"""Matrix products by cuBLAS as the rounding bounds suppose them: every operation in its dtype.

Each call runs in CUBLAS_PEDANTIC_MATH: no TF32, no emulation by narrower formats, whatever
CUPY_TF32, torch or the environment have set; the caller's mode is put back. Atomics are off, as
is cuBLAS's default, so that a product gives the same bits on every run with one version of cuBLAS
on one kind of GPU (cuBLAS documentation, "Results Reproducibility").
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import cupy
import numpy as np
from cupy.cuda import cublas, device

PEDANTIC = 2  # cublasMath_t
_HOST = 0  # cublasPointerMode_t
_NONE, _TRANSPOSED = 0, 1  # cublasOperation_t


_GEMM = {"f": cublas.sgemmStridedBatched, "d": cublas.dgemmStridedBatched}
_SCALARS = {char: (np.ones(1, char), np.zeros(1, char)) for char in _GEMM}
_POINTERS = {char: tuple(x.ctypes.data for x in pair) for char, pair in _SCALARS.items()}

Multiply = Callable[..., Any]
"""multiply(a, b, out, b_transposed=False), as in `products`."""


def products(a: Any, b: Any, out: Any, *, b_transposed: bool = False) -> Any:
    """Fill `out` (batch, rows, columns) with a[i] @ b[i], and return it.

    Parameters
    ----------
    a : array (batch or 1, rows, inner)
        C-contiguous, like all three; of length 1 it is used for the whole batch.
    b : array (batch, inner, columns), or (batch, columns, inner) where `b_transposed`
    """
    with pedantic() as multiply:
        return multiply(a, b, out, b_transposed)


@contextmanager
def pedantic() -> Iterator[Multiply]:
    """Yield `products` for many calls: the handle's modes are set and put back once."""
    handle = device.get_cublas_handle()
    mode, pointers = cublas.getMathMode(handle), cublas.getPointerMode(handle)
    cublas.setMathMode(handle, PEDANTIC)
    cublas.setPointerMode(handle, _HOST)
    try:
        assert cublas.getMathMode(handle) == PEDANTIC
        yield partial(_multiply, handle)
    finally:
        cublas.setMathMode(handle, mode)
        cublas.setPointerMode(handle, pointers)


def _multiply(handle: int, a: Any, b: Any, out: Any, b_transposed: bool = False) -> Any:
    (batch, rows, columns), inner, char = out.shape, a.shape[2], out.dtype.char
    shape = (batch, columns, inner) if b_transposed else (batch, inner, columns)
    assert b.shape == shape and a.shape[:2] in ((batch, rows), (1, rows)), (a.shape, b.shape)
    assert all(x.flags.c_contiguous and x.dtype.char == char for x in (a, b, out))
    if out.size == 0:
        return out
    one, zero = _POINTERS[char]
    # cuBLAS stores by columns: what it sees is out^T = b^T a^T.
    _GEMM[char](
        handle,
        _TRANSPOSED if b_transposed else _NONE,
        _NONE,
        columns,
        rows,
        inner,
        one,
        b.data.ptr,
        inner if b_transposed else columns,
        inner * columns,
        a.data.ptr,
        inner,
        rows * inner if a.shape[0] > 1 else 0,
        zero,
        out.data.ptr,
        columns,
        rows * columns,
        batch,
    )
    return out


def product(a: Any, b: Any) -> Any:
    """Return a @ b of two matrices of one compute dtype."""
    a, b = cupy.ascontiguousarray(a), cupy.ascontiguousarray(b)
    out = cupy.empty((a.shape[0], b.shape[1]), a.dtype)
    return products(a[None], b[None], out[None])[0]
