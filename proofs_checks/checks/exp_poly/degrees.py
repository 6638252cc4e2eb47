"""Checks on degrees: the asymptotic formulas of Aggarwal and Alman, and our least degrees.

d(f; B, delta) is the least degree of a polynomial within delta of f on [0, B]. Shifted to
[-B/2, B/2] the errors for exp(x) are exp(B/2) times, those for exp(-x) exp(-B/2) times those of
exp there, which `uniform` encloses.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flint

from proofs_checks.checks.exp_poly.uniform import least_uniform_error_below, series_tail
from proofs_checks.claim import Finding, holds, refuted, undecided
from subquad.exp_poly import minimal_degree
from subquad.exp_poly.balls import ball, precision

_BITS = 400
_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_DIGITS = (1, 2, 4, 8, 16)

# Rows are B, columns are eps = 1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8.
EPSILONS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
MINIMAL_DEGREES: dict[float, tuple[int, ...]] = {
    0.5: (1, 2, 3, 4, 5, 7),
    1.0: (2, 3, 4, 5, 7, 9),
    2.0: (3, 5, 6, 7, 9, 11),
    4.0: (6, 7, 9, 10, 13, 15),
    8.0: (10, 12, 14, 16, 19, 22),
    16.0: (18, 21, 24, 26, 30, 33),
}


def least_degrees(half_width: float, target: flint.arb) -> tuple[int, int]:
    """Return (low, high): the least degree with uniform error < target on +-half_width is between.

    Every degree below `low` is proved too low; `high` is proved to suffice.
    """

    def first(error: Callable[[int, float], flint.arb]) -> int:
        bad, good = -1, 1
        while not error(good, half_width) < target:
            bad, good = good, 2 * good
        while good - bad > 1:
            middle = (bad + good) // 2
            bad, good = (bad, middle) if error(middle, half_width) < target else (middle, good)
        return good

    return first(least_uniform_error_below), first(series_tail)


def _formula(sign: int, B: float, digits: float, shifted: bool) -> float:
    """Return max{lead, L / log(L/B)}, L = log(1/delta), with e + L/B in the log where `shifted`.

    lead is B for exp(x) and sqrt(B L) for exp(-x). Without the shift the quotient is left out
    where L <= B, where its denominator is not positive.
    """
    size = digits * math.log(10)
    lead = B if sign > 0 else math.sqrt(B * size)
    if shifted:
        return max(lead, size / math.log(math.e + size / B))
    return max(lead, size / math.log(size / B)) if size > B else lead


def formula_range(sign: int, low: float, high: float, shifted: bool = True) -> Finding:
    """Return whether least degree / formula is in [low, high] on the grid, for exp(sign x)."""
    ratios: list[float] = []
    open_cells = 0
    with precision(_BITS):
        for B in _BOUNDS:
            for digits in _DIGITS:
                target = ball(10) ** -digits * (ball(-sign * B / 2)).exp()
                least, enough = least_degrees(B / 2, target)
                formula = _formula(sign, B, digits, shifted)
                if enough / formula < low or least / formula > high:
                    return refuted(
                        f"B = {B:g}, delta = 1e-{digits}: least degree {least}..{enough}, "
                        f"formula {formula:.1f}, ratio not in [{low:g}, {high:g}]"
                    )
                open_cells += least / formula < low or enough / formula > high
                ratios += [least / formula, enough / formula]
    if open_cells:
        return undecided(f"{open_cells} cells of the grid are not narrow enough")
    return holds(
        f"35 cells, B = 1..64, delta = 1e-1..1e-16: ratio {min(ratios):.2f} to {max(ratios):.2f}"
    )


def relative_from_uniform(sign: int) -> Finding:
    """Return whether the uniform degree at eps exp(sign B) on +-B is at least the relative one."""
    shown = []
    open_cells = 0
    with precision(_BITS):
        for B in MINIMAL_DEGREES:
            for eps in EPSILONS:
                relative = minimal_degree(B, eps).degree
                low, high = least_degrees(B, ball(eps) * ball(sign * B).exp())
                if high < relative:
                    return refuted(
                        f"B = {B:g}, eps = {eps:g}: uniform error eps exp({sign:+d} B) takes only "
                        f"degree {high}, the relative error eps {relative}"
                    )
                open_cells += low < relative
                if eps == 1e-2:
                    shown.append(f"{low} for {relative}")
    if open_cells:
        return undecided(f"{open_cells} cells of the grid are not narrow enough")
    return holds("eps = 1e-2, B = 0.5..16, by the detour for directly: " + ", ".join(shown))


def degree_table(lowered: int) -> Finding:
    """Return whether the table, with B = 16 lowered by `lowered`, holds the least degrees."""
    for B, row in MINIMAL_DEGREES.items():
        for eps, printed in zip(EPSILONS, row, strict=True):
            claimed = printed - lowered * (B == 16.0)
            proof = minimal_degree(B, eps)
            if claimed != proof.degree:
                return refuted(
                    f"B = {B:g}, eps = {eps:g}: degree {proof.degree}, not {claimed}; degree "
                    f"{proof.degree - 1} has an error of at least {proof.lower:.4g}"
                )
            if not (proof.lower > eps >= proof.upper):
                return undecided(f"B = {B:g}, eps = {eps:g}: {proof}")
    at_hundredth = "/".join(str(row[1]) for row in MINIMAL_DEGREES.values())
    return holds(f"36 cells, each with both bounds; eps = 1e-2: {at_hundredth}")
