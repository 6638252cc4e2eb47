"""Checks of the enclosures of `subquad.exp_poly` by a second prover, and of the scaled weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from proofs_checks.checks.exp_poly.degrees import MINIMAL_DEGREES
from proofs_checks.claim import Finding, holds, refuted, undecided
from subquad.exp_poly import (
    chebyshev_interpolant,
    chebyshev_series,
    minimal_degree,
    minimax,
    relative_error,
    taylor,
)
from subquad.exp_poly.balls import ball, precision

_EPS = 1e-2
_Polynomial = tuple[tuple[Fraction, ...], float]


@lru_cache(maxsize=4)
def second_proofs(polynomials: tuple[_Polynomial, ...]) -> list[tuple[float, float, float]]:
    """Return (lower, upper, level) of each polynomial from a process with sympy's own integers."""
    tasks = [([str(c) for c in p], str(Fraction(B))) for p, B in polynomials]
    answer = subprocess.run(
        # -P: no module beside the script can stand for one of a library.
        [sys.executable, "-P", str(Path(__file__).with_name("second_prover.py"))],
        input=json.dumps(tasks),
        env={**os.environ, "SYMPY_GROUND_TYPES": "python"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [tuple(row) for row in json.loads(answer.stdout)]


def _polynomials() -> tuple[_Polynomial, ...]:
    """Return the least and the next lower degree for each B of the table, then six others."""
    pairs = [(minimal_degree(B, _EPS).degree, B) for B in MINIMAL_DEGREES]
    table = [(minimax(g - k, B).coefficients, B) for g, B in pairs for k in (0, 1)]
    others = [
        taylor(4, 1.0),
        taylor(3, 4.0),
        chebyshev_interpolant(3, 1.0),
        chebyshev_series(5, 2.0),
    ]
    wild = [Fraction(c, 7) for c in (9, 5, -4, 3, 2, -1)]
    rest = [(p.coefficients, p.logit_bound) for p in others]
    return (*table, *rest, (tuple(wild), 2.0), (tuple(wild[:3]), 0.5))


def enclosure(factor: Fraction) -> Finding:
    """Return whether [lower, factor * upper] of the package meets the second prover's interval."""
    polynomials = _polynomials()
    widest = 0.0
    for (p, B), (low, high, _) in zip(polynomials, second_proofs(polynomials), strict=True):
        lower, upper = relative_error(p, B)
        upper = float(factor) * upper
        if upper < low or lower > high:
            return refuted(
                f"degree {len(p) - 1}, B = {B:g}: [{lower:.12g}, {upper:.12g}] and "
                f"[{low:.12g}, {high:.12g}] have no number in common"
            )
        widest = max(widest, (max(upper, high) - min(lower, low)) / low)
    if widest > 1e-9:
        return undecided(f"the two intervals are up to {widest:.1e} wide, relatively")
    return holds(f"{len(polynomials)} polynomials to degree 21; together {widest:.1e} wide")


def degrees(raised: int) -> Finding:
    """Return whether the second prover confirms that `raised` below each least degree fails.

    The error of the best polynomial of degree g - 1 alternates at g + 1 points; by the classical
    bound of de la Vallee Poussin no polynomial of that degree is better than the least of them.
    """
    polynomials = _polynomials()
    proofs = second_proofs(polynomials)[: 2 * len(MINIMAL_DEGREES)]
    shown = []
    for i, B in enumerate(MINIMAL_DEGREES):
        degree = minimal_degree(B, _EPS).degree
        (_, upper, same), (_, _, below) = proofs[2 * i : 2 * i + 2]
        level = below if raised else same
        if level <= _EPS:
            return refuted(
                f"B = {B:g}: degree {degree - raised} has a least error of {level:.6g} <= {_EPS:g}"
            )
        if not upper <= _EPS:
            return refuted(f"B = {B:g}: degree {degree} has an error of {upper:.6g} > {_EPS:g}")
        shown.append(f"{degree}: {upper:.3g} <= 0.01 < {level:.3g}")
    return holds("; ".join(shown))


def scaled_ratio(power: int) -> Finding:
    """Return whether p (1 - u^2)^-power keeps |w/w~ - 1| <= u, p = w (1 + e), |e| <= u < 1.

    First for all u and e, by factors whose signs are plain; then the float coefficients that
    `ExpPolynomial.scaled` returns, and the weights that the exact ones give at both ends.
    """
    import sympy as sp

    u, e = sp.symbols("u e", real=True)
    quotient = (1 - u**2) ** power / (1 + e)
    over = sp.factor(u - (quotient - 1)), (1 + u) * (u + e) / (1 + e)
    under = sp.factor((quotient - 1) + u), (1 - u) * (u - e) / (1 + e)
    if any(sp.simplify(found - wanted) != 0 for found, wanted in (over, under)):
        worst = quotient.subs({u: sp.Rational(1, 10), e: sp.Rational(-1, 10)}) - 1
        return refuted(f"u = 0.1, e = -0.1: w/w~ - 1 = {worst} = {float(worst):.4f} > u")
    for B, row in MINIMAL_DEGREES.items():
        p = minimax(row[1], B)
        factor = 1 - Fraction(p.upper) ** 2
        exact = [c / factor for c in p.coefficients]
        if any(
            abs(Fraction(float(s)) - c) > abs(c) / 2**53
            for s, c in zip(p.scaled(), exact, strict=True)
        ):
            return refuted(f"B = {B:g}: a float coefficient is not the nearest one")
        if not _scaled_within(exact, p.upper, B):
            return undecided(f"B = {B:g}: an end point")
    return holds("for all 0 <= u < 1, |e| <= u; and the float coefficients of six polynomials")


def _scaled_within(exact: list[Fraction], upper: float, B: float) -> bool:
    with precision(300):
        for x in (Fraction(-B), Fraction(B), Fraction(0)):
            value = sum(c * x**k for k, c in enumerate(exact))
            if not abs(ball(x).exp() / ball(value) - 1) <= ball(upper):
                return False
    return True
