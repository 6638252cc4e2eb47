"""Rigorous enclosure of the relative error of a polynomial near exp, by ball arithmetic.

e(x) = p(x) exp(-x) - 1 has the derivative (p' - p)(x) exp(-x): its extrema on [-B, B] are the real
roots of the polynomial p' - p, and the end points. The roots are isolated with proof, e is enclosed
at each.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import flint

from subquad.exp_poly.arguments import checked_coefficients, checked_logit_bound
from subquad.exp_poly.balls import ball, float_above, float_below, precision

_TIGHT = 41  # bits: the enclosure is done when hi / lo - 1 < 2^-41 = 4.5e-13
_FIRST_BITS, _MAX_BITS = 192, 1 << 18


def relative_error(
    coefficients: Iterable[Fraction | float | int], logit_bound: float
) -> tuple[float, float]:
    """Return (lower, upper) with, proved, lower <= sup |p(x) exp(-x) - 1| over [-B, B] <= upper.

    Parameters
    ----------
    coefficients : iterable of Fraction, float or int
        Of p, degree 0 first, taken at their exact values.
    logit_bound : float
        B, in [0, 64].

    Returns
    -------
    tuple of float
        Less than 1e-12 apart, relatively, wherever floats are that dense; rounded outwards.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.
    RuntimeError
        If 2^18 bits do not suffice (no polynomial known to us needs it).

    Notes
    -----
    Costs 0.2 ms (degree 2) to 20 ms (degree 30), for the certified isolation of all complex roots.
    """
    exact, B = checked_coefficients(coefficients), checked_logit_bound(logit_bound)
    return enclose(exact, B)


def enclose(
    coefficients: tuple[Fraction, ...],
    logit_bound: float,
    extrema: Sequence[flint.arb] = (),
    bits: int = _FIRST_BITS,
) -> tuple[float, float]:
    """Return `relative_error`, sooner when `extrema` are close to all roots of p' - p.

    The guesses need not be trusted: see `_roots_near`. `bits` is the precision to start from; it
    doubles until the enclosure is tight.
    """
    if logit_bound == 0:
        with precision(_FIRST_BITS):
            at_zero = ball(abs(coefficients[0] - 1))
            return max(0.0, float_below(at_zero)), float_above(at_zero)
    slope = slope_of(coefficients)
    while bits <= _MAX_BITS:
        with precision(bits):
            roots = _roots_near(extrema, slope, logit_bound) if extrema else None
            if roots is None:
                roots = real_roots(slope, logit_bound)
            lo, hi = _largest_error(coefficients, logit_bound, roots)
            if hi - lo < lo * flint.arb(2) ** -_TIGHT:  # certain, and false while lo <= 0
                return max(0.0, float_below(lo)), float_above(hi)
        bits *= 2
    msg = (
        f"the relative error of a polynomial of degree {len(coefficients) - 1} on "
        f"+-{logit_bound!r} is not enclosed at {_MAX_BITS} bits."
    )
    raise RuntimeError(msg)


def slope_of(coefficients: tuple[Fraction, ...]) -> list[Fraction]:
    """Return the exact coefficients of p' - p, without leading zeros."""
    slope = [-c for c in coefficients]
    for k in range(1, len(coefficients)):
        slope[k - 1] += k * coefficients[k]
    while slope and slope[-1] == 0:
        slope.pop()
    return slope


def _roots_near(
    guesses: Sequence[flint.arb], slope: list[Fraction], logit_bound: float
) -> list[flint.arb] | None:
    """Return disjoint balls that hold every root of the slope; None if that is not proved.

    A polynomial of degree g has at most g roots: once its sign is proved to change in each of g
    disjoint intervals, each holds exactly one, and there are no others. One evaluation at both ends
    of each interval takes the place of isolating complex roots, about ten times the work.
    """
    if len(guesses) != len(slope) - 1:
        return None
    r = flint.arb_poly([ball(c) for c in slope])
    dr = r.derivative()
    # Small enough that its square does not count beside the error, and large enough that the
    # slope at the ends exceeds its rounding: half the precision would ask for more of it.
    radius = ball(logit_bound) * flint.arb(2) ** -(flint.ctx.prec // 3)
    roots: list[flint.arb] = []
    last = None
    for guess in guesses:
        x = guess.mid()
        for _ in range(8):  # Newton's steps; whether they converge is for the signs to say
            step = r(x) / dr(x)
            x = (x - step).mid()
            if not abs(step) > radius / 8:
                break
        left, right = (x - radius).mid(), (x + radius).mid()
        at_left, at_right = r(left), r(right)
        if not ((at_left < 0 and at_right > 0) or (at_left > 0 and at_right < 0)):
            return None
        if last is not None and not last < left:
            return None
        roots.append(left.union(right))
        last = right
    return roots


def real_roots(slope: list[Fraction], logit_bound: float) -> list[flint.arb]:
    """Return balls that hold every real root of the slope, whatever their multiplicity.

    The variable is scaled by a power of two to run over about [-1, 1]: the root finder works on
    integer coefficients, and on a tiny interval these would be of very different sizes.
    """
    if len(slope) < 2:
        return []
    exponent = math.frexp(logit_bound)[1]
    unit = Fraction(2) ** exponent
    scaled = [c * unit**k for k, c in enumerate(slope)]
    integers = flint.fmpq_poly([flint.fmpq(c.numerator, c.denominator) for c in scaled]).numer()
    roots: Any = integers.complex_roots()  # (root, multiplicity); real ones have imag exactly 0
    return [root.real * ball(unit) for root, _ in roots if root.imag.contains(0)]


def errors_at_extrema(
    coefficients: tuple[Fraction, ...], logit_bound: float, roots: Sequence[flint.arb]
) -> Iterator[tuple[flint.arb, bool]]:
    """Yield balls that hold e at the ends of [-B, B] and at each root not outside, and if inside.

    `roots` are balls that hold the real roots of p' - p, where e' is 0: what is yielded holds the
    smallest and the largest e. A ball across an end point may lie about a root outside, and its
    error about one that does not count: it is not inside.
    """
    p = flint.arb_poly([ball(c) for c in coefficients])
    r = flint.arb_poly([ball(c) for c in slope_of(coefficients)])
    B = ball(logit_bound)
    for x in [-B, B, *roots]:
        if x < -B or x > B:
            continue
        middle = x.mid()
        # Mean value form: e' is near 0 at a root, so the width of e is that of x squared.
        error = p(middle) * (-middle).exp() - 1 + (x - middle) * r(x) * (-x).exp()
        yield error, x >= -B and x <= B


def _largest_error(
    coefficients: tuple[Fraction, ...], logit_bound: float, roots: list[flint.arb]
) -> tuple[flint.arb, flint.arb]:
    """Return (lo, hi), balls of radius zero: the largest lower and the largest upper bound of |e|.

    The maximum is taken over bounds and not over balls: of two overlapping balls none is the
    larger.
    """
    lo = hi = flint.arb(0)
    for error, inside in errors_at_extrema(coefficients, logit_bound, roots):
        if error.abs_upper() > hi:
            hi = error.abs_upper()
        if inside and error.abs_lower() > lo:
            lo = error.abs_lower()
    return lo, hi
