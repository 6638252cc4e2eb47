"""What a set of Taylor monomials leaves out of exp on a box of products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import product

import numpy as np

from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from subquad.exp_poly.balls import ball, float_below, precision
from subquad.features.anisotropic import Box, MonomialSet, best_set, box_tail

BOXES: tuple[tuple[Box, int], ...] = (
    ((0.5,), 4),
    ((1.0, 0.25), 7),
    ((2.5, 1.5), 30),  # products above 1: the worth of a monomial rises before it falls
    ((0.75, 0.375, 0.1875, 0.09375, 0.0), 25),
    (tuple(0.25**i for i in range(8)), 60),
    ((1.0 / 3.0, 0.1, 0.1), 1),
)


def _sum(exponents: np.ndarray, products: tuple[Fraction, ...]) -> Fraction:
    """Return the sum of the monomials in the products x_i y_i, each over its alpha!, exactly."""
    total = Fraction(0)
    for alpha in exponents.tolist():
        term = Fraction(1)
        for power, z in zip(alpha, products, strict=True):
            term *= z**power / math.factorial(power)
        total += term
    return total


def _points(box: Box) -> Iterator[tuple[Fraction, ...]]:
    """Yield the corner where the tail is attained, then others of the box with fewer signs."""
    yield tuple(Fraction(b) for b in box)
    for shares in product((Fraction(-1), Fraction(1, 3), Fraction(0)), repeat=min(len(box), 4)):
        sides = (*shares, *[Fraction(1)] * (len(box) - len(shares)))
        yield tuple(Fraction(b) * s for b, s in zip(box, sides, strict=True))


def _box_taylor(dropped: int, bound: Callable[[Box, MonomialSet], float]) -> Finding:
    """Return whether the bound covers the set without its last `dropped` monomials, and is sharp.

    In balls: exp of the exact sum of the products, against the exact sum of the monomials.
    """
    count, nearest = 0, 0.0
    for box, r in BOXES:
        kept = best_set(box, r)
        exponents = kept.exponents(len(box))[: max(kept.r - dropped, 0)]
        value = bound(box, kept)
        for corner, point in enumerate(_points(box)):
            with precision(200):
                left = abs(ball(sum(point, Fraction(0))).exp() - ball(_sum(exponents, point)))
                if not left <= ball(value):
                    return refuted(
                        f"b = {box}, {kept.r} monomials, x_i y_i = "
                        f"{[float(z) for z in point]}: off by {float_below(left):.9g}, "
                        f"bound {value:.9g}"
                    )
                if corner == 0 and value > 0.0:
                    nearest = max(nearest, abs(1.0 - float_below(left) / value))
                    if nearest > 1e-9:
                        return refuted(f"b = {box}: {value!r} is not attained")
            count += 1
    return holds(
        f"{count} points, {len(BOXES)} boxes, in balls; attained at the corners to "
        f"within {nearest:.1e}"
    )


DERIVED: tuple[Claim, ...] = (
    Claim(
        id="box-taylor",
        statement="If |x_i y_i| <= b_i, any set S of Taylor monomials is within exp(sum b_i) - "
        "sum_S prod b_i^alpha_i / alpha_i! of exp(x.y); attained at x_i y_i = b_i.",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(_box_taylor, 0, box_tail),
        twin=Twin("so is S without one of its monomials", partial(_box_taylor, 1, box_tail)),
    ),
)
