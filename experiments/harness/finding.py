"""A finding: what holds and what does not, with the numbers behind it."""

from __future__ import annotations

from dataclasses import dataclass

HOLDS, PARTLY, FAILS = "holds", "partly", "does not hold"


@dataclass(frozen=True)
class Finding:
    """A statement, the verdict on it, and the numbers behind it.

    `claim` names it: two records' findings of one name are verdicts on the same statement, though
    its sizes differ.
    """

    claim: str
    verdict: str
    statement: str
    evidence: str


def graded(good: bool, bad: bool) -> str:
    """Return the verdict: holds if `good`, does not hold if `bad`, partly in between."""
    return HOLDS if good else FAILS if bad else PARTLY
