"""Norm moments on NumPy, M_k = sum_j w_j |k_j|^k rounded up: what the rounding bounds rest on."""

import numpy as np

from subquad.engine import sizes
from subquad.engine.cpu_blocks import over_rows


def norm_moments(K, W, degree: int) -> np.ndarray:
    """Return M_k = sum_j w_j |k_j|^k for k = 0..degree, at least the exact ones."""
    m, d = K.shape
    if m == 0:
        return np.zeros(degree + 1)
    norms = np.zeros((-(-m // sizes.STATE_ROWS), degree + 1))

    def block(_: int, rows: slice) -> None:
        _add_norms(K[rows], W[rows, -1], norms[rows.start // sizes.STATE_ROWS])

    over_rows([K], block)
    return _rounded_up(norms.sum(axis=0), m, d)


def _add_norms(K, weight, norms: np.ndarray) -> None:
    """Add sum_j w_j |k_j|^k of some keys to norms[k], in float64."""
    squares = np.einsum("ij,ij->i", K, K, dtype=np.float64)
    norm = np.sqrt(squares)
    faint = squares < 2.0**-960  # where a square may have underflowed
    if faint.any():
        norm[faint] = np.sqrt(K.shape[1]) * np.abs(K[faint]).max(axis=1)
    power, weight = np.ones(len(K)), weight.astype(np.float64)
    counted = (norm > 0) & (weight > 0)
    for k in range(len(norms)):
        # Never let a term underflow to 0: the moment is an upper bound.
        norms[k] += np.maximum(weight * power, 2.0**-1022, where=counted, out=weight * power).sum()
        power *= norm
        np.maximum(power, 2.0**-1022, where=counted, out=power)


def _rounded_up(norms: np.ndarray, m: int, d: int) -> np.ndarray:
    """Return sums that are at least the exact ones: roundings are fewer than m + k (d/2 + 4)."""
    k = np.arange(len(norms))
    factor = 1.0 + (m + k * (d / 2 + 4) + 8) * 2.0**-52
    return np.where(norms > 0, np.nextafter(norms * factor, np.inf), norms)
