"""Checked arguments of this package: a degree, a logit bound, a sequence of coefficients.

Apart from `subquad.head.inputs`, which is on a floor above.
"""

import numbers
import operator
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

MAX_DEGREE = 256
MAX_LOGIT_BOUND = 64.0


def checked_degree(degree: int) -> int:
    """Return `degree` as an int in 0..256.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is out of range.
    """
    try:
        if isinstance(degree, bool):
            raise TypeError
        value = operator.index(degree)
    except TypeError:
        msg = f"`degree` is {degree!r}: it needs to be an integer."
        raise TypeError(msg) from None
    if not 0 <= value <= MAX_DEGREE:
        shown = value if abs(value) < 10**24 else "far outside"
        msg = f"`degree` is {shown}: it needs to be in 0..{MAX_DEGREE}."
        raise ValueError(msg)
    return value


def checked_logit_bound(logit_bound: float) -> float:
    """Return `logit_bound` as a float in [0, 64].

    Raises
    ------
    TypeError
        If it is no real number.
    ValueError
        If it is nan or out of range. Beyond 64 a polynomial near exp has values from e^-64 to e^64,
        which no weighted sum in floating point survives; the exact method is the one to take there.
    """
    value = _checked_float("logit_bound", logit_bound)
    if not 0 <= value <= MAX_LOGIT_BOUND:
        msg = (
            f"`logit_bound` is {value!r}: it needs to be in [0, {MAX_LOGIT_BOUND:g}]. Above "
            "that take the exact method, or split off the large rows first."
        )
        raise ValueError(msg)
    return abs(value)  # -0.0 becomes 0.0


def checked_eps(eps: float) -> float:
    """Return `eps` as a float with 0 < eps < 1.

    Raises
    ------
    TypeError
        If it is no real number.
    ValueError
        If it is nan or out of range.
    """
    value = _checked_float("eps", eps)
    if not 0 < value < 1:
        msg = (
            f"`eps` is {value!r}: it needs 0 < eps < 1, being a relative error. 0 is out of "
            "reach of polynomials, and at 1 the zero polynomial would do."
        )
        raise ValueError(msg)
    return value


def checked_coefficients(coefficients: Iterable[Fraction | float | int]) -> tuple[Fraction, ...]:
    """Return `coefficients` as exact fractions, floats taken at their exact value.

    Raises
    ------
    TypeError
        If one is none of these types.
    ValueError
        If there are none, or one is not finite.
    """
    values = tuple(coefficients)
    if not values:
        msg = "`coefficients` is empty: a polynomial needs at least the coefficient of degree 0."
        raise ValueError(msg)
    return tuple(_exact(k, value) for k, value in enumerate(values))


def _exact(k: int, value: Fraction | float | int) -> Fraction:
    if isinstance(value, numbers.Integral):  # NumPy's integers have no as_integer_ratio
        return Fraction(int(value))
    try:
        return Fraction(*value.as_integer_ratio())
    except AttributeError:
        msg = f"`coefficients[{k}]` is {value!r}: it needs to be a Fraction, a float or an int."
        raise TypeError(msg) from None
    except (ValueError, OverflowError):
        msg = f"`coefficients[{k}]` is {value!r}: every coefficient needs to be finite."
        raise ValueError(msg) from None


def _checked_float(name: str, value: float) -> float:
    try:
        if isinstance(value, str | bool | np.bool_):  # float() would read them
            raise TypeError
        return float(value)
    except OverflowError:
        msg = f"`{name}` is past the range of float64, 1.8e308: it needs to be within it."
        raise ValueError(msg) from None
    except (TypeError, ValueError):
        msg = f"`{name}` is {value!r}: it needs to be a real number."
        raise TypeError(msg) from None
