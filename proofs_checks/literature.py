"""Claims that papers make, or that stand in textbooks; the words are ours."""

from proofs_checks.checks import (
    exp_poly,
    features,
    gradient,
    hardness,
    masks,
    normaliser,
    published_bounds,
    reference_code,
    rounding,
    softmax,
    statistics,
    support_basis,
    support_cost,
)
from proofs_checks.claim import Claim

CLAIMS: tuple[Claim, ...] = (
    *softmax.LITERATURE,
    *normaliser.LITERATURE,
    *published_bounds.LITERATURE,
    *rounding.LITERATURE,
    *exp_poly.LITERATURE,
    *features.LITERATURE,
    *gradient.LITERATURE,
    *hardness.LITERATURE,
    *support_basis.LITERATURE,
    *support_cost.LITERATURE,
    *masks.LITERATURE,
    *reference_code.LITERATURE,
    *statistics.LITERATURE,
)
