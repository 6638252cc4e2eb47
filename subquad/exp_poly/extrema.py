"""The extrema of the relative error of a polynomial near exp, beside points where it alternates.

They are the next reference of the exchange in `minimax`. Nothing is proved here: all is done on the
midpoints of balls.
"""

import flint

_CLOSE = 2.0**-10
"""Newton's first move from a point, in gaps between points, up to which no bracket is needed."""
_SETTLED = 2.0**-24
"""A move, in gaps, after which an extremum is known well enough: the next is its square or so, and
the error at an extremum moves by the square of that."""


def extrema_beside(p: flint.arb_poly, points: list[flint.arb]) -> list[flint.arb]:
    """Return the end points and, between them, the root of p' - p that belongs to each inner point.

    Works on midpoints: a wrong sign can cost an exchange, never a proof.
    """
    slope = p.derivative() - p
    curve = slope.derivative()
    found = [points[0]]
    for i in range(1, len(points) - 1):
        x, sign = points[i], 1 if i % 2 else -1
        near = _root_beside(slope, curve, x, min(points[i - 1] - x, x - points[i + 1]))
        if near is None:
            rising = slope(x).mid() > 0
            neighbour = points[i - 1] if rising == (sign > 0) else points[i + 1]
            far = _beyond(p, slope, x, neighbour, sign, rising)
            near = _root(slope, curve, x, far, rising)
        found.append(near)
    return [*found, points[-1]]


def _root_beside(
    slope: flint.arb_poly, curve: flint.arb_poly, x: flint.arb, gap: flint.arb
) -> flint.arb | None:
    """Return about the root of `slope` that belongs to x, `gap` from the next point; None if far.

    By Newton without a bracket, two values of polynomials a step.
    """
    for _ in range(4):
        move = (slope(x) / curve(x)).mid()
        if not abs(move) < gap * _CLOSE:
            return None
        x = (x - move).mid()
        if abs(move) < gap * _SETTLED:
            return x
    return None


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
    small = abs(far - x) * _SETTLED
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
