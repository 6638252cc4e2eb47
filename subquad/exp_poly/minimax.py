"""The polynomial of least relative error near exp, by Remez's exchange; proved, not trusted.

E. Ya. Remez (1934), for the weighted problem min_p max |p(x) exp(-x) - 1| on [-B, B]. The exchange
is unusually safe here. If the error of a polynomial p of degree g alternates at g + 2 points, it
has g + 1 zeros, and between two of them lies a root of p' - p, which has g at most: so there is
exactly one, all are real and simple, and with the end points they are the next reference. No
extremum has to be chosen or dropped.
"""

import math
from fractions import Fraction
from functools import lru_cache

import flint

from subquad.exp_poly.alternation import alternation_points
from subquad.exp_poly.arguments import checked_degree, checked_logit_bound
from subquad.exp_poly.balls import ball, dyadic, float_below, precision
from subquad.exp_poly.enclosure import enclose
from subquad.exp_poly.extrema import extrema_beside
from subquad.exp_poly.polynomial import ExpPolynomial
from subquad.exp_poly.reference import kepler_points, levelled_error

_GAP_BITS = 44  # stop once the largest error is within 2^-44 of the levelled one, relatively
_MAX_EXCHANGES = 60
_PREPARED = 24
"""Degree from which the exchange begins at points found in float64: below, that takes longer."""


def minimax(degree: int, logit_bound: float) -> ExpPolynomial:
    """Return the polynomial of least relative error on [-logit_bound, logit_bound], to 13 digits.

    Parameters
    ----------
    degree : int
        0..256.
    logit_bound : float
        B, in [0, 64].

    Returns
    -------
    ExpPolynomial
        Of family "minimax". `upper` is below 1 (as a real number; it may round to the float 1.0).

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.
    RuntimeError
        If the exchange does not converge; nothing unproved is returned.

    Notes
    -----
    Costs 0.3 ms (degree 2, B = 1) to 2 ms (degree 12, B = 8); results are kept.
    """
    return solved(checked_degree(degree), checked_logit_bound(logit_bound))[0]


def minimax_error(degree: int, logit_bound: float) -> tuple[float, float]:
    """Return floats (lower, upper) around the least relative error that degree allows, proved.

    No polynomial of that degree has a relative error below `lower` on [-logit_bound, logit_bound]
    (de la Vallee Poussin, in balls, see `reference`), and `minimax(degree, logit_bound)` has at
    most `upper` (`relative_error`). About 1e-13 apart, relatively. Arguments, errors raised and
    cost as for `minimax`.
    """
    polynomial, lower = solved(checked_degree(degree), checked_logit_bound(logit_bound))
    return lower, polynomial.upper


@lru_cache(maxsize=4096)
def solved(degree: int, B: float) -> tuple[ExpPolynomial, float]:
    """Return `minimax`, of arguments that were checked, and what no polynomial is below."""
    if B == 0:
        # Every polynomial with p(0) = 1 is best; take Taylor's, rounded, as the limit of small B.
        one = Fraction(1 << 128)
        rounded = tuple(Fraction(round(one / math.factorial(k))) / one for k in range(degree + 1))
        return ExpPolynomial(rounded, B, 0.0, 0.0, "minimax"), 0.0
    with precision(working_bits(degree, B)):
        p, level, extrema = _exchange(degree, B)
        coefficients = dyadic_coefficients(p, degree, B)
        lower, upper = enclose(coefficients, B, extrema[-2:0:-1], enclosing_bits(degree, B))
        return ExpPolynomial(coefficients, B, lower, upper, "minimax"), max(0.0, float_below(level))


def working_bits(degree: int, B: float) -> int:
    """Return a precision at which a relative error near the best one keeps some 60 good bits.

    The best error is about X = B^n / (2^(n-1) n!), n = degree + 1, or near 1; values near exp(-B)
    come out of terms near exp(B), which costs 2 B / log 2 bits, and as many again where the error
    is near 1, to resolve what is left of a weight; interpolation costs up to 3 bits a degree.
    """
    return 100 + 3 * degree + math.ceil(max(0.0, -_log_error(degree, B)) + 5.8 * B)


def evaluation_bits(degree: int, B: float) -> int:
    """Return a precision at which the values of a polynomial near the best one do the same.

    Without what interpolation costs. Where the error is near 1, coefficients may exceed those of
    exp by up to 1 + sqrt(2) a degree; where it is small they are nearly those.
    """
    return 100 + math.ceil(max(2.9 * B - _log_error(degree, B), 5.8 * B + 1.3 * degree))


def enclosing_bits(degree: int, B: float) -> int:
    """Return a precision at which `enclose` is tight about a polynomial near the best one.

    It takes balls of radius B 2^-(bits / 3) about the extrema. Their squares must vanish beside the
    error, and the slope at their ends must stand above its rounding: each asks for a bit in three
    of `evaluation_bits` less what these keep.
    """
    return 120 + 3 * (evaluation_bits(degree, B) - 100) // 2


def _log_error(degree: int, B: float) -> float:
    """Return log2 X of `working_bits`."""
    n = degree + 1
    return n * math.log2(B) - (n - 1) - math.lgamma(n + 1) / math.log(2)


def dyadic_coefficients(p: flint.arb_poly, degree: int, B: float) -> tuple[Fraction, ...]:
    """Return the coefficients of p rounded to dyadic fractions, at the precision held.

    All a_k 2^(e k) with 2^e >= B are rounded to the same power of two: what a coefficient moves p
    by on [-B, B] matters, not its own relative error. What interpolation may have spoilt of the
    precision (see `working_bits`) is left out, so that a coefficient that should be 1 is 1.
    """
    exponent = math.frexp(B)[1]
    places = flint.ctx.prec - 3 * degree - math.ceil(2.9 * B) - 16
    coefficients = p.coeffs()
    coefficients += [flint.arb(0)] * (degree + 1 - len(coefficients))
    return tuple(
        Fraction(dyadic(c, exponent * k + places)) * Fraction(2) ** (-exponent * k - places)
        for k, c in enumerate(coefficients)
    )


def _exchange(degree: int, B: float) -> tuple[flint.arb_poly, flint.arb, list[flint.arb]]:
    """Return the polynomial, the levelled error of its reference, and its extrema, decreasing."""
    start = alternation_points if degree >= _PREPARED else kepler_points
    points = [(ball(B) * ball(t)).mid() for t in start(degree, B)]
    excess = math.inf
    for _ in range(_MAX_EXCHANGES):
        level, values = levelled_error(points)
        # Relative error -level, +level, ... from the right: sum w_i p(x_i) = 0 fixes the sign, as
        # w_0 > 0 and divided differences of exp are positive. Any
        # degree + 1 of the points determine p.
        heights = [(1 + level if i % 2 else 1 - level) * v for i, v in enumerate(values)]
        p = flint.arb_poly.interpolate(points[:-1], [h.mid() for h in heights[:-1]], "newton")
        p = flint.arb_poly([c.mid() for c in p.coeffs()])
        with precision(evaluation_bits(degree, B)):
            rounded = flint.arb_poly([(+c).mid() for c in p.coeffs()])
            extrema = extrema_beside(rounded, points)
            largest = max(abs(rounded(x) * (-x).exp() - 1).mid() for x in extrema)
        # Both the error and what it leaves of each weight are wanted to that many digits.
        excess = float((largest - level) / min(level.mid(), (1 - level).mid()))
        if excess < 2.0**-_GAP_BITS:
            return p, level, extrema
        points = extrema
    msg = (
        f"the exchange for degree {degree} on +-{B!r} did not converge: after {_MAX_EXCHANGES} "
        f"steps the largest error is {excess:.3g} above the levelled one, relatively; 2^-"
        f"{_GAP_BITS} is needed."
    )
    raise RuntimeError(msg)
