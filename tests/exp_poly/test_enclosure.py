import importlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from math import inf, nan

import flint
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad.exp_poly import (
    chebyshev_interpolant,
    chebyshev_series,
    minimax,
    relative_error,
    taylor,
)
from subquad.exp_poly.balls import ball, precision
from subquad.exp_poly.enclosure import enclose

from .oracle import evaluate, mpf, sampled_error

FAMILIES = [taylor, chebyshev_interpolant, chebyshev_series, minimax]
BOUNDS = st.floats(min_value=0.01, max_value=8.0)


def assert_encloses(bounds, sampled):
    lower, upper = bounds
    assert lower <= upper <= lower * (1 + 1e-12)
    assert sampled <= upper
    assert sampled >= lower * (1 - 1e-6)


@settings(max_examples=40, deadline=None)
@given(family=st.sampled_from(FAMILIES), degree=st.integers(0, 12), logit_bound=BOUNDS)
def test_family_is_enclosed(family, degree, logit_bound):
    p = family(degree, logit_bound)
    assert p.degree == degree and p.logit_bound == logit_bound
    assert_encloses((p.lower, p.upper), sampled_error(p.coefficients, logit_bound, digits=80))


@settings(max_examples=30, deadline=None)
@given(
    coefficients=st.lists(st.floats(-4, 4, allow_subnormal=False), min_size=1, max_size=8),
    logit_bound=BOUNDS,
)
def test_any_polynomial_is_enclosed(coefficients, logit_bound):
    sampled = sampled_error([Fraction(c) for c in coefficients], logit_bound)
    assert_encloses(relative_error(coefficients, logit_bound), sampled)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [0, 2, 5])
def test_a_wrong_coefficient_breaks_the_bound(family, k):
    p = family(6, 1.0)
    seen = []
    for factor in (Fraction(99, 100), Fraction(101, 100)):
        wrong = list(p.coefficients)
        wrong[k] *= factor
        lower, upper = relative_error(wrong, 1.0)
        assert_encloses((lower, upper), sampled_error(wrong, 1.0))
        seen.append(lower > p.upper)
    # Of a best polynomial both break it; of others one of the two may be an improvement.
    assert all(seen) if family is minimax else any(seen)


@pytest.mark.parametrize("shift", [0, 2**20, -(2**20), 2**90, -(2**90), 2**700, -(2**700)])
@pytest.mark.parametrize("side", [1, -1])
def test_an_extremum_at_an_end_point_counts_where_it_lies_inside(side, shift):
    # p = c (x + 1 - root) has its one extremum at `root`, and c makes that the largest error.
    B = Fraction(1, 2)
    root = side * B + (Fraction(1, shift) if shift else 0)
    p = [4 * (1 - root), Fraction(4)]
    lower, upper = relative_error(p, float(B))
    with mpmath.workdps(300):
        x = mpf(max(-B, min(B, root)))
        errors = [abs(evaluate(p, y) * mpmath.exp(-y) - 1) for y in (x, mpf(-B), mpf(B))]
        assert lower <= max(errors) <= upper
    assert upper <= lower * (1 + 1e-12)


def from_slope(roots):
    """p with p' - p = prod (x - root): p = -(r + r' + r'' + ...)."""
    r = [Fraction(1)]
    for root in roots:
        r = [Fraction(0), *r]
        for k in range(len(r) - 1):
            r[k] -= root * r[k + 1]
    p = [Fraction(0)] * len(r)
    while r:
        for k, c in enumerate(r):
            p[k] -= c
        r = [k * c for k, c in enumerate(r)][1:]
    return p


@pytest.mark.parametrize(
    "roots",
    [
        [Fraction(1, 3)] * 2,
        [Fraction(1, 3)] * 2 + [Fraction(-1, 4)] * 3,
        [Fraction(1, 3), Fraction(1, 3) + Fraction(1, 2**80)],
        [Fraction(1, 2)] * 3,  # at the end point itself
        [Fraction(0)] * 5,
    ],
)
def test_multiple_and_clustered_extrema(roots):
    p = from_slope(roots)
    assert_encloses(relative_error(p, 0.5), sampled_error(p, 0.5))


@pytest.mark.parametrize("degree, logit_bound", [(1, 0.5), (6, 4.0), (13, 8.0)])
def test_guessed_extrema_and_isolated_roots_agree(degree, logit_bound):
    p = minimax(degree, logit_bound)
    lower, upper = relative_error(p.coefficients, logit_bound)
    assert max(lower, p.lower) <= min(upper, p.upper)


@pytest.mark.parametrize("guess", [0.0, 0.7, 100.0])
def test_wrong_guesses_prove_nothing_and_do_no_harm(guess):
    p = minimax(4, 2.0).coefficients
    for guesses in ([guess] * 4, [guess], [-1.9, -1.0, guess, 1.5]):
        assert enclose(p, 2.0, [ball(x) for x in guesses]) == relative_error(p, 2.0)


def test_constants_and_zero():
    assert relative_error([0], 1.0) == (1.0, 1.0)
    assert relative_error([0, 0, 0], 1.0) == (1.0, 1.0)
    assert relative_error([1], 0.0) == (0.0, 0.0)
    assert relative_error([1.5, 7], 0) == (0.5, 0.5)
    lower, upper = relative_error([1], 1.0)
    assert lower <= np.e - 1 <= upper


def test_number_types_are_taken_exactly():
    exact = relative_error([Fraction(1), Fraction(float(np.float32(1.1)))], 0.5)
    assert relative_error([1, np.float32(1.1)], np.float32(0.5)) == exact
    assert relative_error(np.array([1.0, np.float32(1.1)]), 0.5) == exact
    assert relative_error((np.int64(1), np.float32(1.1)), 0.5) == exact


def test_threads_share_one_precision_and_leave_it_as_it_was():
    before = flint.ctx.prec
    cases = [(3, 1.0), (9, 2.0), (5, 0.25), (12, 6.0)] * 3
    polynomials = [chebyshev_interpolant(*case).coefficients for case in cases]
    bounds = [case[1] for case in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(relative_error, polynomials, bounds))
    alone = [relative_error(p, B) for p, B in zip(polynomials, bounds, strict=True)]
    assert together == alone
    assert flint.ctx.prec == before
    with pytest.raises(KeyError), precision(77):
        assert flint.ctx.prec == 77
        raise KeyError
    assert flint.ctx.prec == before


@pytest.mark.parametrize(
    "coefficients, kind, words",
    [
        ([], ValueError, "`coefficients` is empty"),
        ([1.0, nan], ValueError, r"`coefficients\[1\]` is nan"),
        ([1.0, 0.5, -inf], ValueError, r"`coefficients\[2\]` is -inf"),
        (["1"], TypeError, r"`coefficients\[0\]` is '1'"),
    ],
)
def test_bad_coefficients(coefficients, kind, words):
    with pytest.raises(kind, match=words):
        relative_error(coefficients, 1.0)


def test_giving_up_says_where(monkeypatch):
    enclosure = importlib.import_module("subquad.exp_poly.enclosure")
    monkeypatch.setattr(enclosure, "_MAX_BITS", 64)
    with pytest.raises(RuntimeError, match=r"degree 2 on \+-1.0 is not enclosed at 64 bits"):
        relative_error([1, 1, 1], 1.0)
