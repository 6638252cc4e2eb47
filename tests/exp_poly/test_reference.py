import flint
import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad.exp_poly import estimate_error, minimax_error
from subquad.exp_poly.balls import float_below, precision
from subquad.exp_poly.reference import kepler_points, levelled_error


@settings(max_examples=60, deadline=None)
@given(degree=st.integers(0, 12), B=st.floats(1e-6, 8.0))
def test_estimate_is_close_and_not_above(degree, B):
    lower, upper = minimax_error(degree, B)
    assert 0.98 * lower <= estimate_error(degree, B) <= upper * (1 + 1e-12)


@pytest.mark.parametrize("B", [5e-324, 1e-300, 1e-12, 0.1, 8.0, 32.0, 64.0])
@pytest.mark.parametrize("degree", [0, 1, 2, 7, 60, 256])
def test_estimate_never_raises(degree, B):
    assert 0 <= estimate_error(degree, B) <= 1
    assert 0.9 * minimax_error(min(degree, 7), B)[0] <= estimate_error(min(degree, 7), B)


def test_estimate_on_a_point():
    assert estimate_error(3, 0.0) == 0.0


@pytest.mark.parametrize("degree, B", [(0, 1.0), (5, 0.5), (5, 3.0), (4, 8.0), (30, 64.0)])
def test_points_solve_keplers_equation(degree, B):
    points = kepler_points(degree, B)
    n = degree + 1
    assert len(points) == n + 1
    assert points[0] == 1 and points[-1] == -1
    assert all(x > y for x, y in zip(points, points[1:], strict=False))
    kappa = min(B * n / (n + 1), 0.98 * n)
    for j, x in enumerate(points):
        theta = mpmath.acos(x)
        assert abs(n * theta - kappa * mpmath.sin(theta) - j * mpmath.pi) < 1e-6


@settings(max_examples=30, deadline=None)
@given(
    ticks=st.lists(st.integers(-1000, 1000), min_size=2, max_size=8, unique=True),
    B=st.floats(0.1, 6.0),
)
def test_any_points_prove_a_lower_bound(ticks, B):
    # The same number by hand: the best error on these few points alone, from Cramer's rule.
    ticks = sorted(ticks, reverse=True)
    with precision(200):
        points = [(flint.arb(B) * t / 1000).mid() for t in ticks]
        level = float_below(levelled_error(points)[0])
    with mpmath.workdps(60):
        x = [mpmath.mpf(B) * t / 1000 for t in ticks]
        size = len(x)
        rows = [
            [y**k for k in range(size - 1)] + [(-1) ** i * mpmath.exp(y)] for i, y in enumerate(x)
        ]
        solution = mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix([mpmath.exp(y) for y in x]))
        assert level == pytest.approx(float(abs(solution[size - 1])), rel=1e-12)
    assert level <= minimax_error(size - 2, B)[1]
