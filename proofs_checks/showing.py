"""One claim in full, with what it rests on and what rests on it; no check is run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from proofs_checks import registry, steps, used
from proofs_checks.claim import Claim


def find(id: str, claims: Mapping[str, Claim] | None = None) -> Claim:
    """Return the claim of this id; ValueError with the ids near it where there is none."""
    claims = registry.CLAIMS if claims is None else claims
    if id in claims:
        return claims[id]
    asked = id.lower()
    close = difflib.get_close_matches(asked, claims, 3)
    near = dict.fromkeys([*close, *(name for name in claims if asked and asked in name)])
    hint = f"near it are {', '.join(list(near)[:5])}" if near else "none is near it"
    msg = f"no claim has the id {id!r}; {hint}. `subquad claims --tree` prints all ids."
    raise ValueError(msg)


def sections(claim: Claim) -> dict[str, list[str]]:
    """Return what is known of a claim without running it: lines by heading, none of them empty.

    Steps are those of the statement that holds, the claim or its twin.
    """
    true = claim.expected == "holds"
    above = [other.id for other in registry.CLAIMS.values() if claim.id in other.depends]
    lines = {
        "statement": [claim.statement],
        "expected": [f"{claim.expected} (evidence {claim.evidence}; no check is run here)"],
        "source": [f"{claim.source} ({claim.provenance})"],
        "check": steps.described(claim.check),
        "steps": _numbered(steps.step_names(claim.check)) if true else [],
        "twin": [claim.twin.statement, "must be refuted" if true else "must hold"],
        "twin's steps": [] if true else _numbered(steps.step_names(claim.twin.check)),
        "rests on": list(claim.depends),
        "claims on it": above,
        "functions on it": used.functions(claim.id),
        "terms on it": [str(place) for place in used.terms(claim.id)],
        "named in": [str(place) for place in used.mentions(claim.id)],
    }
    return {heading: of_it for heading, of_it in lines.items() if of_it}


def _numbered(lines: list[str]) -> list[str]:
    return [f"{i}. {line}" for i, line in enumerate(lines, 1)]


def table(claim: Claim) -> Table:
    """Return the sections of a claim as a table of two columns."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    made.add_row("claim", Text(claim.id, style="bold"))
    for heading, lines in sections(claim).items():
        for i, line in enumerate(lines):
            made.add_row("" if i else heading, Text(line))
    return made
