"""What the checks share: steps of a symbolic proof, exact softmax distances, bounds from two sides.

A sharp bound is checked from both sides at once: an instance in exact arithmetic must not exceed
it (or it is no bound), and must come within `slack` of it (or its constant is not the best).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import sympy

from proofs_checks.claim import Finding, holds, refuted, undecided

SLACK = Fraction(1, 10**9)


def zero(expression: Any) -> bool:
    """Return whether sympy proves the expression to be 0."""
    return bool(sympy.simplify(expression) == 0)


def proved(steps: Mapping[str, bool]) -> Finding:
    """Return that every step of a proof is done, or undecided with the names of the others."""
    missing = [name for name, done in steps.items() if not done]
    if missing:
        return undecided(f"not proved: {'; '.join(missing)}")
    return holds(f"{len(steps)} steps proved: {'; '.join(steps)}")


def both(*findings: Finding) -> Finding:
    """Return the first finding that does not hold, or all of them joined."""
    for finding in findings:
        if finding.verdict != "holds":
            return finding
    return holds(". ".join(finding.detail for finding in findings))


def sharp(
    bound: Callable[..., Any],
    instances: Iterable[tuple[Sequence[float], Fraction]],
    slack: Fraction = SLACK,
) -> Finding:
    """Return whether attained <= bound(*arguments) <= attained (1 + slack) at every instance.

    Each instance is (arguments, attained): an exact rational that something admissible attains.
    """
    count, worst = 0, Fraction(0)
    for arguments, attained in instances:
        count += 1
        value = float(bound(*arguments))
        where = f"at {', '.join(f'{x:.6g}' for x in arguments)}: bound {value!r}"
        if not math.isfinite(value):
            return refuted(f"{where} is no number, attained {float(attained)!r}")
        if attained > Fraction(value):
            return refuted(f"{where} < attained {float(attained)!r}")
        if Fraction(value) > attained * (1 + slack):
            return refuted(f"{where} is not sharp, best possible {float(attained)!r}")
        worst = max(worst, Fraction(value) / attained - 1)
    return holds(f"attained at {count} instances to within {float(worst):.1e}")


def never_below(
    bound: Callable[..., Any], instances: Iterable[tuple[Sequence[float], Fraction]]
) -> Finding:
    """Return whether attained <= bound(*arguments) at every instance."""
    count, nearest = 0, Fraction(0)
    for arguments, attained in instances:
        count += 1
        value = float(bound(*arguments))
        if math.isnan(value) or (math.isfinite(value) and attained > Fraction(value)):
            shown = ", ".join(f"{x:.6g}" for x in arguments)
            return refuted(f"at {shown}: bound {value!r} < attained {float(attained)!r}")
        if math.isfinite(value) and value > 0.0:
            nearest = max(nearest, attained / Fraction(value))
    return holds(f"{count} instances within the bound, the nearest at {float(nearest):.4f} of it")


def scaled_bound(bound: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """Return the bound times a factor: what a twin claims to suffice."""
    return lambda *arguments: factor * bound(*arguments)


def l1_distance(weights: Sequence[Fraction], others: Sequence[Fraction]) -> Fraction:
    """Return the l1 distance of two vectors of weights, each divided by its sum."""
    total, other_total = sum(weights, Fraction(0)), sum(others, Fraction(0))
    return sum(
        (abs(w / total - x / other_total) for w, x in zip(weights, others, strict=True)),
        Fraction(0),
    )


def square_root(value: Fraction, bits: int = 160) -> Fraction:
    """Return a rational below the square root, within 2^-bits of it."""
    return Fraction(math.isqrt((value.numerator << (2 * bits)) // value.denominator), 1 << bits)
