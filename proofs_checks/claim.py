"""Claim: a mathematical statement, its source, and the check by which a machine decides it.

Every claim has a twin: the same check on a statement made slightly false, which must come back
refuted (or, where the claim itself is false, the repaired statement, which must hold). A check
that cannot tell the two apart proves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["holds", "refuted", "undecided"]
Provenance = Literal["read", "second-hand", "recalled", "derived"]
Evidence = Literal["symbolic", "enclosed", "exact", "statistical", "counterexample"]


@dataclass(frozen=True)
class Finding:
    """What a check found: a verdict, and the numbers that show it."""

    verdict: Verdict
    detail: str


def holds(detail: str) -> Finding:
    """Return the finding that the statement holds, with what was checked."""
    return Finding("holds", detail)


def refuted(detail: str) -> Finding:
    """Return the finding that the statement is false, with the counterexample in numbers."""
    return Finding("refuted", detail)


def undecided(detail: str) -> Finding:
    """Return the finding that the check could not decide; undecided is never true."""
    return Finding("undecided", detail)


@dataclass(frozen=True)
class Twin:
    """The altered statement, its check and the verdict that it must get."""

    statement: str
    check: Callable[[], Finding]
    expected: Verdict = "refuted"


@dataclass(frozen=True)
class Claim:
    """One statement of the registry.

    Attributes
    ----------
    id : str
        Stable and readable: "ratio-sharp", "sb-eq44". Certificate Terms name these.
    statement : str
        In our own words and notation.
    source : str
        Paper, version and number where known; "subquad" for our own.
    provenance : {"read", "second-hand", "recalled", "derived"}
        How we know what the source says; a recalled statement is never the paper's words.
    evidence : {"symbolic", "enclosed", "exact", "statistical", "counterexample"}
        What kind of check decides it.
    check : callable
        Returns a Finding.
    twin : Twin
        Shows that the check can fail.
    depends : tuple of str
        Ids of the claims that the statement rests on.
    expected : {"holds", "refuted"}
        The verdict that the registry stands for.
    """

    id: str
    statement: str
    source: str
    provenance: Provenance
    evidence: Evidence
    check: Callable[[], Finding]
    twin: Twin
    depends: tuple[str, ...] = ()
    expected: Verdict = "holds"


@dataclass(frozen=True)
class Record:
    """A claim and what its check and its twin's check found, with the seconds both took."""

    claim: Claim
    found: Finding
    twin_found: Finding
    seconds: float

    @property
    def as_expected(self) -> bool:
        """Whether both verdicts are the ones the registry stands for."""
        right = self.found.verdict == self.claim.expected
        return right and self.twin_found.verdict == self.claim.twin.expected


def decide(claim: Claim) -> Record:
    """Return the Record of a claim; an exception in a check is undecided, with its text."""
    start = time.perf_counter()
    found, twin_found = _run(claim.check), _run(claim.twin.check)
    return Record(claim, found, twin_found, time.perf_counter() - start)


def _run(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # noqa: BLE001  a broken check must not stop the others
        return undecided(f"{type(error).__name__}: {error}")
