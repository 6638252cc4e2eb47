"""Checks on the softmax as an analytic function of its inverse temperature, and on quadrature.

D(z) = sum_k exp(z A_k), A_k in [0, B], x = Re z, y = Im z. Turned by exp(-i y B/2) its terms have
angles y (A_k - B/2), at most |y| B/2, so |D(z)| >= cos(B y/2) D(x) for |y| <= pi/B. Hence f and f'
of `bounds` are analytic for |Im z| < pi/B.

For |y| <= pi/(2 B) the cosine is at least 1/sqrt(2), so |p| <= sqrt(2), |p'| <= B (sqrt(2) + 2) and
|f'| <= M = (4 + 4 sqrt(2)) n d B. On a panel of half width 1/(2P), P >= B panels, that strip holds
the Bernstein ellipse of half axis pi, rho = pi + sqrt(pi^2 + 1); the classical bound of k Gauss
nodes, (64/15) M rho^(-2k) / (1 - rho^-2) times the half width, sums to half of that over [0, 1].
"""

from __future__ import annotations

import math
from fractions import Fraction

import flint
import numpy as np

from proofs_checks.claim import Finding, holds, refuted, undecided
from subquad.exp_poly.balls import ball, precision

_BITS = 300


def zero_free(stretch: Fraction) -> Finding:
    """Return whether D(x + iy) is not 0 for |y| < stretch pi/B, with |D| >= cos(By/2) D(x)."""
    rng = np.random.default_rng(5)
    rows = [[Fraction(0), Fraction(1)], [Fraction(0), Fraction(1, 3), Fraction(1)]]
    rows += [[Fraction(int(t), 64) for t in rng.integers(0, 65, n)] for n in (3, 5, 8, 13)]
    angles = [t for t in (0, Fraction(1, 4), Fraction(1, 2), Fraction(99, 100), 1) if t < stretch]
    least = math.inf
    with precision(_BITS):
        for row in rows:
            for t in angles:  # y = t pi / B; B = 1
                for x in (-4, 0, 1, 4):
                    real, turned = flint.arb(0), flint.acb(0)
                    for a in row:
                        angle = flint.fmpq(*(t * a).as_integer_ratio())
                        size = (x * ball(a)).exp()
                        parts = flint.arb.cos_pi_fmpq(angle), flint.arb.sin_pi_fmpq(angle)
                        real, turned = real + size, turned + size * flint.acb(*parts)
                    if turned == 0:  # exact: a ball of radius zero
                        return refuted(f"A = {[str(a) for a in row]}, B = 1: D(i pi) = 0")
                    floor = flint.arb.cos_pi_fmpq(flint.fmpq(*Fraction(t, 2).as_integer_ratio()))
                    # It is attained at A = (0, B), x = 0, where balls cannot tell.
                    if not abs(turned) >= floor * real * (1 - flint.arb(2) ** -200):
                        return undecided(f"A = {row}, y = {t} pi")
                    least = min(least, float(abs(turned) / real))
    return holds(f"{len(rows)} A, {len(angles)} y, 4 x; the least |D(z)|/D(x) is {least:.4f}")


def f_and_slope(A: list[list[Fraction]], V: np.ndarray, x: flint.arb) -> tuple[flint.arb, ...]:
    """Return f(x) and f'(x) as balls."""
    value = slope = flint.arb(0)
    for row in A:
        weights = [(x * ball(a)).exp() for a in row]
        total = sum(weights, flint.arb(0))
        mean = sum((w * ball(a) for w, a in zip(weights, row, strict=True)), flint.arb(0)) / total
        for column in V.T:
            on = [(w, ball(a)) for w, a, v in zip(weights, row, column, strict=True) if v]
            p = sum((w for w, _ in on), flint.arb(0)) / total
            value += p**2
            slope += 2 * p * (sum((w * a for w, a in on), flint.arb(0)) / total - p * mean)
    return value, slope


def composite_gauss(A: list[list[Fraction]], V: np.ndarray, nodes: int, panels: int) -> flint.arb:
    """Return the integral of f' over [0, 1] by `nodes` Gauss-Legendre nodes on each panel."""
    total = flint.arb(0)
    for i in range(nodes):
        t, weight = flint.arb.legendre_p_root(nodes, i, weight=True)
        for j in range(panels):
            total += weight * f_and_slope(A, V, (2 * j + 1 + t) / (2 * panels))[1]
    return total / (2 * panels)


def quadrature(panels: int | None) -> Finding:
    """Return whether k nodes on B panels (or on `panels`) recover f(1) - f(0) within the bound."""
    rng = np.random.default_rng(11)
    n, d, B, shown = 3, 2, 8, []
    A = [[Fraction(int(t), 8) for t in rng.integers(0, 8 * B + 1, n)] for _ in range(n)]
    A[0] = [Fraction(B), Fraction(0), Fraction(B, 2)]
    V = np.array([[1, 0], [0, 1], [1, 1]])
    with precision(_BITS):
        rho = flint.arb.pi() + (flint.arb.pi() ** 2 + 1).sqrt()
        M = (4 + 4 * flint.arb(2).sqrt()) * n * d * B
        exact = f_and_slope(A, V, flint.arb(1))[0] - f_and_slope(A, V, flint.arb(0))[0]
        for k in (1, 2, 4, 6, 8, 12):
            bound = flint.arb(32) / 15 * M * rho ** (-2 * k) / (1 - rho**-2)
            error = abs(composite_gauss(A, V, k, panels or B) - exact)
            if error > bound:
                return refuted(
                    f"B = {B}, {panels} panel(s), {k} nodes: error {float(error):.2e} > "
                    f"{float(bound):.2e}"
                )
            if not error <= bound:
                return undecided(f"{k} nodes: error {float(error):.2e}")
            shown.append(f"{k}: {float(error):.1e}")
    return holds(f"B = {B}, errors by nodes on {B} panels: " + ", ".join(shown))
