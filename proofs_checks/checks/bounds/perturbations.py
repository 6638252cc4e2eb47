"""Rows of which only a sum of errors, or an error of every logit, is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import flint
import sympy

from proofs_checks.checks.bounds.output_bound import EPSILONS
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, l1_distance, proved, scaled_bound, sharp, zero
from subquad.bounds.softmax import additive_bound, logit_perturbation_bound
from subquad.exp_poly.balls import ball, float_below, precision

Bound = Callable[..., Any]
NEARLY_NOTHING = Fraction(1, 2**80)


def _signed_rows() -> Iterator[tuple[tuple[float], Fraction]]:
    """Yield rows whose whole error sits on a key of almost no true mass: added, then removed."""
    for e in (*EPSILONS, 1.0 - 2.0**-30):
        E, tiny = Fraction(e), NEARLY_NOTHING
        added = l1_distance((1 - E, E * tiny), (1 - E, E))
        removed = l1_distance((1 + E, E * tiny), (1 + E, -E))  # a negative computed weight
        yield (e,), min(added, removed)
        yield (e,), max(added, removed)


def _additive_sharp(bound: Bound) -> Finding:
    p, E = sympy.symbols("p E", positive=True)
    # p~ - p = (delta - p sum(delta)) / D~ is convex in delta: the corners +-E of one key decide.
    corner = E * (1 - p) + E * (1 - p)
    steps = proved(
        {
            "p~ - p = (delta - p sum delta)/D~": _difference_identity(),
            "convex in delta; a corner moves 2E(1 - p_j)/D~ <= 2E/D~": zero(
                corner - 2 * E * (1 - p)
            ),
        }
    )
    return both(steps, sharp(bound, _signed_rows()))


def _difference_identity() -> bool:
    """Return whether (w + delta)_j / (D + s) - w_j / D = (delta_j - (w_j/D) s) / (D + s)."""
    w, D, delta, s = sympy.symbols("w D delta s")
    return zero((w + delta) / (D + s) - w / D - (delta - w / D * s) / (D + s))


def _additive_centred(constant: Fraction) -> Finding:
    """Return whether entry errors eta and D >= n move the row by <= constant eta/(1 - eta)."""
    n, eta = sympy.symbols("n eta", positive=True)
    steps = proved(
        {
            "E <= n eta and D~ >= n - n eta: 2E/D~ = 2 eta/(1-eta)": zero(
                2 * (n * eta) / (n - n * eta) - 2 * eta / (1 - eta)
            )
        }
    )
    for keys, error in ((1000, Fraction(1, 100)), (1000, Fraction(1, 2)), (10**6, Fraction(1, 10))):
        others = (keys - 1) * NEARLY_NOTHING  # n - 1 equal keys, computed as -eta each
        computed = (keys - others - error, (keys - 1) * -error)
        distance = l1_distance((keys - others, others), computed)
        if distance > constant * error / (1 - error):
            return refuted(
                f"n = {keys}, eta = {error}: D = n, distance {float(distance):.6g}, "
                f"allowed {float(constant * error / (1 - error)):.6g}"
            )
    return both(steps, holds("worst: one key of weight n, the others near 0, computed as -eta"))


def _logit_perturbation(bound: Bound) -> Finding:
    x, s = sympy.symbols("x s", positive=True)
    moved = x * s**2 / (1 - x + x * s**2) - x
    missing = (s - 1) / (s + 1) * (1 - x * (s + 1)) ** 2 / (1 + x * (s**2 - 1))
    d = sympy.symbols("delta", positive=True)
    tanh = sympy.tanh(d / 2).rewrite(sympy.exp)
    X, Y = sympy.symbols("X Y", positive=True)
    steps = proved(
        {
            "X/(X+Y) rises with X, falls with Y: +delta on A, -delta off A": bool(
                sympy.factor(sympy.diff(X / (X + Y), X)).is_positive
            )
            and bool(sympy.factor(sympy.diff(X / (X + Y), Y)).is_negative),
            "a square is missing, s = e^delta": zero((s - 1) / (s + 1) - moved - missing),
            "(s-1)/(s+1) = tanh(delta/2)": zero(tanh - (sympy.exp(d) - 1) / (sympy.exp(d) + 1)),
        }
    )
    return both(steps, _logit_values(bound))


def _logit_values(bound: Bound) -> Finding:
    """Return whether the bound is the distance of the two groups, in balls, to 1e-12."""
    deltas = (1e-300, 1e-12, 1e-4, 0.01, 0.5, 2.0, 10.0, 40.0)
    with precision(1200):
        for delta in deltas:
            s = ball(delta).exp()
            x = 1 / (1 + s)
            attained = 2 * (x * s**2 / (1 - x + x * s**2) - x)
            value = ball(float(bound(delta)))
            shown = f"at {delta:g}: bound {float(value)!r}, attained {float_below(attained)!r}"
            if not value >= attained:
                return refuted(shown)
            if not value <= attained * (1 + flint.arb(10) ** -12):
                return refuted(f"{shown}: not sharp")
    return holds(f"attained at {len(deltas)} perturbations, in balls, to within 1e-12")


DERIVED: tuple[Claim, ...] = (
    Claim(
        id="additive-sharp",
        statement="If only E >= sum |w_j - w~_j| is known, the rows are at most 2E/D~ apart in "
        "l1, D~ the computed sum and the w~_j of either sign; attained.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_additive_sharp, additive_bound),
        twin=Twin(
            "1.98 E/D~ suffices", partial(_additive_sharp, scaled_bound(additive_bound, 0.99))
        ),
    ),
    Claim(
        id="additive-centred",
        statement="Entry errors |w~_j - w_j| <= eta with centred keys (D >= n) move the output by "
        "at most 2 eta max|V|/(1 - eta): no factor exp(B^2).",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_additive_centred, Fraction(2)),
        twin=Twin("1.98 eta suffices", partial(_additive_centred, Fraction(198, 100))),
        depends=("additive-sharp", "normaliser-centred"),
    ),
    Claim(
        id="logit-perturbation",
        statement="If every logit of a row is within delta of the true one, the rows are at most "
        "2 tanh(delta/2) <= delta apart in l1; attained at mass 1/(1 + e^delta).",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_logit_perturbation, logit_perturbation_bound),
        twin=Twin(
            "2 tanh(delta/2.02) suffices",
            partial(_logit_perturbation, lambda delta: logit_perturbation_bound(delta / 1.01)),
        ),
    ),
)
