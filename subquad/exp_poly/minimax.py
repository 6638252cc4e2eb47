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

from subquad.exp_poly.arguments import checked_degree, checked_logit_bound
from subquad.exp_poly.balls import ball, dyadic, float_below, precision
from subquad.exp_poly.enclosure import enclose
from subquad.exp_poly.polynomial import ExpPolynomial
from subquad.exp_poly.reference import kepler_points, levelled_error

_GAP_BITS = 44  # stop once the largest error is within 2^-44 of the levelled one, relatively
_MAX_EXCHANGES = 60


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
    return _solve(checked_degree(degree), checked_logit_bound(logit_bound))[0]


def minimax_error(degree: int, logit_bound: float) -> tuple[float, float]:
    """Return floats (lower, upper) around the least relative error that degree allows, proved.

    No polynomial of that degree has a relative error below `lower` on [-logit_bound, logit_bound]
    (de la Vallee Poussin, in balls, see `reference`), and `minimax(degree, logit_bound)` has at
    most `upper` (`relative_error`). About 1e-13 apart, relatively. Arguments, errors raised and
    cost as for `minimax`.
    """
    polynomial, lower = _solve(checked_degree(degree), checked_logit_bound(logit_bound))
    return lower, polynomial.upper


@lru_cache(maxsize=4096)
def _solve(degree: int, B: float) -> tuple[ExpPolynomial, float]:
    """Return the minimax polynomial and the proved lower bound of the best error."""
    if B == 0:
        # Every polynomial with p(0) = 1 is best; take Taylor's, rounded, as the limit of small B.
        one = Fraction(1 << 128)
        rounded = tuple(Fraction(round(one / math.factorial(k))) / one for k in range(degree + 1))
        return ExpPolynomial(rounded, B, 0.0, 0.0, "minimax"), 0.0
    bits = working_bits(degree, B)
    with precision(bits):
        p, level, extrema = _exchange(degree, B)
        coefficients = dyadic_coefficients(p, degree, B)
        lower, upper = enclose(coefficients, B, extrema[-2:0:-1], bits)
        return ExpPolynomial(coefficients, B, lower, upper, "minimax"), max(0.0, float_below(level))


def working_bits(degree: int, B: float) -> int:
    """Return a precision at which a relative error near the best one keeps some 60 good bits.

    The best error is about X = B^n / (2^(n-1) n!), n = degree + 1, or near 1; values near exp(-B)
    come out of terms near exp(B), which costs 2 B / log 2 bits, and as many again where the error
    is near 1, to resolve what is left of a weight; interpolation costs up to 3 bits a degree.
    """
    n = degree + 1
    size = n * math.log2(B) - (n - 1) - math.lgamma(n + 1) / math.log(2)
    return 100 + 3 * degree + math.ceil(max(0.0, -size) + 5.8 * B)


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
    points = [(ball(B) * ball(t)).mid() for t in kepler_points(degree, B)]
    excess = math.inf
    for _ in range(_MAX_EXCHANGES):
        level, values = levelled_error(points)
        # Relative error -level, +level, ... from the right: sum w_i p(x_i) = 0 fixes the sign, as
        # w_0 > 0 and divided differences of exp are positive. Any
        # degree + 1 of the points determine p.
        heights = [(1 + level if i % 2 else 1 - level) * v for i, v in enumerate(values)]
        p = flint.arb_poly.interpolate(points[:-1], [h.mid() for h in heights[:-1]], "newton")
        p = flint.arb_poly([c.mid() for c in p.coeffs()])
        extrema = _extrema(p, points)
        largest = max(abs(p(x) * (-x).exp() - 1).mid() for x in extrema)
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


def _extrema(p: flint.arb_poly, points: list[flint.arb]) -> list[flint.arb]:
    """Return the end points and, between them, the root of p' - p that belongs to each inner point.

    Works on midpoints: a wrong sign can cost an exchange, never a proof.
    """
    slope = p.derivative() - p
    curve = slope.derivative()
    found = [points[0]]
    for i in range(1, len(points) - 1):
        x, sign = points[i], 1 if i % 2 else -1
        rising = slope(x).mid() > 0
        neighbour = points[i - 1] if rising == (sign > 0) else points[i + 1]
        far = _beyond(p, slope, x, neighbour, sign, rising)
        found.append(_root(slope, curve, x, far, rising))
    return [*found, points[-1]]


def _beyond(
    p: flint.arb_poly,
    slope: flint.arb_poly,
    x: flint.arb,
    neighbour: flint.arb,
    sign: int,
    rising: bool,
) -> flint.arb:
    """Return a point past the extremum that belongs to x and before the next one.

    There the slope has turned. The error has opposite signs at x and at its neighbour; halving
    towards its zero must meet such a point, for the extremum lies between x and that zero.
    """
    near, far = x, neighbour
    for _ in range(flint.ctx.prec):
        middle = ((near + far) / 2).mid()
        if (slope(middle).mid() > 0) != rising:
            return middle
        if (p(middle) * (-middle).exp() - 1).mid() * sign > 0:
            near = middle
        else:
            far = middle
    return x


def _root(
    slope: flint.arb_poly, curve: flint.arb_poly, x: flint.arb, far: flint.arb, rising: bool
) -> flint.arb:
    """Return about the root of `slope` between x and far: Newton, kept in there by halving."""
    near = x
    small = abs(far - x) * flint.arb(2) ** -(flint.ctx.prec // 2)
    for _ in range(60):
        new = (x - slope(x) / curve(x)).mid()
        if abs(new - x) < small:  # asked first, for rounding may put the root just outside
            return new
        x = new if min(near, far) < new < max(near, far) else ((near + far) / 2).mid()
        if (slope(x).mid() > 0) == rising:
            near = x
        else:
            far = x
    return x
