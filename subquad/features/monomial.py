"""Graded symmetric monomials, C(d+g, g) of them: the feature map behind every polynomial method.

``(x.y)^k = sum_{|alpha|=k} k!/alpha! * x^alpha * y^alpha`` (multinomial theorem), so one product
per multiset of variables is enough where the plain Kronecker power has d^k of them.

Order. Degrees ascend. The block of degree k is the concatenation, over the leading (smallest)
variable a = 0..d-1, of ``x_a`` times the monomials of degree k-1 whose variables are all >= a;
those are a suffix of the block of degree k-1. So a block is built from the one before by d
contiguous multiplications, and lowering the degree is taking a prefix.
"""

from functools import lru_cache
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray


def _check(d: int, degree: int) -> None:
    if d < 1:
        msg = f"`d` is {d}: monomials need at least 1 variable."
        raise ValueError(msg)
    if degree < 0:
        msg = f"`degree` is {degree}: it must be at least 0."
        raise ValueError(msg)


@lru_cache(maxsize=4096)
def feature_dimension(d: int, degree: int) -> int:
    """Return C(d + degree, degree), the number of monomials of degree <= `degree`, exactly.

    Raises ValueError if `d` < 1 or `degree` < 0.
    """
    _check(d, degree)
    return comb(d + degree, degree)


@lru_cache(maxsize=1024)
def block_sizes(d: int, degree: int) -> tuple[int, ...]:
    """Return (r_0, ..., r_degree), r_k = C(d+k-1, k) the number of monomials of degree exactly k.

    Raises ValueError if `d` < 1 or `degree` < 0.
    """
    _check(d, degree)
    return tuple(comb(d + k - 1, k) for k in range(degree + 1))


def suffix_offsets(d: int, k: int) -> tuple[int, ...]:
    """Return, for a = 0..d-1, where the monomials of degree k with all variables >= a begin.

    Offsets count from the start of the degree-k block and each suffix runs to its end, so it
    has C(d-a+k-1, k) rows. In degree 0 the monomial 1 belongs to every suffix.

    Raises ValueError if `d` < 1 or `k` < 0.
    """
    _check(d, k)
    whole = comb(d + k - 1, k)
    return tuple(whole - comb(d - a + k - 1, k) for a in range(d))


def _exponent_block(previous: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    d = previous.shape[1]
    unit = np.eye(d, dtype=np.int64)
    starts = suffix_offsets(d, k - 1)
    return np.concatenate([previous[starts[a] :] + unit[a] for a in range(d)])


def exponents(d: int, degree: int) -> NDArray[np.int64]:
    """Return the exponents alpha of every monomial of degree <= `degree`, shape (r, d), in order.

    Raises ValueError if `d` < 1 or `degree` < 0. Costs O(r d) memory: for reference and tests.
    """
    _check(d, degree)
    blocks = [np.zeros((1, d), dtype=np.int64)]
    for k in range(1, degree + 1):
        blocks.append(_exponent_block(blocks[-1], k))
    return np.concatenate(blocks)


@lru_cache(maxsize=64)
def multinomials(d: int, k: int) -> NDArray[np.float64]:
    """Return k!/alpha! for the monomials of degree exactly k, shape (r_k,), read-only.

    Each entry is an exact integer wherever it fits in 53 bits (always for k <= 18), else the
    integer rounded once.

    Raises ValueError if `d` < 1, `k` < 0, or an entry exceeds the range of float64.
    """
    _check(d, k)
    q, more = divmod(k, d)  # the largest coefficient has exponents q and q + 1
    largest = factorial(k) // (factorial(q) ** d * (q + 1) ** more)
    if largest > int(np.finfo(np.float64).max):
        msg = f"`k` is {k} with `d` = {d}: a coefficient k!/alpha! exceeds float64; lower `k`."
        raise ValueError(msg)
    # Recurrence along the order: alpha! grows by the new exponent of the leading variable a,
    # which in the suffix that follows a counts the a's already leading. 20! fits in int64.
    exact: type = np.int64 if k <= 20 else object
    factorials: np.ndarray = np.ones(1, dtype=exact)
    leading = np.zeros(1, dtype=np.int64)
    for j in range(1, k + 1):
        starts, before = suffix_offsets(d, j - 1), len(factorials)
        ends = [*starts[1:], before]
        parts, counts = [], []
        for a in range(d):
            # Rows of the suffix led by a itself come first; the rest are led by later variables.
            led = leading[starts[a] :].copy()
            led[ends[a] - starts[a] if j > 1 else 0 :] = 0
            counts.append(led + 1)
            parts.append(factorials[starts[a] :] * counts[-1].astype(exact))
        factorials, leading = np.concatenate(parts), np.concatenate(counts)
    table = np.asarray(factorial(k) // factorials, dtype=np.float64)
    table.flags.writeable = False
    return table


def monomials(x: NDArray[np.floating], degree: int) -> NDArray[np.floating]:
    """Return every monomial of degree <= `degree` of each row of `x`: (n, d) -> (n, r), naively.

    The reference that the engine is tested against: it holds all n r features. Monomials of
    degree k pass through k - 1 roundings in the dtype of `x`, in the order of the engine.

    Raises ValueError if `x` is not two-dimensional, has no columns, or `degree` < 0.
    """
    if x.ndim != 2:
        msg = f"`x` has {x.ndim} dimensions: give shape (n, d)."
        raise ValueError(msg)
    n, d = x.shape
    _check(d, degree)
    blocks = [np.ones((n, 1), dtype=x.dtype)]
    for k in range(1, degree + 1):
        starts = suffix_offsets(d, k - 1)
        blocks.append(
            np.concatenate([x[:, a : a + 1] * blocks[-1][:, starts[a] :] for a in range(d)], axis=1)
        )
    return np.concatenate(blocks, axis=1)
