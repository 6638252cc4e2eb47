import mpmath
import numpy as np
import pytest

from subquad.exp_poly import chebyshev_interpolant, chebyshev_series

from .oracle import evaluate, mpf


@pytest.mark.parametrize("degree, B", [(0, 1.0), (3, 0.5), (8, 2.0), (15, 8.0)])
def test_interpolates_at_the_nodes(degree, B):
    p = chebyshev_interpolant(degree, B).coefficients
    with mpmath.workdps(60):
        for j in range(degree + 1):
            x = mpf(B) * mpmath.cos((2 * j + 1) * mpmath.pi / (2 * degree + 2))
            assert abs(evaluate(p, x) - mpmath.exp(x)) < mpmath.mpf(10) ** -28


@pytest.mark.parametrize("B", [1e-9, 0.3, 1.0, 4.0, 16.0, 64.0])
def test_even_degrees_are_one_at_zero(B):
    for degree in (0, 2, 4, 10, 40):
        assert chebyshev_interpolant(degree, B).coefficients[0] == 1
    for degree in (1, 3, 5):
        assert chebyshev_interpolant(degree, B).coefficients[0] != 1


@pytest.mark.parametrize("degree, B", [(0, 1.0), (3, 0.5), (8, 2.0), (15, 8.0)])
def test_series_has_bessel_coefficients(degree, B):
    p = chebyshev_series(degree, B)
    in_t = [float(c) * B**k for k, c in enumerate(p.coefficients)]
    series = np.polynomial.chebyshev.poly2cheb(in_t)
    bessel = [float((1 if k == 0 else 2) * mpmath.besseli(k, B)) for k in range(degree + 1)]
    assert series == pytest.approx(bessel, rel=1e-9, abs=1e-13 * bessel[0])


@pytest.mark.parametrize("degree, B", [(2, 0.5), (6, 2.0), (12, 4.0)])
def test_series_is_within_its_tail(degree, B):
    # Absolute error at most 2 sum_{k > g} I_k(B), so relative error at most exp(B) times that.
    with mpmath.workdps(40):
        tail = 2 * mpmath.nsum(lambda k: mpmath.besseli(int(k), B), [degree + 1, degree + 60])
        assert chebyshev_series(degree, B).lower <= tail * mpmath.exp(B)


@pytest.mark.parametrize("family", [chebyshev_interpolant, chebyshev_series])
def test_zero_interval(family):
    p = family(3, 0.0)
    assert (p.lower, p.upper, p.family, p.degree) == (0.0, 0.0, "chebyshev", 3)
