"""Chebyshev's two polynomials near exp, interpolated and truncated, with proved relative errors.

Both are nearly best in absolute error, which counts an error at -B as much as one at B; relative to
exp the first is exp(2 B) times worse. They are here to be compared with.
"""

from functools import lru_cache

import flint

from subquad.exp_poly.arguments import checked_degree, checked_logit_bound
from subquad.exp_poly.balls import ball, precision
from subquad.exp_poly.enclosure import enclose
from subquad.exp_poly.minimax import dyadic_coefficients, minimax, working_bits
from subquad.exp_poly.polynomial import ExpPolynomial


@lru_cache(maxsize=1024)
def chebyshev_interpolant(degree: int, logit_bound: float) -> ExpPolynomial:
    """Return the interpolant of exp at degree + 1 Chebyshev nodes of [-logit_bound, logit_bound].

    The nodes are B cos((2 j + 1) pi / (2 degree + 2)). For an even degree 0 is one of them, so p(0)
    = 1.

    Parameters
    ----------
    degree : int
        0..256.
    logit_bound : float
        B, in [0, 64].

    Returns
    -------
    ExpPolynomial
        Of family "chebyshev". `upper` may exceed 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.
    """
    g, B = checked_degree(degree), checked_logit_bound(logit_bound)
    if B == 0:
        return _at_zero(g)
    with precision(working_bits(g, B)):
        angles = [flint.fmpq(2 * j + 1, 2 * g + 2) for j in range(g + 1)]
        nodes = [(ball(B) * flint.arb.cos_pi_fmpq(angle)).mid() for angle in angles]
        p = flint.arb_poly.interpolate(nodes, [x.exp().mid() for x in nodes], "newton")
        return _record(p, g, B)


@lru_cache(maxsize=1024)
def chebyshev_series(degree: int, logit_bound: float) -> ExpPolynomial:
    """Return the Chebyshev series of exp on [-logit_bound, logit_bound], cut after `degree`.

    exp(B t) = I_0(B) + 2 sum_k I_k(B) T_k(t), I_k the modified Bessel functions; the coefficients
    are rounded to dyadic fractions. Arguments, returns and errors as for `chebyshev_interpolant`.
    """
    g, B = checked_degree(degree), checked_logit_bound(logit_bound)
    if B == 0:
        return _at_zero(g)
    with precision(working_bits(g, B)):
        p = flint.arb_poly([ball(B).bessel_i(0)])
        for k in range(1, g + 1):
            p += 2 * ball(B).bessel_i(k) * flint.arb_poly(flint.fmpz_poly.chebyshev_t(k))
        in_x = [c / ball(B) ** k for k, c in enumerate(p.coeffs())]
        return _record(flint.arb_poly(in_x), g, B)


def _record(p: flint.arb_poly, degree: int, B: float) -> ExpPolynomial:
    coefficients = dyadic_coefficients(p, degree, B)
    return ExpPolynomial(coefficients, B, *enclose(coefficients, B), family="chebyshev")


def _at_zero(degree: int) -> ExpPolynomial:
    best = minimax(degree, 0.0)
    return ExpPolynomial(best.coefficients, 0.0, 0.0, 0.0, family="chebyshev")
