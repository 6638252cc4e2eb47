"""Claims of our own: what the bounds, the methods and the statistics of subquad rest on."""

from proofs_checks.checks import (
    exp_poly,
    features,
    gradient,
    hardness,
    independence,
    masks,
    normaliser,
    output_bound,
    partials,
    perturbations,
    polynomial_sums,
    published_bounds,
    rounding,
    softmax,
    statistics,
    storage,
    support_basis,
    support_cost,
)
from proofs_checks.claim import Claim

CLAIMS: tuple[Claim, ...] = (
    *softmax.DERIVED,
    *normaliser.DERIVED,
    *output_bound.DERIVED,
    *perturbations.DERIVED,
    *published_bounds.DERIVED,
    *rounding.DERIVED,
    *storage.DERIVED,
    *polynomial_sums.DERIVED,
    *partials.DERIVED,
    *exp_poly.DERIVED,
    *features.DERIVED,
    *gradient.DERIVED,
    *hardness.DERIVED,
    *support_basis.DERIVED,
    *support_cost.DERIVED,
    *masks.DERIVED,
    *independence.DERIVED,
    *statistics.DERIVED,
)
