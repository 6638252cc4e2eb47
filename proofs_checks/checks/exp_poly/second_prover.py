"""Relative errors near exp by sympy's root isolation in Python integers; a script of its own.

Reads from standard input a JSON list of [coefficients, bound], the numbers as strings "p/q", and
writes a JSON list of [lower, upper, level]: lower <= sup |p(x) exp(-x) - 1| over [-B, B] <= upper,
and no polynomial of the degree of p has a supremum below level (0.0 where the errors of p do not
alternate, which is what proves it). It runs as a process with SYMPY_GROUND_TYPES=python, so that it
shares no line of arithmetic with the first prover: roots by sympy, exp by its series in fractions.
"""

from __future__ import annotations

import json
import math
import sys
from fractions import Fraction
from itertools import pairwise
from typing import Any

Interval = tuple[Fraction, Fraction]


def exp_interval(x: Fraction) -> Interval:
    """Return rationals around exp(x): the series at |x|, all terms positive, and its remainder."""
    y = abs(x)
    terms = 2 * math.ceil(y) + 70
    total = Fraction(1)
    for k in range(terms, 0, -1):
        total = 1 + total * y / k
    # From here on each term is less than half of the one before.
    rest = 2 * y ** (terms + 1) / math.factorial(terms + 1)
    low, high = _coarse(total, math.floor), _coarse(total + rest, math.ceil)
    return (low, high) if x >= 0 else (1 / high, 1 / low)


def _coarse(value: Fraction, rounding: Any) -> Fraction:
    return Fraction(rounding(value * 2**200), 2**200)


def errors(coefficients: list[Fraction], bound: Fraction) -> list[Interval]:
    """Return the values of e(x) = p(x) exp(-x) - 1 at -B, at its extrema inside, and at B."""
    import sympy

    slope = [-c for c in coefficients]
    for k in range(1, len(coefficients)):
        slope[k - 1] += k * coefficients[k]
    x = sympy.Symbol("x")
    descending = [sympy.Rational(c.numerator, c.denominator) for c in reversed(slope)]
    ends = sympy.Rational(bound.numerator, bound.denominator)
    width = sympy.Rational(1, 10 ** (16 + math.ceil(bound)))
    roots = sympy.Poly(descending, x, domain="QQ").intervals(inf=-ends, sup=ends, eps=width)
    points = [(-bound, -bound), *((_fraction(a), _fraction(b)) for (a, b), _ in roots)]
    # |e'| = |slope| exp(-x), hence at most `steepest` anywhere.
    steepest = sum(abs(c) * bound**k for k, c in enumerate(slope)) * exp_interval(bound)[1]
    values = []
    for a, b in [*points, (bound, bound)]:
        low, high = _error_at(coefficients, a)
        values.append((low - (b - a) * steepest, high + (b - a) * steepest))
    return values


def _error_at(coefficients: list[Fraction], x: Fraction) -> Interval:
    value = Fraction(0)
    for c in reversed(coefficients):
        value = value * x + c
    low, high = exp_interval(-x)
    ends = value * low - 1, value * high - 1
    return min(ends), max(ends)


def _fraction(number: Any) -> Fraction:
    return Fraction(int(number.p), int(number.q))


def prove(coefficients: list[Fraction], bound: Fraction) -> tuple[float, float, float]:
    """Return (lower, upper, level) as floats, rounded outwards."""
    values = errors(coefficients, bound)
    lowest = [max(low, -high, Fraction(0)) for low, high in values]
    highest = [max(-low, high) for low, high in values]
    turns = all((a[0] > 0 and b[1] < 0) or (a[1] < 0 and b[0] > 0) for a, b in pairwise(values))
    level = min(lowest) if turns and len(values) == len(coefficients) + 1 else Fraction(0)
    return _down(max(lowest)), -_down(-max(highest)), _down(level)


def _down(value: Fraction) -> float:
    near = float(value)
    return near if Fraction(near) <= value else math.nextafter(near, -math.inf)


if __name__ == "__main__":
    tasks = json.load(sys.stdin)
    json.dump([prove([Fraction(c) for c in p], Fraction(B)) for p, B in tasks], sys.stdout)
