"""Sums of exp(q.k) w over all keys on NumPy: O(n m (d + d_v)), memory O(m d + n d_v + blocks).

Rounding, per row. u is the unit roundoff of the compute dtype, B a bound of |q.k|, c = shift ln 2.

* logit: a product of length d: gamma_d |q| |k|.
* shifted path: c is one float64 product rounded once to the compute dtype (off by (u + 2 u64) |c|),
  then one subtraction (u |S - c|). The shift is within 1 of B / ln 2, so |c| <= B + ln 2 and
  |S - c| <= 2B + ln 2 give at most (3B + 2) u to first order. Skipped for a block of queries and
  of keys with max|q| max|k| <= 40: there exp stays within e^-40..e^40, far from the ends of
  float32. These blocks come first, so a later shift of their rows is at least 0.
* exp of the library: 4 ulp is assumed. Weights below the smallest normal number lose at most that
  number, beside a largest weight of the row of at least 1/2, or of e^-40 where a block of the row
  was not shifted and none raised its shift since (up to the roundings above).
* a product of length EXACT_KEY_BLOCK with W in the compute dtype: gamma_512 of the sum of
  absolute values; then at most ceil(m / 512) additions in float64: those of the blocks of a group
  of keys, then those of the other groups, each of which has a block.
* when a later block, or another group, raises the shift, the sums so far are multiplied by a power
  of two: exact, but for what falls below 2^-1074.
"""

from dataclasses import dataclass

import numpy as np

from subquad.engine import lengths
from subquad.engine.cpu.tiles import product
from subquad.engine.lengths import LN2, UNSHIFTED_LOGITS, exact_work
from subquad.engine.threads import ENTRY_WORK, for_each, parallel_map

_SHIFT_LIMIT = 2.0**50  # keeps the conversion to int64 defined, whatever the logits


def exact_block(Q, K, W) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (numerator, normaliser, log_shift) of checked inputs; see the dispatcher.

    Blocks of rows, and where these are few also groups of keys, are dealt to the threads; both
    are cut by the sizes alone, and groups are added in order.
    """
    n, m, columns = len(Q), len(K), W.shape[1]
    if m == 0 or n == 0:
        return np.zeros((n, columns - 1)), np.zeros(n), np.zeros(n, dtype=np.int64)
    keys = _key_blocks(K, np.ascontiguousarray(W))
    rows, groups = lengths.exact_shares(n, m)
    sums, shifts = np.zeros((groups, n, columns)), np.zeros((groups, n), dtype=np.int64)

    def setup():
        return _Buffers((rows, min(m, lengths.EXACT_KEY_BLOCK), columns), K.dtype)

    def one_share(buffers: _Buffers, i: int) -> None:
        block, group = divmod(i, groups)
        part = slice(block * rows, min(n, (block + 1) * rows))
        own = keys[len(keys) * group // groups : len(keys) * (group + 1) // groups]
        queries = np.ascontiguousarray(Q[part])
        shifts[group, part] = buffers.add_up(queries, own, sums[group, part])

    work = exact_work(n, m, K.shape[1], columns)
    for_each(-(-n // rows) * groups, setup, one_share, work)
    total, shift = _added(sums, shifts)
    return total[:, :-1], total[:, -1], shift


def _largest_norm(rows) -> float:
    # Where squares underflow to 0 beside logits that matter, those of the other side overflow:
    # their product is NaN.
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max()))


@dataclass(frozen=True)
class _Keys:
    """A block of keys: (d, block) contiguous, their weights (block, columns), the largest norm."""

    K: np.ndarray
    W: np.ndarray
    norm: float


def _key_blocks(K, W) -> list[_Keys]:
    starts = range(0, len(K), lengths.EXACT_KEY_BLOCK)
    parts = [slice(start, start + lengths.EXACT_KEY_BLOCK) for start in starts]
    # Transposed once: BLAS would do it anew for every block of rows.
    return parallel_map(
        lambda part: _Keys(np.ascontiguousarray(K[part].T), W[part], _largest_norm(K[part])),
        parts,
        ENTRY_WORK * K.size,
    )


def _added(sums: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (sums (n, columns), log_shift (n,)) of the groups of keys, added in order."""
    shift = shifts.max(axis=0)
    for part, own in zip(sums, shifts, strict=True):
        _lower(part, own - shift)
    for part in sums[1:]:
        sums[0] += part
    return sums[0], shift


def _lower(total: np.ndarray, powers: np.ndarray) -> None:
    """Multiply the rows of `total` by 2^powers, powers <= 0."""
    if powers.any():
        # Past 2^-2200 nothing is left of a double.
        with np.errstate(all="ignore"):
            np.ldexp(total, np.maximum(powers, -2200).astype(np.int32)[:, None], out=total)


class _Buffers:
    """What one thread holds: a block of weights, and its product with W."""

    def __init__(self, shape: tuple[int, int, int], dtype) -> None:
        rows, keys, columns = shape
        self._logits, self._product = np.empty(rows * keys, dtype), np.empty((rows, columns), dtype)

    def add_up(self, Q, keys: list[_Keys], total: np.ndarray) -> np.ndarray:
        """Add the sums of a block of queries over `keys` to `total` (zeros); return log_shift."""
        rows, out = len(Q), self._product[: len(Q)]
        shift, norm = np.zeros(rows, dtype=np.int64), _largest_norm(Q)
        small = [norm * block.norm <= UNSHIFTED_LOGITS for block in keys]  # NaN is not
        first = not any(small)
        for shifted in (False, True):
            for block in (x for x, alone in zip(keys, small, strict=True) if alone != shifted):
                logits = self._logits[: rows * len(block.W)].reshape(rows, len(block.W))
                product(Q, block.K, logits)
                if shifted:
                    shift, first = _shifted(logits, shift, total, first=first), False
                np.exp(logits, out=logits)
                product(logits, block.W, out)
                total += out
        return shift


def _shifted(logits, shift: np.ndarray, total: np.ndarray, *, first: bool) -> np.ndarray:
    """Return the new shift, after subtracting it from `logits` and re-shifting `total` in place."""
    peaks = np.ceil(logits.max(axis=1).astype(np.float64) / LN2)
    needed = np.clip(peaks, -_SHIFT_LIMIT, _SHIFT_LIMIT).astype(np.int64)
    if not first:
        needed = np.maximum(shift, needed)
        _lower(total, shift - needed)
    np.subtract(logits, (needed * LN2).astype(logits.dtype)[:, None], out=logits)
    return needed
