"""A common basis for queries and keys, Q A and K B with A B^T near 1, and its passes. O(n d^2).

Q M and K M^-T leave every q.k alone, whatever the invertible M. With L_q, L_k the square roots of
the second moments and L_q L_k = U S W^T its singular value decomposition, A = L_k W S^(-1/2) and
B = A^-T make both second moments S: balanced, and diagonal at once. The inverse is computed, so
A B^T is off 1 by what `distortion` bounds; nothing else rests on A and B being right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from subquad.arrays.arithmetic import OUTWARD, Affine
from subquad.arrays.formats import U64
from subquad.engine.backend import to_host
from subquad.engine.rows import rows_of
from subquad.engine.threads import single_threaded_blas
from subquad.features.anisotropic import MONOMIALS_MAX, BestFirst

SAMPLE = 4096
"""Most rows of a side that its second moment is taken from."""
RIDGE = 2.0**-26
"""Least eigenvalue of `_root` over its largest, or more."""
ETA = 2.0**-1074


@dataclass(frozen=True)
class Rotation:
    """The basis of both sides, and how far the rows reach along it.

    Attributes
    ----------
    query_basis, key_basis : arrays (d, d), float64
        Prepared rows are multiplied from the right: q A and k B.
    query_reach, key_reach : arrays (d,)
        Largest |entry| of each coordinate of q A and k B as computed in float64, by whatever
        order of sums; rounded up. Their products fall, each pair within a factor 4.
    inexact, size : float
        Upper bounds of the Frobenius norms of 1 - A B^T and of |A| |B|^T.
    """

    query_basis: np.ndarray
    key_basis: np.ndarray
    query_reach: np.ndarray
    key_reach: np.ndarray
    inexact: float
    size: float

    def distortion(self, u: float) -> float:
        """Return c with |q.k - x.y| <= c |q| |k|, x = q A and y = k B as computed and stored.

        The entry x_i is off by at most (gamma_d + u) (|q| |A|)_i, stored with unit roundoff u, so
        the sum of x_i y_i by (2 g + g^2) |q| (|A| |B|^T) |k| with g that; the rest is
        q (1 - A B^T) k. What underflows is apart.
        """
        g = (len(self.query_reach) + 2) * U64 * (1.0 + 2.0**-20) + u
        return (self.inexact + (2.0 * g + g * g) * self.size) * OUTWARD


def measure_rotation(
    Q: Any, K: Any, query: Affine, key: Affine, query_norm: float, key_norm: float
) -> Rotation | None:
    """Return the better of the balanced basis and the given one; None where neither is any use.

    The basis comes from a sample of rows: any basis is a true one. Hopeless (None) is a box on
    which more than MONOMIALS_MAX monomials leave an error of one whole key weight, or numbers out
    of range. `query_norm`, `key_norm` bound the prepared rows' norms.
    """
    with np.errstate(all="ignore"):
        found = _from_sample(Q, K, query, key)
        if found is None:
            return None
        A, B = found
        return _ordered(A, B, _reach(Q, query, A, query_norm), _reach(K, key, B, key_norm))


def _from_sample(
    Q: Any, K: Any, query: Affine, key: Affine
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the better basis (A, B) of both sides; None where hopeless."""
    q, k = (
        to_host(rows_of(x).affine(x[:: -(-x.shape[0] // SAMPLE)], *side, "float64"))
        for x, side in ((Q, query), (K, key))
    )
    with single_threaded_blas():  # matrices too small for threads to be worth their start
        moments = q.T @ q / len(q), k.T @ k / len(k)
        if not all(np.isfinite(x).all() for x in moments):
            return None
        found: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        for A, B in _bases(*moments):
            box = np.sort(np.abs(q @ A).max(axis=0) * np.abs(k @ B).max(axis=0))[::-1]
            if (left := _left_over(box)) is not None:
                found.setdefault(left, (A, B))
    return found[min(found)] if found else None


def rotated(x: Any, side: Affine, basis: np.ndarray, dtype: str) -> Any:
    """Return the rows x of a side in another basis, (n, d): float64, rounded once to `dtype`."""
    return rows_of(x).rotated(x, *side, basis, dtype)


def _reach(x: Any, side: Affine, basis: np.ndarray, norm: float) -> np.ndarray:
    """Return the largest |entry| of each column of the rotated rows, for any order of the sums."""
    found = rows_of(x).rotated_reach(x, *side, basis)
    # Two computations of one entry differ by at most 2 gamma_d |q| |A_i|, and what underflows.
    d = len(basis)
    slack = 2.0 * (d + 2) * U64 * norm * np.linalg.norm(basis, axis=0) + 4 * d * ETA
    return (found + slack * OUTWARD) * OUTWARD


def _bases(query: np.ndarray, key: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs (A, B) with A B^T near 1: the coordinates as they are, and the balanced ones."""
    same = np.eye(len(query))
    pairs = [(same, same)]
    try:
        left, right = _root(query), _root(key)
        _, S, W = np.linalg.svd(left @ right)
        A = right @ W.T / np.sqrt(S)
        B = np.linalg.inv(A).T
    except np.linalg.LinAlgError:
        return pairs
    if np.isfinite(A).all() and np.isfinite(B).all():
        pairs.append((A, B))
    return pairs


def _root(moments: np.ndarray) -> np.ndarray:
    """Return the symmetric square root; directions without weight get a little of the largest."""
    values, vectors = np.linalg.eigh(moments)
    largest = values[-1] if values[-1] > 0.0 else 1.0
    return (vectors * np.sqrt(np.maximum(values, 0.0) + RIDGE**2 * largest)) @ vectors.T


def _left_over(box: np.ndarray, count: int = 256) -> float | None:
    """Return what `count` monomials leave, over the whole; None where the box is hopeless."""
    if not box.sum() <= 600.0:
        return None
    order = BestFirst(tuple(box.tolist()))
    if order.at_least(1.0) > MONOMIALS_MAX:
        return None
    order.take(count)
    return max(order.tail, 0.0)


def _ordered(
    A: np.ndarray, B: np.ndarray, query_reach: np.ndarray, key_reach: np.ndarray
) -> Rotation:
    """Return the Rotation, coordinates by falling product, both sides balanced in each."""
    order = np.argsort(-(query_reach * key_reach), kind="stable")
    lean = np.round(np.log2(key_reach[order] / query_reach[order]) / 2.0)
    up = np.ldexp(1.0, np.clip(np.nan_to_num(lean), -200, 200).astype(int))
    A, B = A[:, order] * up, B[:, order] / up
    inexact, size = _departure(A, B)
    return Rotation(A, B, query_reach[order] * up, key_reach[order] / up, inexact, size)


def _departure(A: np.ndarray, B: np.ndarray) -> tuple[float, float]:
    """Return upper bounds of the Frobenius norms of 1 - A B^T and of |A| |B|^T."""
    d = len(A)
    products = np.abs(A) @ np.abs(B).T
    size = float(np.linalg.norm(products)) * (1.0 + (d * d + 2 * d + 8) * 2.0**-52)
    computed = float(np.linalg.norm(A @ B.T - np.eye(d))) * (1.0 + (d * d + 8) * 2.0**-52)
    return computed + (d + 2) * 2.0**-52 * size, size
