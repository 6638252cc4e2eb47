"""Sums of exp(q.k) w over all keys on CuPy: O(n m (d + d_v)), a block of logits at a time.

Three launches a step: the product Q K^T, one kernel that raises the row's shift, adds up what the
step before left and puts exp in place of the logits, and the product with V.

The accounting is that of `subquad.engine.cpu.exact` with the same lengths: logits by products of
length d, one subtraction, exp, products with W of length EXACT_KEY_BLOCK, sums over blocks in
float64; the normaliser is summed in float64 altogether, which is closer. CUDA's exp is within 1
ulp in float64 and 2 in float32 over the full range (CUDA C++ Programming Guide, "Mathematical
Functions", compiled without --use_fast_math), inside the 4 that are assumed. The order of every
sum is fixed by the sizes.

PyTorch's kernels are faster and not used here: how they round is not documented, so nothing that we
could certify would come out.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cupy

from subquad.engine import lengths
from subquad.engine.gpu import kernels
from subquad.engine.gpu.blas import Multiply, pedantic
from subquad.engine.gpu.rows import device_measures
from subquad.engine.gpu.tiles import MOST_ROWS, add_up, step_numbers, tokens_first
from subquad.engine.lengths import LN2, UNSHIFTED_LOGITS, padded

ROWS = 8192
"""Most rows of a step."""
MANY_ROWS, THREADS, MOST_THREADS = 1024, 128, 1024
"""Threads of a block, which has one row: more where there are few rows."""


def exact_block(Q: Any, K: Any, W: Any) -> tuple[Any, Any, Any]:
    """Return (numerator, normaliser, log_shift) of checked inputs; see the dispatcher."""
    n, m, d_v = Q.shape[0], K.shape[0], W.shape[1] - 1
    columns = padded(d_v)
    total, log_shift = cupy.zeros((n, columns + 1)), cupy.zeros(n, dtype=cupy.int64)
    if m > 0 and n > 0:
        small = _largest_norm(Q) * _largest_norm(K) <= UNSHIFTED_LOGITS
        block = lengths.EXACT_KEY_BLOCK
        keys, values = tokens_first(K, block, K.shape[1]), tokens_first(W[:, :d_v], block, columns)
        weights = tokens_first(W[:, d_v:], block, 1)[..., 0]
        with pedantic() as multiply:
            for start in range(0, n, ROWS):
                rows = slice(start, start + ROWS)
                shift = None if small else log_shift[rows]
                own = cupy.ascontiguousarray(Q[rows])
                _add_rows(own, (keys, values, weights), m, shift, total[rows], multiply)
    return cupy.ascontiguousarray(total[:, :d_v]), total[:, columns].copy(), log_shift


def _largest_norm(rows: Any) -> float:
    return float(device_measures(rows, 1.0, 0.0)[0].max())


def _add_rows(
    Q: Any, tiles: tuple[Any, Any, Any], m: int, shift: Any, total: Any, multiply: Multiply
) -> None:
    """Fill the sums of some rows, (rows, columns + 1), and their shift where there is one."""
    keys, values, weights = tiles
    rows, (blocks, block, columns) = Q.shape[0], values.shape
    at_once = max(1, min(step_numbers(Q.dtype) // (rows * (block + columns)), MOST_ROWS))
    together = 16 // Q.itemsize if block * Q.itemsize % 16 == 0 else 1
    turn = _kernel(str(Q.dtype), together, cupy.cuda.runtime.getDevice())
    logits = cupy.empty((min(at_once, blocks), rows, block), Q.dtype)
    added = cupy.empty((min(at_once, blocks), rows, columns), Q.dtype)
    where = 0 if shift is None else shift
    for start in range(0, blocks, at_once):
        count, inside = min(at_once, blocks - start), m - start * block
        used = slice(start, start + count)
        multiply(Q[None], keys[used], logits[:count], b_transposed=True)
        arguments = (
            logits,
            rows,
            block,
            count,
            min(inside, count * block),
            weights[used],
            LN2,
            where,
            int(start == 0),
            added,
            min(at_once, start),
            columns,
            total,
        )
        turn((rows,), (THREADS if rows >= MANY_ROWS else MOST_THREADS,), arguments)
        multiply(logits[:count], values[used], added[:count])
    last = added[: (blocks - 1) % at_once + 1]
    sums = cupy.zeros((rows, columns))
    add_up(last, sums)
    total[:, :columns] += sums


@lru_cache(maxsize=64)
def _kernel(dtype: str, together: int, device: int) -> Any:
    """Return the kernel `turn` of a device for a compute dtype, `together` numbers read at once."""
    name = f"turn<{kernels.C_TYPES[dtype]},{together}>"
    text = Path(__file__).with_suffix(".cu").read_text(encoding="utf-8")
    module = cupy.RawModule(
        code=kernels.source() + text, options=kernels.OPTIONS, name_expressions=(name,)
    )
    return module.get_function(name)
