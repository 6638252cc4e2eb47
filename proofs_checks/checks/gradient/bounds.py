"""Checks on the function lambda -> |softmax(lambda A) V|_F^2 of Alman and Song's lower bound.

A is n x n with entries in [0, B], V n x d with entries 0 or 1, f(lambda) = sum p_il^2 over the rows
i and columns l, p_il the softmax mass of S_l = {k : V_kl = 1} in row i.

|f'| <= (8/27) n d B. With p = p_il and a, b the means of A on S_l and off it, p' = Cov(A, 1_S) =
p (1 - p)(a - b), so |(p^2)'| <= 2 B p^2 (1 - p), which is at most 8 B / 27, at p = 2/3. It is
attained at lambda = 0 where two thirds of each row are B, and V marks these, in every column.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from proofs_checks.claim import Finding, holds, refuted, undecided

SHARP = Fraction(8, 27)


def slope_at_zero(A: list[list[Fraction]], V: list[list[int]]) -> Fraction:
    """Return f'(0), exactly: there every softmax row is uniform."""
    n = len(V)
    total = Fraction(0)
    for row in A:
        mean = Fraction(sum(row), len(row))
        for column in zip(*V, strict=True):
            p = Fraction(sum(column), n)
            on_set = sum((x for x, v in zip(row, column, strict=True) if v), Fraction(0))
            total += 2 * p * (on_set / n - p * mean)
    return total


def two_level(n: int, marked: int, d: int, low: int = 0) -> Fraction:
    """Return f'(0) with B = 1: `marked` entries of each row 1, the others `low`; V marks them."""
    row = [Fraction(1)] * marked + [Fraction(low)] * (n - marked)
    return slope_at_zero([row] * n, [[int(k < marked)] * d for k in range(n)])


def covariance_steps() -> bool:
    """Return whether sympy proves p' = Cov = p(1 - p)(a - b) and 8/27 - 2p^2(1 - p) >= 0."""
    import sympy as sp

    x, A = sp.Symbol("x"), sp.symbols("A:3", positive=True)
    weights = [sp.exp(x * a) for a in A]
    mass = (weights[0] + weights[1]) / sum(weights)
    f = [w / sum(weights) for w in weights]
    on, off = f[0] + f[1], f[2]
    a = (f[0] * A[0] + f[1] * A[1]) / on
    slope = sp.simplify(sp.diff(mass, x) - on * off * (a - A[2]))
    p = sp.Symbol("p", nonnegative=True)
    square = sp.Rational(2, 27) * (3 * p - 2) ** 2 * (3 * p + 1)
    maximum = sp.expand(sp.Rational(8, 27) - 2 * p**2 * (1 - p) - square)
    return slope == 0 and maximum == 0


def derivative_bound(constant: Fraction, low: int = 0) -> Finding:
    """Return whether |f'| <= constant n d B for entries in [low B, B]; low = 0 is the theorem's."""
    n, d = 3, 2
    attained = two_level(n, 2, d, low)
    if attained > constant * n * d:
        return refuted(
            f"n = {n}, d = {d}, B = 1, 2/3 of each row B and marked, the others {low}: "
            f"f'(0) = {attained} > {constant * n * d}"
        )
    if not covariance_steps() or constant < SHARP * (1 - low):
        return undecided("the steps of the proof are not all proved")
    return holds(f"p' = p(1-p)(a-b); 2p^2(1-p) <= 8/27 <= {constant}; attained {attained} / 6")


def printed_constant(dimensions: Iterable[int]) -> Finding:
    """Return whether |f'| <= 8 B n for these d, at least half the entries of each row being B."""
    worst = max(dimensions)
    if SHARP * worst <= 8:
        proved = covariance_steps()
        return holds(f"8 d/27 <= 8 to d = {worst}") if proved else undecided("the sharp bound")
    shown = [f"d = 28, n = 3, B = 1: f'(0) = {two_level(3, 2, 28)} > 24"] if worst >= 28 else []
    shown += [f"d = 33, n = 4, B = 1, half the entries B: f'(0) = {two_level(4, 2, 33)} > 32"]
    return refuted("; ".join(shown))


def left_riemann(constant: Fraction) -> Finding:
    """Return whether the left Riemann sum of m points on [0, 1] errs by <= constant b/m, |f'| <= b.

    On a cell of width h, |f(x) - f(start)| <= b (x - start), whose integral is b h^2 / 2; m cells
    of width 1/m sum to b/(2m). The function b x attains it.
    """
    import sympy as sp

    b, x = sp.symbols("b x", positive=True)
    m, k = sp.symbols("m k", positive=True, integer=True)
    cells = m * sp.integrate(b * x, (x, 0, 1 / m))
    attained = sp.integrate(b * x, (x, 0, 1)) - sp.summation(b * k / m, (k, 0, m - 1)) / m
    if sp.simplify(cells - b / (2 * m)) != 0 or sp.simplify(attained - cells) != 0:
        return undecided("sympy does not reduce the two sums to b/(2m)")
    if constant < Fraction(1, 2):
        return refuted(f"f = b x errs by b/(2m) > {constant} b/m")
    return holds(f"all cells sum to {cells}, which f = b x attains")


def sample_count(power: int, log_power: int) -> Finding:
    """Return whether b/m -> 0, b = n B^2, B = log^2 n and m = n^power log^log_power n points."""
    import sympy as sp

    n = sp.Symbol("n", positive=True)
    error = sp.simplify(n * sp.log(n) ** 4 / (n**power * sp.log(n) ** log_power))
    limit = sp.limit(error, n, sp.oo)
    shown = f"b/m = {error} -> {limit}"
    return holds(shown) if limit == 0 else refuted(shown)
