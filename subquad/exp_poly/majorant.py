"""A polynomial p near exp and its majorant m >= |exp - p| on [-B, B], chosen together by data.

For a row with logits x_j and weights w_j >= 0 the additive error of p is at most sum_j w_j m(x_j),
which is linear in the coefficients of m: the row's sums by degree, sum_j w_j x_j^k, are all that
it takes. So p and m come from one linear program, least worst bound over the rows given, and are
then proved, whatever the program did: m is raised by a constant until it is a majorant (claim
`fitted-majorant`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.polynomial import chebyshev, polynomial

from subquad.exp_poly.arguments import checked_logit_bound
from subquad.exp_poly.balls import ball, float_above, float_below, precision
from subquad.exp_poly.enclosure import errors_at_extrema, real_roots, slope_of

POINTS, DENSE = 96, 2001
ROUNDS = 4
"""Programs solved at most: each adds the points where the majorant before fell short."""
FLAT = 2.0**-44
"""Residuals of exp below this, next to exp(B), are rounding: nothing to fit."""
_BITS = 256


@dataclass(frozen=True)
class FittedPair:
    """Coefficients of p and of m, degree 0 first, taken at their exact values as floats.

    Attributes
    ----------
    polynomial, majorant : array (degree + 1,), float64
        Proved: majorant(x) >= |exp(x) - polynomial(x)| on [-logit_bound, logit_bound].
    logit_bound : float
        B.
    lift : float
        The constant that the proof added to the majorant.
    """

    polynomial: np.ndarray
    majorant: np.ndarray
    logit_bound: float
    lift: float

    @property
    def degree(self) -> int:
        """The degree of both."""
        return self.polynomial.size - 1


def fit_pair(
    degree: int, logit_bound: float, sums: np.ndarray, *, rounds: int = ROUNDS
) -> FittedPair:
    """Return the pair of least worst bound over rows with the given sums, proved.

    Parameters
    ----------
    degree : int
        Even; an odd degree is no error, its majorant is merely no better than the degree before.
    logit_bound : float
        B, in [0, 64].
    sums : array (rows, degree + 1)
        sum_j w_j x_j^k of each row, in any unit of w; they steer the choice, and no proof
        rests on them.
    rounds : int, optional
        Linear programs solved at most; one is enough to predict what more would reach.

    Notes
    -----
    5 to 20 ms. The program runs in the Chebyshev basis of x/B, in units of the largest residual
    of the Chebyshev interpolant: its tolerances are then small next to what is sought.
    """
    B = checked_logit_bound(logit_bound)
    nodes = chebyshev.chebpts1(degree + 1)
    first = chebyshev.chebfit(nodes, np.exp(B * nodes), degree)
    t = np.cos(np.pi * (np.arange(DENSE) + 0.5) / DENSE)
    residual = np.exp(B * t) - chebyshev.chebval(t, first)
    unit = float(np.max(np.abs(residual)))
    p, m = first, np.zeros(degree + 1)
    if unit > FLAT * math.exp(B):
        m[0] = unit
        moved = _exchanged(t, residual / unit, _averages(degree, B, sums, first), rounds)
        if moved is not None:
            p, m = first + unit * moved[0], unit * moved[1]
    powers = (B if B > 0.0 else 1.0) ** np.arange(degree + 1)
    return proved_pair(_monomial(p, degree) / powers, _monomial(m, degree) / powers, B)


def proved_pair(p: np.ndarray, m: np.ndarray, logit_bound: float) -> FittedPair:
    """Return p with m raised by a constant, proved to be a majorant of |exp - p| on [-B, B].

    The constant is first what a dense grid asks for, which the proof then confirms or raises.
    """
    x = np.linspace(-logit_bound, logit_bound, DENSE)
    short = np.abs(np.exp(x) - polynomial.polyval(x, p)) - polynomial.polyval(x, m)
    noise = 2.0**-49 * math.exp(logit_bound) * (p.size + 4)
    first = max(float(np.max(short)), 0.0) * (1.0 + 2.0**-8) + noise
    lifted = m.copy()
    lifted[0] = np.nextafter(m[0] + first, np.inf)
    lift = shortfall(p, lifted, logit_bound)
    if lift > 0.0:
        lifted[0] = np.nextafter(lifted[0] + lift, np.inf)
    return FittedPair(p, lifted, logit_bound, float(lifted[0] - m[0]))


def shortfall(p: np.ndarray, m: np.ndarray, logit_bound: float) -> float:
    """Return s >= 0 with, proved, |exp(x) - p(x)| <= m(x) + s on [-B, B]; 0 for a majorant.

    Where a = p + m has a(x) exp(-x) - 1 >= -e, exp - p is at most m + e exp(B), and where
    b = p - m has b(x) exp(-x) - 1 <= e, p - exp is. The extrema of both are the real roots of
    polynomials, a' - a and b' - b, and the end points (`enclosure`). Claim `fitted-majorant`.
    """
    p_exact, m_exact = ([Fraction(float(c)) for c in x] for x in (p, m))
    pairs = list(zip(p_exact, m_exact, strict=True))
    low, _ = relative_range(tuple(a + b for a, b in pairs), logit_bound)
    _, high = relative_range(tuple(a - b for a, b in pairs), logit_bound)
    worst = max(0.0, -low, high)
    if worst == 0.0:
        return 0.0
    with precision(_BITS):
        return float_above(ball(worst) * ball(logit_bound).exp())


def relative_range(coefficients: tuple[Fraction, ...], logit_bound: float) -> tuple[float, float]:
    """Return (low, high) with, proved, low <= q(x) exp(-x) - 1 <= high on [-B, B].

    `coefficients` are those of q, degree 0 first, exact.
    """
    with precision(_BITS):
        roots = real_roots(slope_of(coefficients), logit_bound) if logit_bound > 0.0 else []
        errors = [error for error, _ in errors_at_extrema(coefficients, logit_bound, roots)]
        return min(map(float_below, errors)), max(map(float_above, errors))


def _averages(degree: int, B: float, sums: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return sum_j w_j T_k(x_j / B) over sum_j w_j exp(x_j) of the rows, (rows, degree + 1)."""
    usable = sums[np.isfinite(sums).all(axis=1)]
    scaled = usable / B ** np.arange(degree + 1)
    basis = np.stack([_monomial(row, degree) for row in np.eye(degree + 1)])
    series = scaled @ basis.T
    normaliser = np.maximum(series @ first, scaled[:, 0] / 2.0)  # near enough to steer by
    good = np.isfinite(series).all(axis=1) & (normaliser > 0.0)
    return series[good] / normaliser[good, None]


def _exchanged(
    t: np.ndarray, residual: np.ndarray, averages: np.ndarray, rounds: int
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Return Chebyshev coefficients of (p, m): least max averages @ m, m >= |residual - p| at t.

    Solved on a few of the points; those where m falls short by most are added, a few times.
    """
    if averages.shape[0] == 0:
        return None
    used = np.arange(0, t.size, max(1, t.size // POINTS))
    vander = chebyshev.chebvander(t, averages.shape[1] - 1)
    found = None
    for _ in range(rounds):
        new = _program(vander[used], residual[used], averages)
        if new is None:
            return found
        p, m, worst = found = new
        short = np.abs(residual - vander @ p) - vander @ m
        if not short.max() > 2.0**-6 * worst:
            break
        peaks = np.flatnonzero((short[1:-1] >= short[:-2]) & (short[1:-1] >= short[2:])) + 1
        used = np.union1d(used, peaks[short[peaks] > 0.0])
    return found


def _program(
    A: np.ndarray, residual: np.ndarray, averages: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Return (p, m, least worst bound) of the linear program, None where it is not solved."""
    from scipy.optimize import linprog  # a third of a second to import

    (points, size), rows = A.shape, averages.shape[0]
    none, worst = np.zeros((points, 1)), np.ones((rows, 1))
    of_averages = [np.zeros_like(averages), averages, -worst]
    constraints = np.block([[-A, -A, none], [A, -A, none], of_averages])
    limits = np.concatenate([-residual, residual, np.zeros(rows)])
    cost = np.zeros(2 * size + 1)
    cost[-1] = 1.0
    found = linprog(cost, A_ub=constraints, b_ub=limits, bounds=(None, None), method="highs-ds")
    if found.x is None or not np.isfinite(found.x).all():
        return None
    return found.x[:size], found.x[size : 2 * size], float(found.x[-1])


def _monomial(series: np.ndarray, degree: int) -> np.ndarray:
    """Return the coefficients in powers of t of a Chebyshev series, (degree + 1,)."""
    powers = chebyshev.cheb2poly(series)
    return np.concatenate([powers, np.zeros(degree + 1 - powers.size)])
