import math
from fractions import Fraction

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad.exp_poly import taylor

from .oracle import evaluate, mpf


@settings(max_examples=40, deadline=None)
@given(degree=st.integers(0, 30), B=st.floats(1e-2, 64.0))
def test_error_is_the_one_at_the_left_end(degree, B):
    p = taylor(degree, B)
    with mpmath.workdps(250):
        left = abs(evaluate(p.coefficients, -mpf(B)) * mpmath.exp(mpf(B)) - 1)
        assert p.lower <= left <= p.upper
        # The same number as a positive series: B^n / n! 1F1(n; n + 1; B), n = degree + 1.
        n = degree + 1
        tail = mpf(B) ** n / mpmath.factorial(n) * mpmath.hyp1f1(n, n + 1, mpf(B))
        assert tail == pytest.approx(left, rel=1e-30)


def test_coefficients():
    p = taylor(4, 1.0)
    assert p.coefficients == tuple(Fraction(1, math.factorial(k)) for k in range(5))
    assert p.family == "taylor" and p.degree == 4
    assert (taylor(4, 0).lower, taylor(4, 0).upper) == (0.0, 0.0)


def test_odd_degrees_go_negative_and_their_error_exceeds_one():
    p = taylor(3, 4.0)
    assert evaluate(p.coefficients, mpf(-4)) < 0
    assert p.lower > 1
