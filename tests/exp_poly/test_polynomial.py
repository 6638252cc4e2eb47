from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad.exp_poly import chebyshev_interpolant, minimax, taylor
from tests.fresh import printed

from .oracle import evaluate, mpf


@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from([minimax, taylor, chebyshev_interpolant]),
    degree=st.integers(1, 10),
    B=st.floats(0.05, 4.0),
    at=st.fractions(-1, 1),
)
def test_scaled_error_is_relative_to_the_computed_weight(family, degree, B, at):
    p = family(degree, B)
    if p.upper >= 1:
        with pytest.raises(ValueError, match="`upper`"):
            p.scaled()
        return
    coefficients = [Fraction(c) for c in p.scaled().tolist()]
    x = at * Fraction(B)
    exact = sum(c * x**k for k, c in enumerate(p.coefficients)) / (1 - Fraction(p.upper) ** 2)
    rounded = sum(c * x**k for k, c in enumerate(coefficients))
    # What rounding moves the sum by is bounded apart, coefficient by coefficient.
    slack = sum(abs(c) * abs(x) ** k for k, c in enumerate(coefficients)) / 2**52
    assert abs(rounded - exact) <= slack
    with mpmath.workdps(60):
        weight = mpmath.exp(mpf(x))
        assert abs(weight / mpf(exact) - 1) <= p.upper * (1 + mpmath.mpf(10) ** -30)
        worst = weight / mpf(rounded) * (1 + mpf(slack / rounded))
        assert worst - 1 <= p.upper * (1 + 1e-9) + 2 * mpf(slack / rounded)


def test_scaled_error_is_attained_on_both_sides():
    p = minimax(3, 2.0)
    factor = 1 - Fraction(p.upper) ** 2
    with mpmath.workdps(40):
        x = [mpf(2) * (i - 1000) / 1000 for i in range(2001)]
        ratios = [mpmath.exp(y) * mpf(factor) / evaluate(p.coefficients, y) - 1 for y in x]
        assert max(ratios) == pytest.approx(p.upper, rel=1e-5)
        assert min(ratios) == pytest.approx(-p.upper, rel=1e-5)


def test_scaled_is_a_fresh_float64_array():
    p = minimax(4, 1.0)
    first = p.scaled()
    assert first.dtype == np.float64 and first.shape == (5,)
    first[:] = 0
    assert p.scaled()[0] == float(p.coefficients[0] / (1 - Fraction(p.upper) ** 2))
    assert minimax(2, 0.0).scaled().tolist() == [1.0, 1.0, 0.5]


def test_scaled_refuses_an_error_of_one_or_more():
    words = r"`upper` is 310.389\d+: it needs to be below 1 .* degree \(3\) .* bound \(4.0\)"
    with pytest.raises(ValueError, match=words):
        taylor(3, 4.0).scaled()


def test_the_ground_floor_imports_no_other_and_nothing_slow():
    # Under a bare parent package, since `subquad` itself imports the floors above.
    code = """
import importlib.util, sys, types
parent = types.ModuleType("subquad")
parent.__path__ = list(importlib.util.find_spec("subquad").submodule_search_locations)
sys.modules["subquad"] = parent
import subquad.exp_poly
names = set(sys.modules)
print(sorted(names & {"sympy", "mpmath", "scipy", "cupy"}))
print(sorted(n for n in names if n.startswith("subquad.") and "exp_poly" not in n))
"""
    assert printed(code).split() == ["[]", "[]"]
