"""Products block by block, and features bit for bit."""

from unittest import mock

import numpy as np
import pytest

from subquad.engine import lengths
from subquad.engine.cpu.tiles import FeatureTile, product
from subquad.features import block_sizes, monomials


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 15, 16, 40, 417])
@pytest.mark.parametrize(("inner", "columns"), [(1, 2), (512, 65), (300, 17), (512, 600)])
def test_product_is_matmul(dtype, rows, inner, columns):
    rng = np.random.default_rng(rows * inner)
    left = rng.integers(-9, 10, (inner, rows)).astype(dtype).T
    right = rng.integers(-9, 10, (inner, columns)).astype(dtype)
    for operand in (left, np.ascontiguousarray(left)):
        out = np.full((rows, columns), np.nan, dtype)
        product(operand, right, out)
        assert np.array_equal(out, operand @ right)


def test_no_rows_and_no_tokens():
    out = np.empty((0, 3))
    product(np.empty((0, 5)), np.empty((5, 3)), out)
    out = np.empty((4, 3))
    product(np.empty((4, 0)), np.empty((0, 3)), out)
    assert not out.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("d", "degree"), [(1, 3), (5, 1), (7, 2), (4, 5)])
def test_features_bit_for_bit(dtype, d, degree):
    x = np.random.default_rng(d).standard_normal((23, d)).astype(dtype)
    x[3] *= 1e-25  # products that underflow, by degrees
    ends = np.cumsum(block_sizes(d, degree))
    with mock.patch.object(lengths, "FEATURE_CHUNK", 6):
        tile = FeatureTile(d, degree, 16, np.dtype(dtype))
        for rows in (x[:16], x[16:], x[:16]):  # a shorter tile, and back
            tile.load(rows)
            expected = monomials(rows, degree).T
            for k in range(1, degree + 1):
                for start, stop, features in tile.blocks(k):
                    block = expected[ends[k - 1] + start : ends[k - 1] + stop]
                    assert np.array_equal(features, block)
