"""What every proof here needs of ball arithmetic: a precision, held, and exact conversions.

A ball is a midpoint with a radius that contains the true number; whatever is computed from balls
contains the true result. F. Johansson, "Arb: efficient arbitrary-precision midpoint-radius interval
arithmetic", IEEE Trans. Computers 66 (2017).
"""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import flint

_LOCK = threading.RLock()


def _after_fork() -> None:
    """Give a child a lock of its own: the thread that held its parent's is not there."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Hold the working precision at `bits` bits inside the block, for one thread at a time.

    The precision is one global variable of the library: without the lock another thread could lower
    it in the middle of a proof (the proof would stay true, and become too wide to be of use). Every
    use of balls in this package goes through here; blocks may be nested.
    """
    with _LOCK:
        before = flint.ctx.prec
        flint.ctx.prec = bits
        try:
            yield
        finally:
            flint.ctx.prec = before


def ball(value: Fraction | float | int) -> flint.arb:
    """Return a ball around `value`: of radius zero where it is dyadic and fits the precision."""
    if isinstance(value, Fraction):
        return flint.arb(flint.fmpq(value.numerator, value.denominator))
    return flint.arb(value)


def dyadic(value: flint.arb, exponent: int) -> int:
    """Return the integer nearest the midpoint of `value` * 2^exponent."""
    mantissa, power = (int(part) for part in value.mid().man_exp())
    shift = power + exponent
    if shift >= 0:
        return mantissa << shift
    return ((mantissa >> (-shift - 1)) + 1) >> 1


def fraction(value: flint.arb) -> Fraction:
    """Return the midpoint of `value`, exactly."""
    mantissa, power = (int(part) for part in value.mid().man_exp())
    return Fraction(mantissa << power) if power >= 0 else Fraction(mantissa, 1 << -power)


def float_above(value: flint.arb) -> float:
    """Return a float that is >= every number in `value`; inf where the ball is not finite."""
    if not value.is_finite():
        return math.inf
    top = value.upper()  # rounded up to the precision held, so still above
    near = float(top)
    return near if flint.arb(near) >= top else math.nextafter(near, math.inf)


def float_below(value: flint.arb) -> float:
    """Return a float that is <= every number in `value`; -inf where the ball is not finite."""
    return -float_above(-value)
