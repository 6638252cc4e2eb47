"""What parts of a row have in common: a scale of their own, and the merge that joins them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from itertools import permutations

import flint
import numpy as np
import sympy

from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, proved, zero
from subquad.exp_poly import ExpPolynomial, minimax
from subquad.exp_poly.balls import ball, precision
from subquad.partial import Partial


def _scaled(scaled: Callable[[ExpPolynomial], np.ndarray]) -> Finding:
    """Return whether |exp(x)/p(x) - 1| <= upper with p scaled, in balls, to 1e-9 attained."""
    e, u = sympy.symbols("e u", positive=True)
    steps = proved({
        "(1 - u^2)/(1 + u) = 1 - u": zero((1 - u**2) / (1 + u) - (1 - u)),
        "(1 - u^2)/(1 - u) = 1 + u": zero((1 - u**2) / (1 - u) - (1 + u)),
        "between them it falls with the error": zero(
            sympy.diff((1 - u**2) / (1 + e), e) + (1 - u**2) / (1 + e) ** 2),
    })  # fmt: skip
    count = 0
    with precision(256):
        for degree, logit_bound in ((1, 0.25), (2, 0.5), (4, 2.0), (6, 4.0), (3, 8.0)):
            p = minimax(degree, logit_bound)
            c = [ball(float(x)) for x in scaled(p)]
            largest = flint.arb(0)
            for i in range(-256, 257):
                x = ball(logit_bound) * i / 256
                value = sum((a * x**k for k, a in enumerate(c)), ball(0))
                largest = largest.max(abs(x.exp() / value - 1))
            wanted = ball(p.upper)
            shown = f"degree {degree}, B = {logit_bound}: {float(largest)!r}, eps {p.upper!r}"
            # Rounding the coefficients is booked elsewhere: 2^-40 of the weight covers it here.
            if not largest <= wanted + flint.arb(2) ** -40:
                return refuted(f"{shown}: exceeded")
            if not largest >= wanted * (1 - flint.arb(10) ** -3):
                return refuted(f"{shown}: not attained")
            count += 1
    return both(steps, holds(f"{count} minimax polynomials at 513 points each, attained to 1e-3"))


def _one_key(weight: float, value: float, shift: int) -> Partial:
    one = np.array([weight])
    return Partial(
        one[:, None] * value, one, np.array([shift]), one / 8, one / 16 / weight, one / 1024,
        one / 64 / weight,
    )  # fmt: skip


def _merge(weights: tuple[float, ...]) -> Finding:
    """Return whether every order and grouping of four merges gives the same bits."""
    parts = [_one_key(w, v, s) for w, v, s in
             zip(weights, (1.0, -0.5, 0.25, 1.0), (0, 3, -2, 40), strict=True)]  # fmt: skip

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


CLAIMS = (
    Claim(
        id="scaled-polynomial",
        statement="p/(1 - eps^2) has |exp/p - 1| <= eps relative to the computed weight where p "
        "has |p/exp - 1| <= eps; no other factor does.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_scaled, ExpPolynomial.scaled),
        twin=Twin(
            "p as it is does as well",
            partial(_scaled, lambda p: np.array([float(x) for x in p.coefficients])),
        ),
    ),
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
)  # fmt: skip
