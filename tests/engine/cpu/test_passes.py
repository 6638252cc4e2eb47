"""The two polynomial passes against exact integers, within the rounding bound they state.

All of it for the passes on NumPy, and for the compiled ones where numba is installed.
"""

import importlib.util
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad import engine
from subquad.engine import lengths, naive
from subquad.engine.cpu import fast as cpu_fast
from subquad.engine.cpu import passes as cpu_passes
from subquad.features import block_sizes, multinomials

SMALL_SIZES = dict(TILE_WORK=1, KEY_TILE=5, TILE_MIN=2, TILE_STEP=2, FEATURE_CHUNK=4, GROUPS=3)
HAS_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="the `fast` extra is not installed")


@pytest.fixture(
    autouse=True, scope="module", params=["NumPy", pytest.param("numba", marks=needs_numba)]
)
def by(request):
    """Who runs the passes, whatever their size."""
    with mock.patch.object(cpu_fast, "LEAST_PRODUCTS", np.inf if request.param == "NumPy" else 0):
        yield request.param


def tiny_tiles(**changes):
    """Tiles of 5 tokens, chunks of 4 features, 3 groups: small data cross every border.

    The chunks of compiled passes are a constant of theirs.
    """
    small = {**SMALL_SIZES, **changes}
    if cpu_fast.LEAST_PRODUCTS == 0:
        del small["FEATURE_CHUNK"]
    return mock.patch.multiple(lengths, **small)


def integers(rng, shape, bits, offset):
    return rng.integers(-(2**bits), 2**bits, shape) + offset


def problem(seed, n, m, d, d_v, bits):
    """Asymmetric, offset integers whose products do not fit the mantissa; w >= |W|."""
    rng = np.random.default_rng(seed)
    Q, K = integers(rng, (n, d), bits, 2 ** (bits - 2)), integers(rng, (m, d), bits, 3)
    w = rng.integers(1, 2**bits, m)
    V = rng.integers(-(2**bits), 2**bits, (m, d_v))
    V = np.sign(V) * np.minimum(np.abs(V), w[:, None])
    return Q, K, np.column_stack([V, w])


def run(Q, K, W, coefficients, dtype):
    degree, d = len(coefficients) - 1, K.shape[1]
    arrays = [a.astype(dtype) for a in (Q, K, W)]
    state = engine.accumulate(*arrays[1:], degree, key_centre=np.zeros(d))
    return state, engine.contract(arrays[0], state, coefficients)


def assert_within_bound(Q, K, W, coefficients, dtype, result):
    """|error| <= sum_k |c_k| gamma_{L_k} |q|^k M_k, the left side in exact integers."""
    state, (numerator, by_degree) = result
    d, degree = K.shape[1], len(coefficients) - 1
    u = Fraction(1, 2**24 if dtype == "float32" else 2**53)
    exact_c = [Fraction(c) for c in coefficients]
    Q, K, W = (a.astype(object) for a in (Q, K, W))
    true_num, true_by_degree = naive.polynomial(Q, K, W, exact_c)
    norms = np.sqrt((Q**2).sum(axis=1).astype(float))
    tiles = lengths.tile_count(len(K), d, degree)
    for i, norm in enumerate(norms):
        allowed = Fraction(0)
        for k, c in enumerate(exact_c):
            L = lengths.contraction_length(k, d=d, degree=degree, tiles=tiles, dtype=dtype)
            gamma = Fraction(L) * u / (1 - Fraction(L) * u)
            moment = Fraction(state.norm_moments[k]) * Fraction(norm * (1 + 1e-15)) ** k
            assert abs(Fraction(by_degree[i, k]) - true_by_degree[i, k]) <= gamma * moment
            allowed += abs(c) * gamma * moment
        for column in range(numerator.shape[1]):
            assert abs(Fraction(numerator[i, column]) - true_num[i, column]) <= allowed


sizes_of_a_case = st.tuples(
    st.integers(0, 2**32),
    st.integers(1, 12),
    st.integers(1, 33),
    st.integers(1, 5),
    st.integers(1, 9),
)


@settings(deadline=None, max_examples=60)
@given(sizes_of_a_case, st.integers(0, 4), st.sampled_from(["float32", "float64"]))
def test_rounding_bound(case, degree, dtype):
    Q, K, W = problem(*case, bits=9 if dtype == "float32" else 20)
    coefficients = [(-1) ** k * 0.7 / (k + 1) for k in range(degree + 1)]
    with tiny_tiles():
        result = run(Q, K, W, coefficients, dtype)
        assert_within_bound(Q, K, W, coefficients, dtype, result)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_bound_at_the_real_sizes(dtype):
    case = problem(7, n=3, m=700, d=9, d_v=2, bits=9 if dtype == "float32" else 20)
    coefficients = [1.0, 1.0, 0.5, 1 / 6]
    assert_within_bound(*case, coefficients, dtype, run(*case, coefficients, dtype))


def test_a_wrong_multinomial_is_caught():
    case = problem(1, n=3, m=20, d=3, d_v=2, bits=9)
    with mock.patch.object(cpu_passes, "multinomials", lambda d, k: np.ones(block_sizes(d, k)[k])):
        result = run(*case, [1.0, 1.0, 0.5], "float32")
    with pytest.raises(AssertionError):
        assert_within_bound(*case, [1.0, 1.0, 0.5], "float32", result)


def test_one_key_of_many_forgotten_is_caught():
    Q, K, W = problem(2, n=3, m=20, d=3, d_v=2, bits=9)
    result = run(Q, K[:-1], W[:-1], [1.0, 1.0, 0.5], "float32")
    with pytest.raises(AssertionError):
        assert_within_bound(Q, K, W, [1.0, 1.0, 0.5], "float32", result)


@settings(deadline=None, max_examples=60)
@given(
    sizes_of_a_case,
    st.integers(0, 5),
    st.integers(2, 9),
    st.integers(1, 7),
    st.sampled_from([0, 2000, 2**28]),
)
def test_exact_on_small_integers_whatever_the_tiles(case, degree, tile, chunk, group_bytes):
    seed, n, m, d, d_v = case
    rng = np.random.default_rng(seed)
    Q, K = rng.integers(-2, 3, (n, d)) + 1.0, rng.integers(-2, 2, (m, d)) + 0.0
    W = np.column_stack([rng.integers(-3, 4, (m, d_v)), np.full(m, 3)]) * 1.0
    with tiny_tiles(KEY_TILE=tile, FEATURE_CHUNK=chunk, GROUP_BYTES=group_bytes):
        state, (numerator, by_degree) = run(Q, K, W, np.ones(degree + 1), "float64")
    for found, slow in zip(state.moments, naive.accumulate(K, W, degree), strict=True):
        assert np.array_equal(found, slow)
    expected = naive.polynomial(Q, K, W, np.ones(degree + 1))
    assert np.array_equal(numerator, expected[0])
    assert np.array_equal(by_degree, expected[1])
    also = naive.contract(Q, list(state.moments), np.ones(degree + 1))
    assert np.array_equal(numerator, also[0])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 4), st.sampled_from([0, -90]))
def test_norm_moments_are_upper_bounds_and_sharp(seed, m, d, scale):
    _, K, W = problem(seed, 1, m, d, 1, bits=9)
    dtype = "float64"
    state = engine.accumulate(
        np.ldexp(K, 8 * scale).astype(dtype), W.astype(dtype), 3, key_centre=np.zeros(d)
    )
    for k in range(0, 4, 2):  # even powers of a norm are rational
        true = sum(
            int(w) * sum(int(x) ** 2 for x in row) ** (k // 2)
            for w, row in zip(W[:, -1], K, strict=True)
        ) * Fraction(2) ** (8 * scale * k)
        assert true <= Fraction(state.norm_moments[k])
        if scale == 0:
            assert Fraction(state.norm_moments[k]) <= true * (1 + Fraction(1, 10**12))


def test_a_lower_degree_from_the_same_state():
    Q, K, W = problem(3, n=4, m=50, d=4, d_v=3, bits=5)
    state, _ = run(Q, K, W, np.ones(4), "float64")
    low = engine.contract(Q.astype(float), state, [1.0, 2.0])
    _, own = run(Q, K, W, [1.0, 2.0], "float64")
    assert low[1].shape == (4, 2)
    assert all(np.array_equal(a, b) for a, b in zip(low, own, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_no_keys_and_no_queries(degree, dtype):
    state, (numerator, by_degree) = run(
        np.ones((3, 2)), np.ones((0, 2)), np.ones((0, 5)), np.ones(degree + 1), dtype
    )
    assert state.count == 0
    assert not any(part.any() for part in state.moments)
    assert not state.norm_moments.any()
    assert numerator.shape == (3, 4)
    assert not numerator.any()
    assert by_degree.shape == (3, degree + 1)
    _, (numerator, by_degree) = run(
        np.ones((0, 2)), np.ones((6, 2)), np.ones((6, 5)), np.ones(degree + 1), dtype
    )
    assert numerator.shape == (0, 4)
    assert by_degree.shape == (0, degree + 1)


def test_strided_and_read_only_input_is_read_and_left_alone():
    Q, K, W = (a.astype("float32") for a in problem(4, n=9, m=23, d=6, d_v=3, bits=9))
    plain = run(Q, K, W, [1.0, 1.0, 0.5], "float32")[1]
    exact = engine.exact_block(Q / 2**16, K / 16, W)
    strided = []
    for a in (Q, K, W):
        big = np.full((2 * len(a), 3 * a.shape[1]), np.float32(np.nan))
        big[::2, ::-3] = a
        view = big[::2, ::-3]
        view.flags.writeable = False
        strided.append(view)
    before = [a.copy() for a in strided]
    state = engine.accumulate(strided[1], strided[2], 2, key_centre=np.zeros(6))
    for a, b in zip(engine.contract(strided[0], state, [1.0, 1.0, 0.5]), plain, strict=True):
        assert np.array_equal(a, b)
    again = engine.exact_block(strided[0] / 2**16, strided[1] / 16, strided[2])
    for a, b in zip(again, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(before, strided, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("d_v", [1, 2, 7, 8, 15, 16, 17, 33, 64, 65, 130])
def test_any_number_of_columns(dtype, d_v):
    """Around every number of registers that columns fill, in tiles and chunks of real size."""
    rng = np.random.default_rng(d_v)
    Q, K = (rng.integers(-2, 3, (n, 5)).astype(dtype) for n in (131, 1203))
    W = np.column_stack([rng.integers(-3, 4, (1203, d_v)), np.full(1203, 3)]).astype(dtype)
    state, found = run(Q, K, W, np.ones(4), dtype)
    K, W, Q = (x.astype(float) for x in (K, W, Q))
    for a, b in zip(state.moments, naive.accumulate(K, W, 3), strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(found, naive.polynomial(Q, K, W, np.ones(4)), strict=True):
        # Float32 holds sums of a degree to 2^24, and these are larger.
        np.testing.assert_allclose(a, b, rtol=0, atol=0 if dtype == "float64" else 1e-6 * 3e8)


def test_chunks_of_the_top_degree_are_dealt_to_pieces():
    rng = np.random.default_rng(5)
    K = rng.integers(-2, 3, (2500, 12)).astype("float64")
    W = np.column_stack([rng.integers(-3, 4, (2500, 3)), np.full(2500, 3)]).astype("float64")
    whole = engine.accumulate(K, W, 4, key_centre=np.zeros(12))
    with mock.patch.object(lengths, "GROUP_BYTES", 2 * 8 * 1820 * 8):
        columns = 4 if cpu_fast.LEAST_PRODUCTS else 8
        groups, pieces = lengths.accumulator_layout(lengths.tile_count(2500, 12, 4), 12, 4, columns)
        assert groups > 1 and pieces > 1
        dealt = engine.accumulate(K, W, 4, key_centre=np.zeros(12))
    for a, b in zip(whole.moments, dealt.moments, strict=True):
        assert a.any() and np.array_equal(a, b)
    found = engine.contract(K[:77], whole, np.ones(5))  # in chunks that are added up, too
    for a, b in zip(found, naive.polynomial(K[:77], K, W, np.ones(5)), strict=True):
        assert np.array_equal(a, b)


def test_tiles_are_added_in_float64_and_degree_0_tile_by_tile():
    """Sums of a tile are exact in float32, those of all are not: what is added there shows."""
    rng = np.random.default_rng(6)
    m = 2**16
    W = np.column_stack([rng.integers(1, 2**13, (m, 2)), np.full(m, 2**13)]).astype("f")
    found = engine.accumulate(np.ones((m, 2), "f"), W, 2, key_centre=np.zeros(2)).moments
    sums = W.astype(float).sum(axis=0)
    assert sums[0] > 2**27 and sums[0] % 16 > 0  # float32 has multiples of 16 there
    for part in found:
        assert (part == sums).all()
    # Each addition to the sum of a group would lose 2^-41, always on the same side.
    m = 2**18
    w = np.full((m, 2), 1.0 + 2.0**-41)
    total = engine.accumulate(np.zeros((m, 1)), w, 1, key_centre=np.zeros(1)).moments[0][0, 0]
    L = lengths.contraction_length(
        0, d=1, degree=1, tiles=lengths.tile_count(m, 1, 1), dtype="float64"
    )
    exact = m * (1 + Fraction(1, 2**41))
    assert abs(Fraction(total) - exact) <= Fraction(L) / 2**53 * exact


def test_lower_degrees_are_added_up_in_chunks_too():
    """Of 512 features in float32, where each is exact, and then in float64."""
    w = np.arange(5461, 5461 - 2 * 40, -2)[None]
    state = engine.accumulate(np.ones((1, 16), "f"), w.astype("f"), 4, key_centre=np.zeros(16))
    numerator, by_degree = engine.contract(np.ones((50, 16), "f"), state, [0, 0, 0, 1, 0])
    sums = 16**3 * w
    assert (sums > 2**24).all()
    assert (numerator == sums[:, :-1]).all() and (by_degree[:, 3] == sums[:, -1]).all()


def test_overflow_is_not_silent():
    K = np.full((3, 2), 1e30, dtype="float32")
    state, (numerator, by_degree) = run(K, K, np.ones((3, 2)), np.ones(3), "float32")
    assert np.isfinite(by_degree[:, 0]).all()
    assert not np.isfinite(by_degree[:, 2]).any()
    assert not np.isfinite(numerator).any()


def test_multinomials_are_those_of_the_features():
    assert cpu_passes.multinomials is multinomials
