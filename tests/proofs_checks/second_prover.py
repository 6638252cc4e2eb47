"""The relative error of polynomials near exp, proved without ball arithmetic: run as a script.

Reads [[coefficients as fractions], B] pairs from standard input, writes [lower, upper, roots] of
each. Real roots of p' - p are isolated by sympy in its own integers (SYMPY_GROUND_TYPES=python),
values are mpmath's intervals. Nothing of subquad and nothing of flint is imported.
"""

import json
import sys
from fractions import Fraction

import sympy
from mpmath import iv
from sympy.polys.domains.groundtypes import GROUND_TYPES

WIDTH = sympy.Rational(1, 2**90)


def interval(low, high):
    """Return an interval that holds both rationals."""
    ends = [iv.mpf(int(x.p)) / iv.mpf(int(x.q)) for x in (low, high)]
    return iv.mpf([min(e.a for e in ends), max(e.b for e in ends)])


def error_on(coefficients, x):
    """Return an interval that holds |p exp(-x) - 1| over the interval x."""
    value = iv.mpf(0)
    for c in reversed(coefficients):
        value = value * x + iv.mpf(c.numerator) / iv.mpf(c.denominator)
    return abs(value * iv.exp(-x) - 1)


def enclose(coefficients, bound):
    """Return (lower, upper, number of roots inside) of the largest relative error on +-bound."""
    x = sympy.symbols("x")
    p = sympy.Poly([sympy.Rational(c.numerator, c.denominator) for c in reversed(coefficients)], x)
    slope = p.diff(x) - p
    B = sympy.Rational(*bound.as_integer_ratio())
    roots = [ends for ends, _ in slope.intervals(eps=WIDTH, inf=-B, sup=B)]
    found = [error_on(coefficients, interval(*ends)) for ends in (*roots, (-B, -B), (B, B))]
    return [float(max(e.a for e in found)), float(max(e.b for e in found)), len(roots)]


if __name__ == "__main__":
    assert GROUND_TYPES == "python"
    assert "flint" not in sys.modules
    iv.prec = 400
    problems = json.load(sys.stdin)
    print(json.dumps([enclose([Fraction(c) for c in p], bound) for p, bound in problems]))
