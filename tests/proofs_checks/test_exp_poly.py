"""Claims on polynomials near exp, and the helpers of their checks against mpmath."""

import math
from fractions import Fraction

import flint
import mpmath
import pytest

from proofs_checks.checks.exp_poly import claims
from proofs_checks.checks.exp_poly.degrees import least_degrees
from proofs_checks.checks.exp_poly.provers import second_proofs
from proofs_checks.checks.exp_poly.second_prover import errors, exp_interval, prove
from proofs_checks.checks.exp_poly.uniform import (
    leading_size,
    least_uniform_error_below,
    series_tail,
    uniform_error,
)
from subquad.exp_poly import chebyshev_interpolant, minimax, relative_error, taylor
from subquad.exp_poly.balls import ball, precision
from tests.exp_poly.oracle import sampled_error

CLAIMS = {claim.id: claim for claim in (*claims.LITERATURE, *claims.DERIVED)}


@pytest.mark.parametrize("name", CLAIMS)
def test_claim_and_twin_are_as_expected(records, name):
    claim = CLAIMS[name]
    record = records[name]
    assert record.found.verdict == claim.expected, record.found.detail
    assert record.twin_found.verdict == claim.twin.expected, record.twin_found.detail


# What the helpers give is compared with mpmath, which shares no code with them.


@pytest.mark.parametrize("B", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("degree", [0, 1, 4, 9])
def test_least_uniform_error_is_enclosed(degree, B):
    """The alternation of the best polynomial, found by mpmath's solution of Remez's equations."""
    with precision(300):
        below, above = least_uniform_error_below(degree, B), series_tail(degree, B)
        best = remez(degree, B)
        assert float(below) <= best * (1 + 1e-9)
        assert best <= float(above) * (1 + 1e-9)
        assert float(above) < 30 * float(below)  # worth something


def remez(degree, B):
    with mpmath.workdps(40):
        n = degree + 2
        points = [-B * mpmath.cos(mpmath.pi * j / (n - 1)) for j in range(n)]
        for _ in range(12):
            rows = [[x**k for k in range(degree + 1)] + [(-1) ** i] for i, x in enumerate(points)]
            solution = mpmath.lu_solve(
                mpmath.matrix(rows), mpmath.matrix(list(map(mpmath.exp, points)))
            )
            c = list(solution)[:-1]

            def error(x, c=c):
                return mpmath.exp(x) - mpmath.polyval(c[::-1], x)

            grid = [-B + 2 * B * mpmath.mpf(i) / 2000 for i in range(2001)]
            values = list(map(error, grid))
            points = [grid[0]]
            points += [
                grid[i]
                for i in range(1, 2000)
                if (values[i] - values[i - 1]) * (values[i + 1] - values[i]) <= 0
            ]
            points = [*points, grid[-1]][:n]
        return float(abs(solution[n - 1]))


def test_uniform_error_is_the_sampled_one():
    for degree, B in [(2, 0.01), (3, 1.0), (2, 4.0)]:
        p = chebyshev_interpolant(degree, B).coefficients
        with precision(300):
            lower, upper = (float(x) for x in uniform_error(p, B))
        with mpmath.workdps(40):
            c = [mpmath.mpf(x.numerator) / x.denominator for x in reversed(p)]
            grid = [B * (mpmath.mpf(i) / 500 - 1) for i in range(1001)]
            sampled = float(max(abs(mpmath.polyval(c, x) - mpmath.exp(x)) for x in grid))
        assert sampled <= upper * (1 + 1e-12)
        assert lower == pytest.approx(sampled, rel=1e-4)


def test_series_tail_is_what_the_whole_series_lacks():
    with precision(400):
        for degree, B in [(0, 0.5), (5, 2.0), (30, 16.0)]:
            terms = [2 * ball(B).bessel_i(k) for k in range(1, degree + 1)]
            rest = ball(B).exp() - ball(B).bessel_i(0) - sum(terms, flint.arb(0))
            assert rest.overlaps(series_tail(degree, B))


def test_leading_size():
    with precision(100):
        assert float(leading_size(2, 3.0)) == pytest.approx(3.0**3 / 24)


def test_least_degrees_of_a_known_case():
    """exp on [-1, 1]: least errors 0.2788 (degree 1) and 0.0450 (degree 2)."""
    with precision(200):
        assert least_degrees(1.0, ball(0.33)) == (1, 1)
        assert least_degrees(1.0, ball(0.051)) == (2, 2)
        assert least_degrees(1.0, ball(0.04)) == (3, 3)


@pytest.mark.parametrize("x", [0, 1, -1, Fraction(-16), Fraction(63, 4), Fraction(1, 10**9)])
def test_exp_interval(x):
    low, high = exp_interval(Fraction(x))
    with mpmath.workdps(60):
        true = mpmath.exp(mpmath.mpf(Fraction(x).numerator) / Fraction(x).denominator)
        assert mpmath.mpf(low.numerator) / low.denominator <= true * (1 + mpmath.mpf(10) ** -58)
        assert mpmath.mpf(high.numerator) / high.denominator >= true * (1 - mpmath.mpf(10) ** -58)
    assert high - low <= high / 10**25


def test_second_prover_in_and_out_of_its_process():
    p = minimax(3, 1.0)
    lower, upper, level = prove(list(p.coefficients), Fraction(1))
    assert lower <= p.upper and p.lower <= upper
    assert level == pytest.approx(upper, rel=1e-10)  # the best polynomial alternates
    assert second_proofs(((p.coefficients, 1.0),)) == [(lower, upper, level)]


def test_second_prover_against_sampling():
    c = [Fraction(x, 7) for x in (9, 5, -4, 3)]
    lower, upper, level = prove(c, Fraction(3, 2))
    assert lower <= upper and level == 0.0  # the errors of this one do not alternate
    sampled = float(sampled_error(c, Fraction(3, 2)))
    assert sampled <= upper
    assert lower == pytest.approx(sampled, rel=1e-9)
    assert math.isclose(upper, relative_error(c, 1.5)[1], rel_tol=1e-9)


def test_second_prover_sees_ends_and_extrema():
    """Taylor's error has its only extremum at 0; that of the best polynomial turns g times."""
    assert len(errors(list(taylor(4, 1.0).coefficients), Fraction(1))) == 3
    assert len(errors(list(minimax(4, 1.0).coefficients), Fraction(1))) == 6
