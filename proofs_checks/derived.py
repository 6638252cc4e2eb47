"""Claims of our own: what the bounds, the methods and the statistics of subquad rest on."""

from proofs_checks.claim import Claim
from proofs_checks.literature import OURS, SUBJECTS

CLAIMS: tuple[Claim, ...] = tuple(
    claim for subject in SUBJECTS for claim in subject.CLAIMS if claim.source == OURS
)
