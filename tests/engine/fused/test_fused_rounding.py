"""The rounding of the fused passes against bfloat16 and its sums done by hand."""

import itertools
import math

import numpy as np

from subquad.engine.fused.rounding import V, fused_errors
from subquad.engine.fused.sizes import OPERANDS


def bfloat16(x):
    """Return x rounded to 8 significant bits, ties to even, in float64: range is not the matter."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 256.0), exponent - 8)


def split(x):
    """Return x as the sum of two numbers of 8 bits."""
    high = bfloat16(x)
    return high, bfloat16(x - high)


def product(a, b):
    """Return the product of two split numbers as the kernels form it, from 8-bit operations."""
    (ah, al), (bh, bl) = a, b
    high = bfloat16(ah * bh)
    low = bfloat16(ah * bh - high)
    low = bfloat16(al * bh + low)
    return high, bfloat16(ah * bl + low)


def operands(count, seed):
    """Return random numbers, those just above and below where roundings are worst among them."""
    rng = np.random.default_rng(seed)
    mantissa = rng.uniform(1.0, 2.0, count)
    near = np.round(mantissa[::2] * 128.0) / 128.0 + rng.choice([-1, 1], len(mantissa[::2])) / 256.1
    mantissa[::2] = near
    return mantissa * rng.choice([-1.0, 1.0], count)


def test_a_split_product_is_within_its_bound_and_not_far_inside():
    x, y = operands(400_000, 0), operands(400_000, 1)
    a, b = split(x), split(y)
    assert np.abs(sum(a) - x).max() <= V**2 * 2.0
    exact = (a[0] + a[1]) * (b[0] + b[1])
    off = np.abs(sum(product(a, b)) - exact) / np.abs(exact)
    assert off.max() <= 7.0 * V**2
    assert off.max() >= 2.0 * V**2  # a bound of 2 would be false


def test_plain_products_are_within_v():
    a, b = bfloat16(operands(100_000, 2)), bfloat16(operands(100_000, 3))
    off = np.abs(bfloat16(a * b) / (a * b) - 1.0)
    assert 0.9 * V / 2.0 <= off.max() <= V


def cut_off_sum(total, products):
    """Return one step: aligned to the largest, cut off two bits below float32, added, cut off."""
    largest = max(abs(total), *map(abs, products))
    if largest == 0.0:
        return 0.0
    unit = math.ldexp(1.0, math.frexp(largest)[1] - 26)
    exact = sum(math.trunc(x / unit) for x in (total, *products)) * unit
    last = math.ldexp(1.0, math.frexp(exact)[1] - 24) if exact else 1.0
    return math.trunc(exact / last) * last


def test_runs_of_steps_stay_within_their_bound():
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(5):
        steps = rng.uniform(0.0, 1.0, (640, 16)) * 2.0 ** rng.integers(-8, 1, (640, 1))
        total = 0.0
        for products in steps:
            total = cut_off_sum(total, products.tolist())
        off = abs(total - math.fsum(steps.ravel())) / math.fsum(steps.ravel())
        # What the accounting allows for adding alone, the query pass left out.
        allowed = 5.0 * 2.0**-23 * 640
        assert off <= allowed
        worst = max(worst, off / allowed)
    assert worst >= 0.02
    many, few = (fused_errors(16, 2, "bfloat16", 16 * steps) for steps in (640, 64))
    assert many[1] - few[1] >= 5.0 * 2.0**-23 * 500  # and it is in there


def test_errors_grow_with_the_degree_and_refuse_what_they_cannot_bound():
    for d, degree, operands in itertools.product((16, 32, 64, 96, 128), (2, 3), OPERANDS):
        errors = fused_errors(d, degree, operands, 65_536)
        assert len(errors) == degree + 1
        assert list(errors) == sorted(errors)
    wide = fused_errors(128, 3, "bfloat16", 2**30)
    assert all(math.isinf(e) or e <= 3.0 * 2.0**-6 * 1.04 for e in wide)
