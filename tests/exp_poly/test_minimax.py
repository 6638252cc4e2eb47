import importlib
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from subquad.exp_poly import chebyshev_interpolant, chebyshev_series, minimax, minimax_error, taylor

from .oracle import evaluate, mpf, sampled_error

solver = importlib.import_module("subquad.exp_poly.minimax")

DEGREES = (1, 2, 3, 4, 6, 8, 12, 16, 20, 30)
# Computed by Sollya 8.0 (remez, and supnorm for the proof), printed to the digits shown.
TABLE = {
    0.5: "6.157e-2 5.148e-3 3.223e-4 1.614e-5 2.41e-8 2.09e-11 4.77e-18 3.26e-25 8.88e-33 5.26e-53",
    1: ".2329 3.974e-2 5.004e-3 5.030e-4 3.02e-6 1.05e-8 3.86e-14 4.23e-20 1.85e-26 1.12e-43",
    2: ".6831 .2705 7.087e-2 1.450e-2 3.56e-4 5.04e-6 3.01e-10 5.34e-15 3.75e-20 2.36e-34",
    4: ".9855 .8894 .6150 .2956 3.26e-2 1.96e-3 2.01e-6 5.97e-10 6.90e-14 4.63e-25",
    8: ".99999 .99983 .99820 .98755 .80077 .31145 7.23e-3 4.11e-5 8.52e-8 6.89e-16",
    16: "- - - - - .99984 .95051 .32126 1.91e-2 3.28e-7",
}
CELLS = [
    (degree, B, cell)
    for B, row in TABLE.items()
    for degree, cell in zip(DEGREES, row.split(), strict=True)
    if cell != "-"
]


def half_a_unit(cell):
    mantissa, _, exponent = cell.partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


@pytest.mark.parametrize("degree, B, cell", CELLS)
def test_errors_are_those_of_another_program(degree, B, cell):
    lower, upper = minimax_error(degree, B)
    assert lower <= upper <= lower * (1 + 1e-12)
    assert abs(upper - float(cell)) <= 1.01 * half_a_unit(cell)


@pytest.mark.parametrize("degree, complement", [(1, 2.20e-12), (2, 8.07e-11), (4, 2.85e-8)])
def test_errors_near_one_are_resolved(degree, complement):
    lower, upper = minimax_error(degree, 16.0)
    assert lower <= upper < 1
    assert 1 - upper == pytest.approx(complement, rel=3e-3)


@pytest.mark.parametrize("degree, B", [(1, 0.5), (3, 1.0), (4, 2.0), (5, 4.0), (8, 4.0), (10, 8.0)])
def test_lower_bound_against_a_linear_program(degree, B):
    # min eta with |p(x_i) exp(-x_i) - 1| <= eta on a grid: below the best error, and close to it.
    x = np.cos(np.linspace(0, np.pi, 301))
    rows = np.polynomial.chebyshev.chebvander(x, degree) * np.exp(-B * (x + 1))[:, None]
    ones = np.ones((len(x), 1))
    result = linprog(
        np.r_[np.zeros(degree + 1), 1],
        A_ub=np.block([[rows, -ones], [-rows, -ones]]),
        b_ub=np.r_[ones.ravel(), -ones.ravel()],
        bounds=(None, None),
    )
    lower, upper = minimax_error(degree, B)
    assert upper * 0.995 <= result.fun <= upper * (1 + 1e-5)
    assert lower >= upper * (1 - 1e-12)


@settings(max_examples=30, deadline=None)
@given(degree=st.integers(0, 12), B=st.floats(0.01, 8.0))
def test_no_other_family_does_better(degree, B):
    lower, upper = minimax_error(degree, B)
    assert lower <= upper
    assert minimax(degree, B).upper == upper
    for family in (taylor, chebyshev_interpolant, chebyshev_series):
        assert family(degree, B).upper >= lower


@settings(max_examples=25, deadline=None)
@given(degree=st.integers(0, 10), B=st.floats(0.01, 8.0))
def test_the_error_alternates(degree, B):
    # degree + 2 sign changes of height E: that is what makes the polynomial the best one.
    p = minimax(degree, B)
    with mpmath.workdps(60):
        x = [-mpf(B) * mpmath.cos(mpmath.pi * i / 240) for i in range(241)]
        e = [evaluate(p.coefficients, y) * mpmath.exp(-y) - 1 for y in x]
        heights, last = [], 0
        for value in e:
            if abs(value) > 0.95 * p.lower and mpmath.sign(value) != last:
                last = mpmath.sign(value)
                heights.append(value)
    assert len(heights) == degree + 2


def test_degree_zero_is_known():
    p = minimax(0, 1.5)
    assert float(p.coefficients[0]) == pytest.approx(1 / math.cosh(1.5), rel=1e-15)
    with mpmath.workdps(30):
        assert p.lower <= mpmath.tanh(1.5) <= p.upper


@pytest.mark.parametrize("degree", [0, 1, 2, 5, 12, 24])
def test_tiny_interval(degree):
    lower, upper = minimax_error(degree, 1e-12)
    with mpmath.workdps(60):
        n = degree + 1
        leading = mpf(1e-12) ** n / (mpf(2) ** degree * mpmath.factorial(n))
        assert upper > 0 and lower <= upper
        # Next order in B: a relative B^2, or thereabouts.
        if leading > 1e-300:
            assert upper == pytest.approx(float(leading), rel=1e-13)
            assert lower == pytest.approx(float(leading), rel=1e-13)
        else:
            assert upper == 5e-324 and lower == 0


@pytest.mark.parametrize("degree, B", [(60, 0.5), (60, 16.0), (33, 64.0), (7, 64.0), (64, 64.0)])
def test_far_corners(degree, B):
    p = minimax(degree, B)
    lower, upper = minimax_error(degree, B)
    assert 0 < lower <= upper <= min(1.0, lower * (1 + 1e-12))
    assert sampled_error(p.coefficients, B, digits=220, points=150) <= p.upper


@pytest.mark.parametrize("degree, B", [(1, 2.0), (3, 4.0), (4, 8.0), (9, 8.0)])
def test_below_one_every_weight_is_positive(degree, B):
    p = minimax(degree, B)
    assert p.upper < 1
    with mpmath.workdps(40):
        for i in range(201):
            x = mpf(B) * (i - 100) / 100
            assert evaluate(p.coefficients, x) >= (1 - p.upper) * mpmath.exp(x) > 0


def test_coefficients_are_dyadic_and_exact():
    for p in (minimax(5, 0.3), minimax(5, 0.0), chebyshev_series(5, 0.3)):
        assert all((c.denominator & (c.denominator - 1)) == 0 for c in p.coefficients)


def test_zero_interval():
    p = minimax(3, 0)
    assert (p.lower, p.upper) == minimax_error(3, 0.0) == (0.0, 0.0)
    assert p.coefficients[0] == 1 and p.degree == 3
    assert p.logit_bound == 0.0


def test_kept_results_are_the_same_object():
    assert minimax(4, 1) is minimax(np.int64(4), np.float64(1.0))


def test_no_convergence_is_an_error_with_numbers(monkeypatch):
    monkeypatch.setattr(solver, "_MAX_EXCHANGES", 1)
    words = r"degree 9 on \+-3.0625 did not converge: after 1 steps .* error is .* 2\^-44 is needed"
    with pytest.raises(RuntimeError, match=words):
        minimax(9, 3.0625)


@pytest.mark.parametrize("function", [minimax, minimax_error, taylor, chebyshev_series])
@pytest.mark.parametrize(
    "degree, B, kind, words",
    [
        (-1, 1.0, ValueError, r"`degree` is -1: it needs to be in 0..256"),
        (257, 1.0, ValueError, r"`degree` is 257: it needs to be in 0..256"),
        (2.5, 1.0, TypeError, r"`degree` is 2.5: it needs to be an integer"),
        (2, -0.5, ValueError, r"`logit_bound` is -0.5: it needs to be in \[0, 64\]"),
        (2, 64.5, ValueError, r"`logit_bound` is 64.5: it needs to be in \[0, 64\]"),
        (2, math.nan, ValueError, r"`logit_bound` is nan"),
        (2, math.inf, ValueError, r"`logit_bound` is inf"),
        (2, "1", TypeError, r"`logit_bound` is '1': it needs to be a real number"),
        (2, None, TypeError, r"`logit_bound` is None: it needs to be a real number"),
    ],
)
def test_bad_arguments(function, degree, B, kind, words):
    with pytest.raises(kind, match=words):
        function(degree, B)
