"""The passes by hand and the accounting: the model itself, and what it says of `fused_errors`."""

import re
from collections import Counter

import numpy as np
import pytest

from proofs_checks.checks.tensor_cores import claims
from proofs_checks.checks.tensor_cores.model import (
    bfloat16,
    feature,
    monomials,
    multinomial,
    multiplied,
    operand,
    passes,
    query_blocks,
    step,
)
from proofs_checks.checks.tensor_cores.split import split_pass
from subquad.arrays.formats import FORMATS
from subquad.bounds.rounding import TENSOR_CORES
from subquad.engine.fused.rounding import STEP_ERROR, V, fused_errors
from subquad.engine.fused.sizes import OPERANDS, sizes_for
from subquad.methods.method import stored_norm_bound


def test_bfloat16_is_float32_cut_to_sixteen_bits_and_rounded_to_even():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    bits[::2] = bits[::2] & 0xFFFF0000 | 0x8000  # ties
    bits = bits[(bits >> 23 & 255) != 255]
    wide = bits.astype(np.uint64)
    rounded = (wide + 0x7FFF + (wide >> 16 & 1)) & 0xFFFF0000
    kept = (rounded >> 23 & 255) != 255
    expected = rounded.astype(np.uint32).view(np.float32)[kept].astype(np.float64)
    assert (bfloat16(bits.view(np.float32)[kept].astype(np.float64)) == expected).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_step_keeps_two_bits_below_the_last(sign):
    """As the test on the device finds it: 2^j products of 2^-(23 + j) beside 1, j <= 2."""
    for j in range(4):
        products = np.zeros((16, 1))
        products[: 1 << j] = sign * 2.0 ** -(23 + j)
        assert step(np.ones(1), products)[0] - 1.0 == (sign * 2.0**-23 if j < 3 else 0.0)


def test_a_step_rounds_towards_zero_and_adds_exactly_else():
    rng = np.random.default_rng(1)
    whole = rng.integers(-1000, 1000, (16, 50)).astype(float)
    assert (step(np.full(50, 7.0), whole) == whole.sum(axis=0) + 7.0).all()
    half = np.full((16, 1), 1.5 * 2.0**-23)  # beside 4 the last bit is 2^-21, 2^-23 is kept
    assert step(np.array([-4.0]), -half)[0] == -4.0 - 16 * 2.0**-23
    one = np.where(np.arange(16) == 5, 3.0 * 2.0**-23, 0.0)[:, None]
    assert step(np.array([-4.0]), -one)[0] == -4.0


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("degree", [2, 3])
def test_the_blocks_hold_every_monomial_once(degree, parts):
    blocks = list(query_blocks(degree, parts))
    found = Counter(tuple(sorted(order)) for block in blocks for order in block if order)
    assert found == Counter(monomials(degree))
    assert len(blocks) == sizes_for(16, 8, degree, OPERANDS[parts - 1]).blocks
    assert sum(multinomial(m) for m in monomials(degree)) == sum(16**k for k in (1, 2, 3)[:degree])


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("degree", [2, 3])
def test_the_accounting_has_the_blocks_of_the_passes(degree, parts):
    for d in range(16, 129, 16):
        counted = claims._blocks(d, degree, parts)
        assert counted == sizes_for(d, 8, degree, OPERANDS[parts - 1]).blocks


@pytest.mark.parametrize("parts", [1, 2])
def test_the_passes_by_hand_compute_the_polynomial(parts):
    rng = np.random.default_rng(2)
    Q, K = rng.standard_normal((3, 16)) * 0.1, rng.standard_normal((70, 16))
    W = np.hstack([rng.uniform(-1, 1, (70, 2)), np.ones((70, 1))])
    numerator, by_degree = passes(Q, K, W, [2.0, 1.0, 0.7, 0.3], parts, groups=3)
    logits = Q @ K.T
    near = {"rtol": 0, "atol": (2.0, 2e-3)[parts - 1]}  # a sign or a multinomial off is 10 or more
    np.testing.assert_allclose(
        by_degree[:, 1:] / 3.0,
        np.stack([(logits**k).sum(axis=1) for k in (1, 2, 3)], axis=1) / 3.0,
        **near,
    )
    weights = 2.0 + logits + 0.7 * logits**2 + 0.3 * logits**3
    np.testing.assert_allclose(numerator, weights @ W[:, :-1], **near)


def test_split_products_lose_what_is_said_at_most_and_not_far_less():
    rng = np.random.default_rng(3)
    mantissa = 1.0 + (rng.integers(0, 128, (4, 400_000)) + 0.5 * (1 - 2.0**-9)) / 128.0
    mantissa[:, ::2] = 1.0 + (rng.integers(0, 24, (4, 200_000)) + 0.499) / 128.0
    *x, w = (operand(m[:, None], 2) for m in mantissa)
    variables = tuple(np.hstack([number[part] for number in x]) for part in (0, 1))
    for degree in (1, 2, 3):
        found = feature(variables, tuple(range(degree)))
        sums = multiplied(found, tuple(part[:, 0] for part in w))
        exact = np.prod(sum(variables)[:, :degree], axis=1) * mantissa[3]
        off = float(abs(sums / exact - 1.0).max())
        assert 0.6 * split_pass(degree) <= off <= split_pass(degree)


def test_without_the_moments_the_accounting_alone_refutes():
    assert claims._accounting(fused_errors).verdict == "holds"
    assert claims._accounting(claims.moments_forgotten).verdict == "refuted"


def test_the_assumption_names_the_error_of_a_step():
    (found,) = re.findall(r"(\d+) 2\^-(\d+)", TENSOR_CORES)
    assert int(found[0]) * 2.0 ** -int(found[1]) == STEP_ERROR
    assert "sum of the absolute values" in TENSOR_CORES  # of the largest alone it is false


def test_rows_as_rounded_are_within_what_queries_are_widened_by():
    """The bound is of rounded rows, the norm moments of keys before they were: (1 + u)^2."""
    for name in OPERANDS:
        assert stored_norm_bound(1.0, name) >= (1.0 + FORMATS[name].u) ** 2
    assert FORMATS["bfloat16"].u == V
