"""What products of operands split in two lose, over all high parts and the largest low ones.

A number is high + low: high is h times a power of two, h in 1, 1 + 2^-7, .., 2 - 2^-7, and
|low| <= l v in the same unit, v = 2^-8; l = 1 as rounded. A product's low part is rounded twice,
by half a unit in the last of its 8 places each, v times the power of two below its size; what is
left out is low times low. Everything here is relative to that, enumerated and from above.
"""

from __future__ import annotations

from functools import cache

import numpy as np

V = 2.0**-8
HIGH = 1.0 + np.arange(128) / 128.0
Parts = tuple[np.ndarray, np.ndarray]


def _below(x: np.ndarray) -> np.ndarray:
    """Return the largest power of two that is at most x."""
    return np.ldexp(0.5, np.frexp(x)[1])


def product(x: Parts, s: Parts) -> tuple[Parts, np.ndarray]:
    """Return ((h, l) of x s, relative error of the product), arrays that broadcast."""
    (a, of_a), (b, of_b) = x, s
    exponent = np.frexp(a * b)[1] - 8
    high = np.ldexp(np.rint(np.ldexp(a * b, -exponent)), exponent)
    inner = of_a * b + abs(high - a * b) / V
    lost = V * _below(inner)
    outer = inner + lost + a * of_b
    again = V * _below(outer)
    smallest = (a - of_a * V) * (b - of_b * V)
    unit = _below(high)
    error = V * (lost + again + V * of_a * of_b) / smallest
    return (high / unit, (outer + again) / unit), error


@cache
def split_pass(degree: int) -> float:
    """Return the relative error of a degree in one pass, the key pass or the query pass, at most.

    Features, the other operand (the weights, or the moment), and low times low left out of their
    product; sums not counted. Both passes multiply what is there by the next variable.
    """
    a, b, c = (HIGH.reshape(shape) for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)))
    one = np.ones(1)
    found, error = (a, one), np.zeros(1)
    for x in (b, c)[: degree - 1]:
        found, then = product(found, (x, one))
        error = (1.0 + error) * (1.0 + then) - 1.0
    return _passed(found, error)


def _passed(found: Parts, error: np.ndarray) -> float:
    """Return the largest error of a feature times an operand as rounded."""
    high, low = found
    left_out = V * low / (high - V * low) * (V / (1.0 - V))
    return float(((1.0 + error) * (1.0 + left_out) * (1.0 + V * V) - 1.0).max())
