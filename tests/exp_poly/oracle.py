"""What mpmath makes of a relative error: slow, by sampling, and without a line of the package."""

from fractions import Fraction

import mpmath


def mpf(value):
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return mpmath.mpf(value)


def evaluate(coefficients, x):
    return mpmath.polyval([mpf(c) for c in reversed(coefficients)], x)


def sampled_error(coefficients, B, *, digits=50, points=400):
    """The largest |p(x) exp(-x) - 1| found: end points, a grid, a search about its best point."""
    with mpmath.workdps(digits):
        high_first = [mpf(c) for c in reversed(coefficients)]

        def error(x):
            return abs(mpmath.polyval(high_first, x) * mpmath.exp(-x) - 1)

        B = mpf(B)
        grid = [-B * mpmath.cos(mpmath.pi * i / points) for i in range(points + 1)]
        values = [error(x) for x in grid]
        best = max(range(points + 1), key=values.__getitem__)
        low, high = grid[max(0, best - 1)], grid[min(points, best + 1)]
        for _ in range(30):  # the maximum is flat: 30 thirds of a bracket are plenty
            third = (high - low) / 3
            left, right = low + third, high - third
            if error(left) < error(right):
                low = left
            else:
                high = right
        largest = max(values[best], error((low + high) / 2))
        return largest * (1 - mpmath.mpf(10) ** -30)  # what mpmath itself may round up
