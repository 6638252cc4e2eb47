"""Rounding bounds against what rounding does: aligned data, underflow, and the two assumptions."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad.arrays.formats import FORMATS
from subquad.bounds import rounding
from subquad.bounds.rounding import (
    exact_logit_error,
    exact_sum_error,
    gamma,
    polynomial_sum_error,
    preparation_error,
    storage_error,
)
from subquad.engine import EXACT_KEY_BLOCK, accumulate, contract, exact_block
from subquad.methods.polynomial.sums import gammas_for

WIDE = np.longdouble
DTYPES = ("float32", "float64")


def test_formats_are_those_of_the_machine():
    for name in ("float16", "float32", "float64"):
        info, form = np.finfo(name), FORMATS[name]
        assert form.u == float(info.eps) / 2
        assert form.normal == float(info.smallest_normal)


def test_operands_are_of_eight_bits_each_and_lose_what_float32_flushes():
    assert FORMATS["bfloat16"].u == 2.0**-8
    assert FORMATS["bfloat16x3"].u == FORMATS["bfloat16"].u ** 2
    for name in ("bfloat16", "bfloat16x3"):  # the smallest subnormal, as the bounds count it
        assert 2.0 * FORMATS[name].u * FORMATS[name].normal == FORMATS["float32"].normal


@given(length=st.integers(0, 2**23), dtype=st.sampled_from(DTYPES))
def test_gamma_is_an_upper_bound(length, dtype):
    ku = Fraction(length) * Fraction(FORMATS[dtype].u)
    assert Fraction(float(gamma(length, FORMATS[dtype].u))) >= ku / (1 - ku)
    assert float(gamma(length, FORMATS[dtype].u)) <= float(ku / (1 - ku)) * (1.0 + 1e-12)


def test_gamma_gives_up_where_it_must():
    assert math.isinf(float(gamma(2**24, FORMATS["float32"].u)))
    assert math.isinf(float(gamma(2**25, FORMATS["float32"].u)))
    assert math.isnan(float(gamma(math.nan, 1e-8))) or math.isinf(float(gamma(math.nan, 1e-8)))


def aligned(m, d, size, seed=0, n=16):
    """Return Q (n, d), K (m, d), W = [V, 1]: all on one line, so that sums do not cancel."""
    rng = np.random.default_rng(seed)
    axis = rng.uniform(0.5, 1.0, d)
    axis *= math.sqrt(size) / np.linalg.norm(axis)
    Q = axis * rng.uniform(0.9, 1.0, (n, 1))
    K = axis * rng.choice([-1.0, 1.0], (m, 1)) * rng.uniform(0.9, 1.0, (m, 1))
    V = np.sign(K[:, :1]) * rng.uniform(0.9, 1.0, (m, 2))
    return Q, K, np.concatenate([V, np.ones((m, 1))], axis=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("degree", [0, 1, 2, 5])
@pytest.mark.parametrize(("m", "d"), [(20_000, 3), (700, 16), (1, 1)])
def test_polynomial_sum_error_is_sound(m, d, degree, dtype):
    """The passes in `dtype` against the same polynomial of the same inputs, extended precision."""
    Q, K, W = (x.astype(dtype) for x in aligned(m, d, 2.0))
    c = np.array([1.0 / math.factorial(k) for k in range(degree + 1)])
    state = accumulate(K, W, degree, key_centre=np.zeros(d))
    numerator, by_degree = contract(Q, state, c)
    bound = polynomial_sum_error(
        c,
        np.linalg.norm(Q.astype(float), axis=1) * (1 + 1e-12),
        state.norm_moments,
        gammas_for(d, m, degree, dtype),
    )
    logits = Q.astype(WIDE) @ K.astype(WIDE).T
    weights = sum(WIDE(ck) * logits**k for k, ck in enumerate(c))
    sums = weights @ W.astype(WIDE)
    off = np.abs(numerator - sums[:, :-1]).max(axis=1) + np.abs(by_degree @ c - sums[:, -1])
    assert np.all(off <= bound)
    # It is a bound of this computation, not of anything: 1e7 times less would be false.
    assert m == 1 or degree == 0 or np.any(off > 1e-7 * bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0.5, 4.0, 60.0])
def test_exact_errors_are_sound(size, dtype):
    """The exact path of prepared inputs: one perturbation of the logits, one rounding of sums."""
    m, d = 5000, 8
    Q, K, W = (x.astype(dtype) for x in aligned(m, d, size))
    numerator, normaliser, shift = exact_block(Q, K, W)
    logits = Q.astype(WIDE) @ K.astype(WIDE).T
    weights = np.exp(logits - shift[:, None] * np.log(WIDE(2)))
    sums = weights @ W.astype(WIDE)
    B = np.linalg.norm(Q.astype(float), axis=1) * np.linalg.norm(K.astype(float), axis=1).max()
    delta = exact_logit_error(B, d, dtype) - preparation_error(B, dtype)
    blocks = -(-m // EXACT_KEY_BLOCK)
    rounded = exact_sum_error(normaliser, m, EXACT_KEY_BLOCK, blocks, dtype)
    allowed = np.expm1(delta.astype(WIDE)) * sums[:, -1]
    assert np.all(np.abs(numerator - sums[:, :-1]).max(axis=1) <= allowed + rounded)
    assert np.all(np.abs(normaliser - sums[:, -1]) <= allowed + rounded)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from((1e-3, 1.0, 40.0)),
    dtype=st.sampled_from(DTYPES),
)
def test_preparation_error_is_sound(seed, size, dtype):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 20))
    q, k = rng.standard_normal((2, d)) * math.sqrt(size)
    stored = (q * (1 + 2.0**-53)).astype(dtype), (k * (1 - 2.0**-53)).astype(dtype)
    off = abs(stored[0].astype(WIDE) @ stored[1].astype(WIDE) - q.astype(WIDE) @ k.astype(WIDE))
    bound = preparation_error(np.linalg.norm(q) * np.linalg.norm(k), dtype)
    assert float(off) <= float(bound)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    output=st.sampled_from(("float16", "float32", "float64")),
    compute=st.sampled_from(DTYPES),
    offset=st.sampled_from((0.0, 1.0, 1e3)),
    power=st.sampled_from((0, -4, -30, -41, 30)),
)
def test_storage_error_is_sound(seed, output, compute, offset, power):
    """Values in, one of their means out: denormals, offsets, float16; through the frame itself."""
    from subquad.head.problem import Problem

    rng = np.random.default_rng(seed)
    limit = float(np.finfo(output).max) / 4
    raw = (rng.standard_normal((40, 3)) + offset * rng.choice([-1.0, 1.0], 3)) * 10.0**power
    V = np.clip(raw, -limit, limit).astype(output)
    head = Problem(np.zeros((1, 1), output), np.zeros((40, 1), output), V).heads[0]
    entered = head.frame.values(V, None, compute)[:, :-1]
    weights = rng.dirichlet(np.full(40, 0.3), size=5)
    left = head.frame.restore(weights @ entered.astype(float), output)
    low, high = V.min(axis=0).astype(WIDE), V.max(axis=0).astype(WIDE)
    radius = (high - low) / 2
    true = weights.astype(WIDE) @ V.astype(WIDE) / weights.astype(WIDE).sum(axis=1)[:, None]
    off = np.abs(left.astype(WIDE) - true) / np.where(radius > 0, radius, 1)
    # The weights sum to 1 only to a few units of 2**-53, which is no part of storing.
    bound = storage_error(head.stats.value_ratio, compute, output)
    assert np.all(off <= bound + 40 * 2.0**-53)


def test_storage_error_sees_the_offset():
    assert storage_error(0.0, "float32", "float16") == 0.0
    assert storage_error(1e3, "float32", "float32") > 900 * storage_error(1.0, "float64", "float32")
    assert math.isinf(storage_error(math.inf, "float32", "float32"))


# The assumptions that no bound can do without.


def worst_ulps(x, computed, true):
    """Return the largest error of exp in units of the last place, and where."""
    spacing = np.spacing(np.abs(computed)).astype(WIDE)
    ulps = np.abs(computed.astype(WIDE) - true) / spacing
    i = int(np.argmax(ulps))
    return float(ulps[i]), float(x[i])


def test_exp_float32_is_within_4_ulp():
    """Every 256th float of the range in which exp is normal, offset at random: 2**22 of them."""
    rng = np.random.default_rng(0)
    top, bottom = np.float32(88.72), np.float32(-87.33)
    bits = [
        np.arange(0, end.view(np.uint32) & 0x7FFFFFFF, 512, dtype=np.uint32)
        for end in (top, bottom)
    ]
    for sign, start in ((0, bits[0]), (0x80000000, bits[1])):
        x = (start + rng.integers(0, 512, start.size, dtype=np.uint32)) | np.uint32(sign)
        x = x.view(np.float32)
        x = x[(x <= top) & (x >= bottom)]
        computed = np.exp(x)
        # float64 exp is 2**29 times finer; the next test covers it.
        ulps, where = worst_ulps(x, computed, np.exp(x.astype(np.float64)))
        assert ulps <= rounding.EXP_ULPS, where
        assert x.size > 10**6


def test_exp_float64_is_within_4_ulp():
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [
            rng.uniform(-708.0, 709.0, 2000),
            rng.uniform(-1.0, 1.0, 500),
            rng.choice([-1.0, 1.0], 500) * 10.0 ** rng.uniform(-300.0, 2.8, 500),
        ]
    )
    x = x[(x > -708.0) & (x < 709.0)]
    with mpmath.workdps(40):
        for value, computed in zip(x, np.exp(x), strict=True):
            true = mpmath.exp(mpmath.mpf(float(value)))
            ulps = abs(mpmath.mpf(float(computed)) - true) / mpmath.mpf(float(np.spacing(computed)))
            assert ulps <= rounding.EXP_ULPS, value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [(64, 512, 8), (256, 64, 512), (1, 513, 24), (512, 512, 512), (100, 1, 7)],
)
def test_products_are_sums_of_products(rows, inner, columns, dtype):
    """Entry by entry within gamma_k sum |x||y|: Strassen's method fails it on graded entries."""
    rng = np.random.default_rng(rows)
    # Entry sizes that differ by 2**20 between rows: a norm-wise method loses the small ones.
    A = rng.standard_normal((rows, inner)) * 2.0 ** rng.integers(-20, 1, (rows, 1))
    B = rng.standard_normal((inner, columns)) * 2.0 ** rng.integers(-20, 1, (1, columns))
    A, B = A.astype(dtype), B.astype(dtype)
    few = slice(0, 40)
    true = A[few].astype(WIDE) @ B.astype(WIDE)
    size = np.abs(A[few]).astype(WIDE) @ np.abs(B).astype(WIDE)
    allowed = float(gamma(inner, FORMATS[dtype].u)) * size
    assert np.all(np.abs((A @ B)[few].astype(WIDE) - true) <= allowed)


def strassen(A, B):
    """One step of Strassen's method: seven products, errors by the largest entries."""
    h = len(A) // 2
    a, b, c, d = A[:h, :h], A[:h, h:], A[h:, :h], A[h:, h:]
    e, f, g, k = B[:h, :h], B[:h, h:], B[h:, :h], B[h:, h:]
    m = [
        (a + d) @ (e + k),
        (c + d) @ e,
        a @ (f - k),
        d @ (g - e),
        (a + b) @ k,
        (c - a) @ (e + f),
        (b - d) @ (g + k),
    ]
    return np.block(
        [[m[0] + m[3] - m[4] + m[6], m[2] + m[4]], [m[1] + m[3], m[0] - m[1] + m[2] + m[5]]]
    )


def test_the_check_of_products_would_see_strassen():
    rng = np.random.default_rng(5)
    A = rng.standard_normal((64, 64)) * 2.0 ** -np.repeat([0, 20], 32)[:, None]
    B = rng.standard_normal((64, 64)) * 2.0 ** -np.repeat([0, 20], 32)[None, :]
    A, B = A.astype(np.float32), B.astype(np.float32)
    size = np.abs(A).astype(WIDE) @ np.abs(B).astype(WIDE)
    allowed = float(gamma(64, FORMATS["float32"].u)) * size
    assert not np.all(np.abs(strassen(A, B) - A.astype(WIDE) @ B.astype(WIDE)) <= allowed)
