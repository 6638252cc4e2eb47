"""Checks on values: what a polynomial near exp is at 0, and where it can be zero or negative."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from proofs_checks.checks.exp_poly.uniform import leading_size
from proofs_checks.claim import Finding, holds, refuted, undecided
from subquad.exp_poly import ExpPolynomial, chebyshev_interpolant, minimal_degree, minimax, taylor
from subquad.exp_poly.balls import ball, precision
from subquad.features import block_sizes, monomials, multinomials

_BITS = 700


def value_at_zero(step: int) -> Finding:
    """Return whether the interpolants of degree 0, step, 2 step, ... are 1 at 0, exactly."""
    for g in range(0, 21, step):
        for B in (0.01, 0.1, 1.0, 4.0, 16.0):
            if chebyshev_interpolant(g, B).coefficients[0] != 1:
                cubic = [float(chebyshev_interpolant(3, b).coefficients[0] - 1) for b in (1.0, 4.0)]
                return refuted(
                    f"p(0) - 1 is {cubic[0]:.4e} at degree 3, B = 1, and {cubic[1]:.4f} at B = 4"
                )
    return holds(f"degrees 0, {step}, ... 20 and B = .01 to 16")


def odd_bias(factor: Fraction) -> Finding:
    """Return whether e^-B X <= -(-1)^((g+1)/2) (p(0) - 1) <= factor e^B X, g odd."""
    shown = []
    with precision(_BITS):
        for B in (1 / 128, 0.01, 0.1, 1.0, 4.0, 16.0):
            for g in range(1, 30, 2):
                bias = chebyshev_interpolant(g, B).coefficients[0] - 1
                size = ball(-((-1) ** ((g + 1) // 2)) * bias)
                X = leading_size(g, B)
                low, high = (-ball(B)).exp() * X, ball(factor) * ball(B).exp() * X
                if size > high or size < low:
                    return refuted(
                        f"degree {g}, B = {B:g}: |p(0) - 1| = {float(size):.6g} is not in "
                        f"[{float(low):.6g}, {float(high):.6g}]"
                    )
                if not (low <= size and size <= high):
                    return undecided(f"degree {g}, B = {B:g}: the balls overlap")
                if g == 3:
                    shown.append(f"{float(bias):.2e}")
    return holds("degree 3, B = 1/128, .01, .1, 1, 4, 16: p(0) - 1 = " + ", ".join(shown))


def masked_entries(degree: int, biased: bool) -> Finding:
    """Return whether masked entries of the support-basis sum err by p(0) - 1, or, if not, by 0.

    With the large rows of Q and K set to zero the low-rank product U1 U2^T is p(S_s), and the
    approximation is p(S_s) + exp(S_L) - 1; masked entries have S_s = 0 and S_L = S, so that exp
    cancels and the error is that of U1 U2^T against 1. In rationals, with the package's features.
    """
    p = chebyshev_interpolant(degree, 1.0).coefficients
    Q = _rationals([[1, -2], [0, 0], [3, 1], [0, 0]], 7)
    K = _rationals([[0, 0], [2, 3], [-1, 2]], 5)
    weights: Any = np.concatenate(
        [p[k] * _integers(multinomials(2, k)) for k in range(len(block_sizes(2, degree)))]
    )
    small = (monomials(Q, degree) * weights) @ monomials(K, degree).T
    masked = np.array([[not (any(q) and any(k)) for k in K] for q in Q])
    wanted = p[0] - 1 if biased else Fraction(0)
    errors = {Fraction(x) - 1 for x in small[masked]}
    if errors == {wanted}:
        return holds(f"degree {degree}: {masked.sum()} masked entries err by {float(wanted):.4e}")
    return refuted(
        f"degree {degree}: masked entries err by {[f'{float(x):.4e}' for x in errors]}, not by "
        f"{float(wanted):.4e}"
    )


def taylor_roots(step: int) -> Finding:
    """Return whether the Taylor polynomials of degree 2, 2 + step, ... have no real root."""
    for g in range(2, 21, step):
        p = _sympy_poly(taylor(g, 1.0))
        if p.count_roots():
            root = float(p.real_roots()[0].evalf(8)) if g < 8 else float("nan")
            return refuted(f"degree {g} has a real root, {root:.5f}, and is negative below it")
    return holds("degrees to 20, by Sturm's theorem in rationals")


def positive_on_interval(certified: bool) -> Finding:
    """Return whether polynomials of error < 1 are positive on [-B, B]; or any, if not certified."""
    cases = [
        minimax(minimal_degree(B, eps).degree, B)
        for B in (0.5, 1.0, 2.0, 4.0, 8.0)
        for eps in (0.9, 0.1, 1e-3)
    ]
    cases += [chebyshev_interpolant(3, 1.0), taylor(3, 4.0), chebyshev_interpolant(2, 4.0)]
    cases = [p for p in cases if p.upper < 1 or not certified]
    for p in cases:
        roots = _sympy_poly(p).count_roots(-Fraction(p.logit_bound), Fraction(p.logit_bound))
        if roots:
            return refuted(
                f"{p.family}, degree {p.degree}, B = {p.logit_bound:g}, error {p.upper:.4g}: "
                f"{roots} root(s) in the interval"
            )
    return holds(f"{len(cases)} polynomials, errors to {max(p.upper for p in cases):.3f}")


def _sympy_poly(p: ExpPolynomial) -> Any:
    import sympy

    x = sympy.Symbol("x")
    return sympy.Poly([sympy.Rational(c) for c in reversed(p.coefficients)], x, domain="QQ")


def _rationals(rows: list[list[int]], denominator: int) -> Any:
    return np.array([[Fraction(x, denominator) for x in row] for row in rows], dtype=object)


def _integers(values: np.ndarray) -> Any:
    return np.array([int(v) for v in values], dtype=object)
