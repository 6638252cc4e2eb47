"""The passes in a dozen lines each, everything materialised: what the fast ones are tested against.

They take any NumPy dtype, object arrays of fractions included, and return sums in that dtype.
"""

from typing import Any

import numpy as np

from subquad.features import block_sizes, monomials, multinomials


def accumulate(K: Any, W: Any, degree: int) -> list[Any]:
    """Return [sum_j mono_k(k_j) w_j^T for k = 0..degree], O(m r) memory."""
    ends = np.cumsum(block_sizes(K.shape[1], degree))[:-1]
    return np.split(monomials(K, degree).T @ W, ends)


def contract(Q: Any, moments: list[Any], coefficients: Any) -> tuple[Any, Any]:
    """Return (numerator, normaliser by degree) from the naive moments, O(n r) memory."""
    d, degree = Q.shape[1], len(coefficients) - 1
    blocks = np.split(monomials(Q, degree), np.cumsum(block_sizes(d, degree))[:-1], axis=1)
    sums = [
        (blocks[k] * multinomials(d, k).astype(Q.dtype)) @ moments[k] for k in range(degree + 1)
    ]
    numerator = sum(c * part[:, :-1] for c, part in zip(coefficients, sums, strict=True))
    return numerator, np.stack([part[:, -1] for part in sums], axis=1)


def polynomial(Q: Any, K: Any, W: Any, coefficients: Any) -> tuple[Any, Any]:
    """Return the same without any monomial: powers of the full (n, m) matrix of logits."""
    logits = Q @ K.T
    powers = [np.ones_like(logits)]
    for _ in coefficients[1:]:
        powers.append(powers[-1] * logits)
    weights = sum(c * p for c, p in zip(coefficients, powers, strict=True))
    return weights @ W[:, :-1], np.stack([p @ W[:, -1] for p in powers], axis=1)


def exact(Q: Any, K: Any, W: Any) -> tuple[Any, Any, Any]:
    """Return (numerator, normaliser, log_shift) from the full (n, m) matrix of weights, m >= 1."""
    logits = Q.astype(np.float64) @ K.T.astype(np.float64)
    log_shift = np.ceil(logits.max(axis=1) / np.log(2.0)).astype(np.int64)
    sums = np.exp(logits - log_shift[:, None] * np.log(2.0)) @ W.astype(np.float64)
    return sums[:, :-1], sums[:, -1], log_shift
