"""Claims that papers make, or that stand in textbooks; the words are ours."""

from proofs_checks.checks import (
    independence,
    masks,
    normaliser,
    output_bound,
    partials,
    perturbations,
    polynomial_sums,
    published_bounds,
    reference_code,
    rounding,
    softmax,
    statistics,
    storage,
    support_basis,
    support_cost,
)
from proofs_checks.claim import Claim

SUBJECTS = (
    softmax,
    normaliser,
    output_bound,
    perturbations,
    published_bounds,
    rounding,
    storage,
    polynomial_sums,
    partials,
    support_basis,
    support_cost,
    masks,
    independence,
    reference_code,
    statistics,
)
OURS = "subquad"

CLAIMS: tuple[Claim, ...] = tuple(
    claim for subject in SUBJECTS for claim in subject.CLAIMS if claim.source != OURS
)
