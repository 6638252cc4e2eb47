"""Checks on the rank of a polynomial of X Y^T, entry by entry, for X and Y with d columns."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import flint
import numpy as np

from proofs_checks.claim import Finding, holds, refuted
from subquad.features import feature_dimension

_PRIME = (1 << 61) - 1
_SIZES = ((2, 2), (2, 3), (3, 2), (3, 3), (4, 2), (5, 2), (2, 6), (4, 3), (1, 9))


def polynomial_matrix(d: int, coefficients: tuple[int, ...], rows: int) -> list[list[int]]:
    """Return p(X Y^T), entry by entry, for fixed pseudo-random integer X and Y, (rows, d) each."""
    rng = np.random.default_rng(100 * d + len(coefficients))
    X, Y = (rng.integers(-(10**6), 10**6, (rows, d)).astype(object) for _ in range(2))
    M = X @ Y.T
    return sum(c * M**k for k, c in enumerate(coefficients)).tolist()


def rank_at_most(slack: int) -> Finding:
    """Return whether p(X Y^T) has rank <= C(d+g, g) - slack over the rationals."""
    for d, g in _SIZES[:6]:
        r = feature_dimension(d, g)
        matrix = polynomial_matrix(d, tuple(range(1, g + 2)), r + 3)
        rank = flint.fmpz_mat(matrix).rank()
        if rank > r - slack:
            return refuted(f"d = {d}, g = {g}: rank {rank} > {r - slack}")
    return holds("(d, g) = " + ", ".join(map(str, _SIZES[:6])) + ", with 3 rows more than that")


def rank_equals(missing: int | None) -> Finding:
    """Return whether the rank over GF(p) is C(d+g, g), without the coefficient `missing`."""
    ranks = []
    for d, g in _SIZES:
        r = feature_dimension(d, g)
        coefficients = tuple(0 if k == missing else k + 1 for k in range(g + 1))
        matrix = polynomial_matrix(d, coefficients, r + 3)
        residues = [[x % _PRIME for x in row] for row in matrix]
        rank = flint.nmod_mat(flint.fmpz_mat(residues), _PRIME).rank()
        if rank != r:
            return refuted(f"d = {d}, g = {g}: rank {rank}, C(d+g, g) = {r}")
        ranks.append(str(rank))
    return holds("ranks " + ", ".join(ranks) + f" for (d, g) = {_SIZES}")


def square_root_rank(factor: Fraction) -> Finding:
    """Return whether C(2(d+g), 2g) >= factor C(d+g, g)^2 for all d < 40, 1 <= g < 15."""
    for d in range(1, 40):
        for g in range(1, 15):
            published, ours = comb(2 * (d + g), 2 * g), feature_dimension(d, g)
            if published < factor * ours**2:
                return refuted(f"d = {d}, g = {g}: {published:,} against {ours:,}^2")
    shown = [
        f"d = {d}, g = {g}: {comb(2 * (d + g), 2 * g):,} for {comb(d + g, g):,}"
        for d, g in ((16, 3), (64, 2), (64, 3))
    ]
    return holds("d < 40, g < 15; " + "; ".join(shown))
