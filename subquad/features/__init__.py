"""Feature maps: vectors phi(q), phi(k) whose inner product is a polynomial of q.k."""

from subquad.features.monomial import (
    block_sizes,
    exponents,
    feature_dimension,
    monomials,
    multinomials,
    suffix_offsets,
)

__all__ = [
    "block_sizes",
    "exponents",
    "feature_dimension",
    "monomials",
    "multinomials",
    "suffix_offsets",
]
