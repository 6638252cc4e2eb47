"""Merging the parts of a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from itertools import permutations

import numpy as np

from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from subquad.bounds.partial import Partial


def _one_key(weight: float, value: float, shift: int) -> Partial:
    one = np.array([weight])
    return Partial(
        one[:, None] * value,
        one,
        np.array([shift]),
        one / 8,
        one / 16 / weight,
        one / 1024,
        one / 64 / weight,
    )


def _merge(weights: tuple[float, ...]) -> Finding:
    """Return whether every order and grouping of four merges gives the same bits."""
    parts = [
        _one_key(w, v, s)
        for w, v, s in zip(weights, (1.0, -0.5, 0.25, 1.0), (0, 3, -2, 40), strict=True)
    ]

    def key(p: Partial) -> tuple[bytes, ...]:
        # `rounding` grows by each merge's own share, which depends on the grouping.
        return tuple(
            np.asarray(getattr(p, f.name)).tobytes() for f in fields(p) if f.name != "rounding"
        )

    def orders() -> Iterator[Partial]:
        empty = Partial.empty(1, 1, np)
        for a, b, c, d in permutations(parts):
            yield a.merge(b).merge(c).merge(d)
            yield a.merge(b).merge(c.merge(d))
            yield a.merge(b.merge(c.merge(d.merge(empty))))

    found = {key(p) for p in orders()}
    if len(found) > 1:
        return refuted(f"weights {weights}: {len(found)} different results of 72")
    return holds("all 24 orders and 3 groupings of 4 Partials give the same bits")


DERIVED: tuple[Claim, ...] = (
    Claim(
        id="partial-merge",
        statement="Merging Partials is commutative and associative, bit by bit, where no addition "
        "rounds; empty is its identity.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(_merge, (1.0, 3.0, 0.5, 2.0**-30)),
        twin=Twin("whatever the weights", partial(_merge, (0.1, 1 / 3, 0.7, 2.0**-30 / 7))),
    ),
)
