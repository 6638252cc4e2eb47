"""Polynomials near exp on [-B, B], with proved relative errors; least degrees, proved least.

This is the ground floor: it imports nothing of subquad. A relative error below 1 keeps every
computed weight positive.
"""

from subquad.exp_poly.chebyshev import chebyshev_interpolant, chebyshev_series
from subquad.exp_poly.degree import DegreeProof, minimal_degree
from subquad.exp_poly.enclosure import relative_error
from subquad.exp_poly.minimax import minimax, minimax_error
from subquad.exp_poly.polynomial import ExpPolynomial
from subquad.exp_poly.reference import estimate_error
from subquad.exp_poly.taylor import taylor

__all__ = [
    "DegreeProof",
    "ExpPolynomial",
    "chebyshev_interpolant",
    "chebyshev_series",
    "estimate_error",
    "minimal_degree",
    "minimax",
    "minimax_error",
    "relative_error",
    "taylor",
]
