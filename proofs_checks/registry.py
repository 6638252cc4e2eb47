"""All claims by id, the order in which they rest on each other, and running them.

>>> from proofs_checks import registry
>>> records = registry.run(registry.select(id="ratio-sharp"))
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from proofs_checks import checks
from proofs_checks.claim import Claim, Record, decide


def listed(name: str) -> Iterator[Claim]:
    """Yield the claims in the tuples of this name in the files of `checks`, rooms by name."""
    for module in pkgutil.walk_packages(checks.__path__, f"{checks.__name__}."):
        yield from getattr(importlib.import_module(module.name), name, ())


def by_id(claims: Iterable[Claim]) -> dict[str, Claim]:
    """Return the claims by id.

    Raises
    ------
    ValueError
        On two claims of one id, on a `depends` that names no claim, on a circle.
    """
    found: dict[str, Claim] = {}
    for claim in claims:
        if claim.id in found:
            msg = f"two claims have the id {claim.id!r}"
            raise ValueError(msg)
        found[claim.id] = claim
    for claim in found.values():
        for name in claim.depends:
            if name not in found:
                msg = f"claim {claim.id!r} depends on {name!r}, which is no claim"
                raise ValueError(msg)
    in_order(found)
    return found


def in_order(claims: Mapping[str, Claim]) -> list[str]:
    """Return the ids, each after those it depends on; ValueError names a circle."""
    done: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            msg = f"claims in a circle: {' -> '.join((*path[path.index(name) :], name))}"
            raise ValueError(msg)
        if name not in done:
            for below in claims[name].depends:
                visit(below, (*path, name))
            done[name] = None

    for name in claims:
        visit(name, ())
    return list(done)


LITERATURE: tuple[Claim, ...] = tuple(listed("LITERATURE"))
"""Claims that papers make, or that stand in textbooks; the words are ours."""
DERIVED: tuple[Claim, ...] = tuple(listed("DERIVED"))
"""Claims of our own: what the bounds, the methods and the statistics of subquad rest on."""
CLAIMS: dict[str, Claim] = by_id((*LITERATURE, *DERIVED))


def select(*, source: str | None = None, id: str | None = None) -> list[Claim]:
    """Return the claims whose source, whose id, contains the text (upper or lower case)."""
    wanted = ((source or "").lower(), (id or "").lower())
    return [
        claim
        for claim in CLAIMS.values()
        if wanted[0] in claim.source.lower() and wanted[1] in claim.id
    ]


def tree(id: str, claims: Mapping[str, Claim] = CLAIMS, depth: int = 0) -> str:
    """Return the claim and, indented below it, all that it rests on; KeyError if there is none."""
    claim = claims[id]
    line = f"{'  ' * depth}{claim.id} ({claim.evidence}, {claim.expected})"
    return "\n".join([line, *(tree(name, claims, depth + 1) for name in claim.depends)])


def roots(claims: Mapping[str, Claim] = CLAIMS) -> list[str]:
    """Return the ids on which no other claim rests."""
    used = {name for claim in claims.values() for name in claim.depends}
    return [name for name in claims if name not in used]


def run(claims: Iterable[Claim], progress: Callable[[Claim], None] | None = None) -> list[Record]:
    """Return the Records of the claims, in their order; `progress` is told each before it runs."""
    records = []
    for claim in claims:
        if progress is not None:
            progress(claim)
        records.append(decide(claim))
    return records


def to_dict(record: Record) -> dict[str, Any]:
    """Return a Record as plain data: the claim, its source, the check, what came out."""
    claim = record.claim
    return {
        "id": claim.id,
        "statement": claim.statement,
        "source": claim.source,
        "provenance": claim.provenance,
        "evidence": claim.evidence,
        "depends": list(claim.depends),
        "verdict": record.found.verdict,
        "expected": claim.expected,
        "detail": record.found.detail,
        "twin": {
            "statement": claim.twin.statement,
            "verdict": record.twin_found.verdict,
            "expected": claim.twin.expected,
            "detail": record.twin_found.detail,
        },
        "as_expected": record.as_expected,
        "seconds": round(record.seconds, 3),
    }


def to_json(records: Iterable[Record]) -> str:
    """Return the Records as JSON, a list of one object per claim."""
    return json.dumps([to_dict(record) for record in records], indent=2, allow_nan=False)
