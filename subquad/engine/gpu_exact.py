"""Sums of exp(q.k) w over all keys on CuPy: O(n m (d + d_v)), blocks of `gpu_tiles.TILE_BYTES`.

The accounting is that of `subquad.engine.cpu_exact` with the same lengths: logits by products of
length d, one subtraction, exp, products with W of length EXACT_KEY_BLOCK, sums over blocks in
float64. CUDA's exp is within 1 ulp in float64 and 2 in float32 over the full range (CUDA C++
Programming Guide, "Mathematical Functions", compiled without --use_fast_math), inside the 4 that
are assumed. The order of every sum is fixed by the sizes.
"""

from __future__ import annotations

from typing import Any

import cupy

from subquad.engine import sizes
from subquad.engine.cpu_exact import LN2, UNSHIFTED_LOGITS
from subquad.engine.gpu_blas import products
from subquad.engine.gpu_kernels import launch
from subquad.engine.gpu_prepare import device_measures
from subquad.engine.gpu_tiles import MOST_ROWS, add_up, padded, step_numbers, tokens_first

ROWS = 8192
"""Most rows of a step."""


def exact_block(Q: Any, K: Any, W: Any) -> tuple[Any, Any, Any]:
    """Return (numerator, normaliser, log_shift) of checked inputs; see the dispatcher."""
    n, m, columns = Q.shape[0], K.shape[0], W.shape[1]
    sums, log_shift = cupy.zeros((n, padded(columns))), cupy.zeros(n, dtype=cupy.int64)
    if m > 0 and n > 0:
        small = _largest_norm(Q) * _largest_norm(K) <= UNSHIFTED_LOGITS
        block = sizes.EXACT_KEY_BLOCK
        keys, weights = tokens_first(K, block, K.shape[1]), tokens_first(W, block, sums.shape[1])
        for start in range(0, n, ROWS):
            rows = slice(start, start + ROWS)
            shift = None if small else log_shift[rows]
            _add_rows(cupy.ascontiguousarray(Q[rows]), keys, weights, m, shift, sums[rows])
    return (
        cupy.ascontiguousarray(sums[:, : columns - 1]),
        cupy.ascontiguousarray(sums[:, columns - 1]), log_shift,
    )  # fmt: skip


def _largest_norm(rows: Any) -> float:
    return float(device_measures(rows, 1.0, 0.0)[0].max())


def _add_rows(Q: Any, keys: Any, weights: Any, m: int, shift: Any, total: Any) -> None:
    """Fill the sums of some rows, (rows, width), and their shift where there is one."""
    rows, (blocks, block, width) = Q.shape[0], weights.shape
    at_once = max(1, min(step_numbers(Q.dtype) // (rows * (block + width)), MOST_ROWS))
    for start in range(0, blocks, at_once):
        used, left = slice(start, start + at_once), m - start * block
        count = min(at_once, blocks - start)
        logits = cupy.empty((count, rows, block), Q.dtype)
        products(Q[None], keys[used], logits, b_transposed=True)
        inside = min(left, count * block)
        if shift is not None:
            arguments = (logits, rows, block, inside, LN2, shift, total, width, int(start == 0))
            launch("raise_shift", (logits,), rows, arguments)
        launch("weigh", (logits,), (rows, count),
               (logits, rows, block, inside, LN2, 0 if shift is None else shift))  # fmt: skip
        out = cupy.empty((count, rows, width), Q.dtype)
        add_up(products(logits, weights[used], out), total)
