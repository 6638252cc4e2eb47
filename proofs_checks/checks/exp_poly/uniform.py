"""Checks on the uniform error of polynomials near exp: Bernstein's bounds and Chebyshev's series.

The least uniform error E_g of degree g on [-B, B] is enclosed without finding the best polynomial:
from below by a functional of norm 1 that kills every polynomial of degree g, from above by the cut
Chebyshev series. The relative errors are those of `subquad.exp_poly.minimax_error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import factorial
from typing import Any

import flint

from proofs_checks.claim import Finding, holds, refuted, undecided
from subquad.exp_poly import chebyshev_interpolant, chebyshev_series, minimax_error
from subquad.exp_poly.balls import ball, precision

_BITS = 700  # the least of the errors here is 2^-493
_BOUNDS = (1 / 128, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_DEGREES = (*range(13), 16, 20, 25, 30, 40)

# Keys are (degree, B); rounded up in the fourth digit.
SMALL_DEGREE_ERRORS = {
    (2, 0.01): Fraction("4.178e-8"),
    (2, 0.1): Fraction("4.275e-5"),
    (2, 1.0): Fraction("5.647e-2"),
    (2, 4.0): Fraction("15.19"),
    (3, 0.01): Fraction("5.219e-11"),
    (3, 0.1): Fraction("5.317e-7"),
    (3, 1.0): Fraction("6.657e-3"),
    (3, 4.0): Fraction("5.685"),
}


def leading_size(degree: int, B: float) -> flint.arb:
    """Return X = 2 (B/2)^n / n!, n = degree + 1: the size of the next Chebyshev term of exp."""
    n = degree + 1
    return 2 * (ball(B) / 2) ** n / factorial(n)


def least_uniform_error_below(degree: int, B: float) -> flint.arb:
    """Return a lower bound of the least uniform error of degree `degree` on [-B, B].

    L(f) = (1/n) sum'' (-1)^j f(B cos(j pi / n)), n = degree + 1, end terms halved, has norm 1 and
    is 0 on every polynomial of lesser degree than n; so |L(exp)| = |L(exp - p)| <= sup |exp - p|.
    """
    n = degree + 1
    total = flint.arb(0)
    for j in range(n + 1):
        term = (ball(B) * flint.arb.cos_pi_fmpq(flint.fmpq(j, n))).exp()
        total += (-1) ** j * (term / 2 if j in (0, n) else term)
    return abs(total) / n


def series_tail(degree: int, B: float, extra: int = 60) -> flint.arb:
    """Return 2 sum_{k > degree} I_k(B), an upper bound of the least uniform error.

    The terms past `extra` are bounded by claim `bessel-bound`, which more than halves from each to
    the next once k > B.
    """
    last = max(degree, int(B)) + extra
    terms = sum((ball(B).bessel_i(k) for k in range(degree + 1, last + 1)), flint.arb(0))
    rest = 2 * _bessel_bound(last + 1, B, 1)
    return 2 * terms + flint.arb(rest, rest)


def uniform_error(coefficients: Sequence[Fraction], B: float) -> tuple[flint.arb, flint.arb]:
    """Return balls (lower, upper) around sup |p - exp| over [-B, B], for B up to about 4.

    exp is replaced by its Taylor polynomial of degree 48, whose remainder is added; what is left
    is a polynomial, with its largest value at an end or at a root of its derivative.
    """
    order = 48
    full = list(coefficients) + [Fraction(0)] * (order + 1 - len(coefficients))
    rest = [c - Fraction(1, factorial(k)) for k, c in enumerate(full)]
    q = flint.fmpq_poly([flint.fmpq(c.numerator, c.denominator) for c in rest])
    p = flint.arb_poly(q)
    roots: Any = q.derivative().numer().complex_roots()  # (root, multiplicity); imag exactly 0
    inner = [root.real for root, _ in roots if root.imag == 0]
    points = [ball(-B), ball(B), *(x for x in inner if -B < x and x < B)]
    remainder = ball(B) ** (order + 1) / factorial(order + 1) * ball(B).exp()
    largest = flint.arb(0)
    for x in points:
        largest = largest.max(abs(p(x)))
    return largest - remainder, largest + remainder


def _bessel_bound(k: int, B: float, offset: int) -> flint.arb:
    return (ball(B) / 2) ** k / factorial(k) * (ball(B) ** 2 / (4 * (k + offset))).exp()


def bernstein(factor: Fraction) -> Finding:
    """Return whether e^-B X <= E_g <= factor e^B X on the grid."""
    tightest = 0.0
    with precision(_BITS):
        for B in _BOUNDS:
            for g in _DEGREES:
                X = leading_size(g, B)
                low, high = (-ball(B)).exp() * X, ball(factor) * ball(B).exp() * X
                below, above = least_uniform_error_below(g, B), series_tail(g, B)
                if below > high:
                    return refuted(
                        f"B = {B:g}, degree {g}: the least error exceeds {float(below):.6g}, "
                        f"the bound is {float(high):.6g}"
                    )
                if not (low <= below and above <= high):
                    return undecided(f"B = {B:g}, degree {g}: the enclosures do not decide")
                tightest = max(tightest, float(above / high))
    return holds(f"{len(_BOUNDS)} B to 16, degrees to 40; E_g reaches {tightest:.4f} of the bound")


def relative_size(factor: Fraction) -> Finding:
    """Return whether X exp(-B^2/(3g + 3)) <= minimax relative error <= factor X on the grid."""
    ratios = []
    with precision(_BITS):
        for B in _BOUNDS:
            for g in _DEGREES:
                X = leading_size(g, B)
                low = X * (-(ball(B) ** 2) / (3 * (g + 1))).exp()
                lower, upper = (ball(e) for e in minimax_error(g, B))
                if lower > ball(factor) * X or upper < low:
                    return refuted(
                        f"B = {B:g}, degree {g}: the least relative error is {float(lower):.9g}, "
                        f"not in [{float(low):.9g}, {float(ball(factor) * X):.9g}]"
                    )
                if not (lower >= low and upper <= ball(factor) * X):
                    return undecided(f"B = {B:g}, degree {g}: the enclosures do not decide")
                ratios.append(float(upper / X))
    return holds(f"{len(ratios)} pairs; error / X from {min(ratios):.2g} to {max(ratios):.6f}")


def bessel(offset: int) -> Finding:
    """Return whether (B/2)^k/k! <= I_k(B) <= (B/2)^k/k! exp(B^2/(4 (k + offset)))."""
    with precision(_BITS):
        for B in _BOUNDS:
            for k in range(61):
                value, bound = ball(B).bessel_i(k), _bessel_bound(k, B, offset)
                if value > bound:
                    return refuted(
                        f"I_{k}({B:g}) = {float(value):.12g} > the bound {float(bound):.12g}"
                    )
                if not (value <= bound and value >= leading_size(k - 1, B) / 2):
                    return undecided(f"I_{k}({B:g}): the balls overlap")
    return holds("k = 0..60, B from 1/128 to 16")


def series(factor: Fraction) -> Finding:
    """Return whether the cut series errs by at most factor * 2 sum_{k>g} I_k(B), attained at B."""
    slack = flint.arb(1) / 10**9  # the coefficients of the package are rounded, far below this
    with precision(_BITS):
        for B in (0.5, 1.0, 2.0, 4.0):
            for g in (1, 2, 3, 5, 8):
                lower, upper = uniform_error(chebyshev_series(g, B).coefficients, B)
                bound = ball(factor) * series_tail(g, B)
                if lower > bound * (1 + slack):
                    return refuted(
                        f"B = {B:g}, degree {g}: error {float(lower):.9g} > {float(bound):.9g}"
                    )
                if not (upper <= bound * (1 + slack) and lower >= bound * (1 - slack)):
                    return undecided(f"B = {B:g}, degree {g}: the enclosures do not decide")
    return holds("B = 0.5, 1, 2, 4 and degrees 1, 2, 3, 5, 8; equal to the tail to 1e-9")


def small_degrees(factor: Fraction) -> Finding:
    """Return whether the interpolants of degree 2 and 3 have the tabulated errors times factor."""
    shown = []
    with precision(_BITS):
        for (g, B), printed in SMALL_DEGREE_ERRORS.items():
            lower, upper = uniform_error(chebyshev_interpolant(g, B).coefficients, B)
            limit = ball(factor) * ball(printed)
            if lower > limit:
                return refuted(f"degree {g}, B = {B:g}: {float(lower):.5g} > {float(limit):.5g}")
            if not (upper <= limit and lower >= limit * flint.arb(995) / 1000):
                return undecided(f"degree {g}, B = {B:g}: {float(upper):.5g}, {float(limit):.5g}")
            shown.append(f"{float(upper / leading_size(g, B)):.3f}")
    return holds("errors over X: " + ", ".join(shown))
