"""Taylor's polynomial of exp about 0, with its proved relative error."""

import math
from fractions import Fraction
from functools import lru_cache

from subquad.exp_poly.arguments import checked_degree, checked_logit_bound
from subquad.exp_poly.enclosure import relative_error
from subquad.exp_poly.polynomial import ExpPolynomial


@lru_cache(maxsize=1024)
def taylor(degree: int, logit_bound: float) -> ExpPolynomial:
    """Return sum_k x^k / k!, k <= degree, with its relative error on [-logit_bound, logit_bound].

    The derivative of p(x) exp(-x) is -x^degree exp(-x) / degree!, so the error is largest at an end
    point: at -logit_bound, where it may well exceed 1. Even degrees are positive on the whole line;
    odd ones are negative far to the left. The coefficients are the only ones of this package that
    are not dyadic.

    Parameters
    ----------
    degree : int
        0..256.
    logit_bound : float
        In [0, 64].

    Returns
    -------
    ExpPolynomial
        Of family "taylor".

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.
    """
    g, B = checked_degree(degree), checked_logit_bound(logit_bound)
    coefficients = tuple(Fraction(1, math.factorial(k)) for k in range(g + 1))
    return ExpPolynomial(coefficients, B, *relative_error(coefficients, B), family="taylor")
