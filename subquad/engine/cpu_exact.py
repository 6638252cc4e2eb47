"""Sums of exp(q.k) w over all keys on NumPy: O(n m (d + d_v)), memory O(m d_v + blocks).

Rounding, per row. u is the unit roundoff of the compute dtype, B a bound of |q.k|, c = shift ln 2.

* logit: a product of length d: gamma_d |q| |k|.
* shifted path: c is one float64 product rounded once to the compute dtype (off by (u + 2 u64) |c|),
  then one subtraction (u |S - c|). The shift is within 1 of B / ln 2, so |c| <= B + ln 2 and
  |S - c| <= 2B + ln 2 give at most (3B + 2) u to first order. Skipped where max|q| max|k| <= 40:
  there exp stays within e^-40..e^40, far from the ends of float32.
* exp of the library: 4 ulp is assumed. Weights below the smallest normal number lose at most that
  number, beside a largest weight of the row of at least 1/2 (up to the roundings above).
* a product of length EXACT_KEY_BLOCK with W in the compute dtype: gamma_512 of the sum of
  absolute values; then ceil(m / 512) additions in float64.
* when a later block raises the shift, the sums so far are multiplied by a power of two: exact,
  but for what falls below 2^-1074.
"""

from math import log

import numpy as np

from subquad.engine import sizes
from subquad.engine.threads import for_each
from subquad.engine.tiles import padded

LN2 = log(2.0)

UNSHIFTED_LOGITS = 40.0
"""Up to this bound of |logits| the row maxima are not needed."""

_SHIFT_LIMIT = 2.0**50  # keeps the conversion to int64 defined, whatever the logits


def exact_block(Q, K, W) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (numerator, normaliser, log_shift) of checked inputs; see the dispatcher."""
    n, m, columns = len(Q), len(K), W.shape[1]
    numerator, normaliser = np.zeros((n, columns - 1)), np.zeros(n)
    log_shift = np.zeros(n, dtype=np.int64)
    if m == 0 or n == 0:
        return numerator, normaliser, log_shift
    with np.errstate(all="ignore"):
        small = bool(_largest_norm(Q) * _largest_norm(K) <= UNSHIFTED_LOGITS)
    weights = np.zeros((m, padded(columns)), W.dtype)
    weights[:, :columns] = W
    block = sizes.exact_row_block(n)

    def setup():
        return _Buffers(min(block, n), min(sizes.EXACT_KEY_BLOCK, m), weights)

    def one_block(buffers: _Buffers, i: int) -> None:
        rows = slice(i * block, min(n, (i + 1) * block))
        total, log_shift[rows] = buffers.row_sums(Q[rows], K, weights, small)
        numerator[rows], normaliser[rows] = total[:, : columns - 1], total[:, columns - 1]

    for_each(-(-n // block), setup, one_block)
    return numerator, normaliser, log_shift


def _largest_norm(rows) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max()))


class _Buffers:
    """What one thread holds: a block of weights, its product with W, and the float64 sums."""

    def __init__(self, rows: int, keys: int, weights: np.ndarray) -> None:
        width = weights.shape[1]
        self._logits = np.empty(rows * keys, weights.dtype)
        self._product = np.empty((rows, width), weights.dtype)
        self._total = np.empty((rows, width))

    def row_sums(self, Q, K, weights: np.ndarray, small: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return (sums (rows, padded columns), log_shift (rows,)) of one block of queries."""
        rows = len(Q)
        total, product = self._total[:rows], self._product[:rows]
        total[...] = 0.0
        shift = np.zeros(rows, dtype=np.int64)
        for start in range(0, len(K), sizes.EXACT_KEY_BLOCK):
            keys = K[start : start + sizes.EXACT_KEY_BLOCK]
            logits = self._logits[: rows * len(keys)].reshape(rows, len(keys))
            np.matmul(Q, keys.T, out=logits)
            if not small:
                shift = _shifted(logits, shift, total, first=start == 0)
            np.exp(logits, out=logits)
            np.matmul(logits, weights[start : start + len(keys)], out=product)
            total += product
        return total, shift


def _shifted(logits, shift: np.ndarray, total: np.ndarray, *, first: bool) -> np.ndarray:
    """Return the new shift, after subtracting it from `logits` and re-shifting `total` in place."""
    peaks = np.ceil(logits.max(axis=1).astype(np.float64) / LN2)
    needed = np.clip(peaks, -_SHIFT_LIMIT, _SHIFT_LIMIT).astype(np.int64)
    if not first:
        needed = np.maximum(shift, needed)
        if (needed > shift).any():
            # Past 2^-2200 nothing is left of a double.
            np.ldexp(total, np.maximum(shift - needed, -2200).astype(np.int32)[:, None], out=total)
    np.subtract(logits, (needed * LN2).astype(logits.dtype)[:, None], out=logits)
    return needed
