"""The passes on CuPy: against exact integers and the CPU, within the bounds the CPU states."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad import engine
from subquad.engine import lengths, naive
from subquad.engine.lengths import set_length
from subquad.engine.passes import accumulate_set, contract_set
from subquad.features import block_sizes, monomials
from subquad.features.anisotropic import best_set
from tests.engine.cpu import test_exact, test_passes
from tests.engine.cpu.test_passes import sizes_of_a_case, tiny_tiles

pytestmark = pytest.mark.gpu
CUDA = settings(deadline=None, max_examples=25)


def run(cp, Q, K, W, coefficients, dtype):
    degree, d = len(coefficients) - 1, K.shape[1]
    Q, K, W = (cp.asarray(a.astype(dtype)) for a in (Q, K, W))
    state = engine.accumulate(K, W, degree, key_centre=np.zeros(d))
    return state, tuple(x.get() for x in engine.contract(Q, state, coefficients))


def exact(cp, Q, K, W):
    return tuple(x.get() for x in engine.exact_block(*map(cp.asarray, (Q, K, W))))


def tiny_steps(numbers):
    """Steps of few numbers: small data take many of them."""
    from subquad.engine.gpu import exact as gpu_exact
    from subquad.engine.gpu import passes as gpu_passes

    few = dict(step_numbers=lambda dtype: numbers)
    return mock.patch.multiple(gpu_passes, **few), mock.patch.multiple(gpu_exact, ROWS=7, **few)


def test_every_degree_and_dtype_within_the_bound(cp):
    @CUDA
    @given(
        sizes_of_a_case,
        st.integers(0, 5),
        st.sampled_from(["float32", "float64"]),
        st.sampled_from([1, 3000, 1 << 22]),
    )
    def check(case, degree, dtype, numbers):
        Q, K, W = test_passes.problem(*case, bits=9 if dtype == "float32" else 20)
        coefficients = [(-1) ** k * 0.7 / (k + 1) for k in range(degree + 1)]
        steps, _ = tiny_steps(numbers)
        with tiny_tiles(), steps:
            result = run(cp, Q, K, W, coefficients, dtype)
            test_passes.assert_within_bound(Q, K, W, coefficients, dtype, result)

    check()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_within_the_bound_at_the_real_sizes(cp, dtype):
    case = test_passes.problem(7, n=3, m=1700, d=9, d_v=2, bits=9 if dtype == "float32" else 20)
    c = [1.0, 1.0, 0.5, 1 / 6]
    test_passes.assert_within_bound(*case, c, dtype, run(cp, *case, c, dtype))


def test_a_key_forgotten_or_a_wrong_coefficient_is_caught(cp):
    from subquad.engine.gpu import passes as gpu_passes

    Q, K, W = test_passes.problem(2, n=3, m=20, d=3, d_v=2, bits=9)
    c = [1.0, 1.0, 0.5]
    results = [run(cp, Q, K[:-1], W[:-1], c, "float32")]
    with mock.patch.object(gpu_passes, "multinomials", lambda d, k: np.ones(block_sizes(d, k)[k])):
        results.append(run(cp, Q, K, W, c, "float32"))
    for result in results:
        with pytest.raises(AssertionError):
            test_passes.assert_within_bound(Q, K, W, c, "float32", result)


def test_exact_on_small_integers_whatever_the_steps(cp):
    @CUDA
    @given(
        sizes_of_a_case,
        st.integers(0, 5),
        st.integers(2, 9),
        st.integers(1, 7),
        st.sampled_from([1, 500, 1 << 22]),
    )
    def check(case, degree, tile, chunk, numbers):
        seed, n, m, d, d_v = case
        rng = np.random.default_rng(seed)
        Q, K = rng.integers(-2, 3, (n, d)) + 1.0, rng.integers(-2, 2, (m, d)) + 0.0
        W = np.column_stack([rng.integers(-3, 4, (m, d_v)), np.full(m, 3)]) * 1.0
        steps, _ = tiny_steps(numbers)
        with tiny_tiles(KEY_TILE=tile, FEATURE_CHUNK=chunk), steps:
            state, found = run(cp, Q, K, W, np.ones(degree + 1), "float64")
        for fast, slow in zip(state.moments, naive.accumulate(K, W, degree), strict=True):
            assert np.array_equal(fast.get(), slow)
        expected = naive.polynomial(Q, K, W, np.ones(degree + 1))
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))

    check()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("d", "degree"), [(1, 9), (2, 7), (5, 4), (64, 2), (17, 3)])
def test_features_are_those_of_the_cpu_bit_for_bit(cp, d, degree, dtype):
    from subquad.engine.gpu.tiles import Factors, factors, tokens_last

    x = np.random.default_rng(d).standard_normal((37, d)).astype(dtype)
    x[:9] *= np.ldexp(np.ones(1, dtype), -72 if dtype == "float32" else -520)  # underflow
    blocks = np.split(monomials(x, degree), np.cumsum(block_sizes(d, degree))[:-1], axis=1)
    for k in range(degree + 1):
        table = Factors(factors(d, k))
        tile = table.tile(tokens_last(cp.asarray(x), 37), 0, len(table) + 2).get()[0]
        assert np.array_equal(tile[:-2].T, blocks[k])
        assert not tile[-2:].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sets_of_monomials_agree_with_the_cpu(cp, dtype):
    rng = np.random.default_rng(3)
    kept = best_set((2.0, 1.0, 0.5, 0.25, 0.1), 700)
    X, Y = (rng.uniform(-1, 1, (rows, 5)).astype(dtype) for rows in (300, 1400))
    W = rng.uniform(0, 1, (1400, 4)).astype(dtype)
    moments = accumulate_set(cp.asarray(Y), cp.asarray(W), kept)
    found = contract_set(cp.asarray(X), moments, kept).get()
    u = 2.0**-24 if dtype == "float32" else 2.0**-53
    allowed = set_length(1400, kept.r, kept.degree, dtype) * u
    wide = [a.astype(float) for a in (X, Y, W)]
    features = [kept.evaluate(a.T) for a in wide[:2]]
    plain = (features[0].T * kept.coefficients()) @ (features[1] @ wide[2])
    size = (abs(features[0].T) * kept.coefficients()) @ (abs(features[1]) @ wide[2])
    assert np.all(abs(found - plain) <= (allowed + 1e-12) * size)
    assert not np.array_equal(found[:, 0], found[:, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norm_moments_are_upper_bounds_and_sharp(cp, dtype):
    rng = np.random.default_rng(5)
    for power in (0, -120 if dtype == "float32" else -900):
        K = np.ldexp(rng.standard_normal((5000, 7)), power // 2).astype(dtype)
        K[17], W = 0.0, rng.uniform(0, 1, (5000, 3)).astype(dtype)
        W[30] = 0.0
        state = engine.accumulate(cp.asarray(K), cp.asarray(W), 3, key_centre=np.zeros(7))
        norms = np.sqrt((K.astype(np.longdouble) ** 2).sum(axis=1))
        for k, moment in enumerate(state.norm_moments):
            true = (W[:, -1].astype(np.longdouble) * norms**k).sum()
            assert true * (1 - 1e-15) <= moment <= true * (1 + 1e-11) + 5000 * 2.0**-1021


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_no_keys_and_no_queries(cp, degree):
    ones = np.ones
    state, (numerator, by_degree) = run(
        cp, ones((3, 2)), ones((0, 2)), ones((0, 5)), ones(degree + 1), "float32"
    )
    assert not any(part.any() for part in state.moments) and not state.norm_moments.any()
    assert numerator.shape == (3, 4) and not numerator.any()
    assert by_degree.shape == (3, degree + 1)
    _, (numerator, by_degree) = run(
        cp, ones((0, 2)), ones((6, 2)), ones((6, 5)), ones(degree + 1), "float32"
    )
    assert numerator.shape == (0, 4) and by_degree.shape == (0, degree + 1)
    for n, m in ((3, 0), (0, 6)):
        sums = exact(cp, ones((n, 2)), ones((m, 2)), ones((m, 5)))
        assert [x.shape for x in sums] == [(n, 4), (n,), (n,)] and not any(x.any() for x in sums)


def test_strided_input_is_read_and_left_alone(cp):
    Q, K, W = (a.astype("float32") for a in test_passes.problem(4, n=9, m=23, d=6, d_v=3, bits=9))
    plain = run(cp, Q, K, W, [1.0, 1.0, 0.5], "float32")[1]
    weights = exact(cp, Q / 2**16, K / 16, W)
    views = []
    for a in (Q, K, W):
        big = cp.full((2 * len(a), 3 * a.shape[1]), cp.nan, dtype="float32")
        big[::2, ::-3] = cp.asarray(a)
        views.append(big[::2, ::-3])
    before = [view.get() for view in views]
    state = engine.accumulate(views[1], views[2], 2, key_centre=np.zeros(6))
    for a, b in zip(engine.contract(views[0], state, [1.0, 1.0, 0.5]), plain, strict=True):
        assert np.array_equal(a.get(), b)
    again = engine.exact_block(views[0] / 2**16, views[1] / 16, views[2])
    assert all(np.array_equal(a.get(), b) for a, b in zip(again, weights, strict=True))
    assert all(np.array_equal(a, b.get()) for a, b in zip(before, views, strict=True))


def test_overflow_is_not_silent(cp):
    K = np.full((3, 2), 1e30)
    _, (numerator, by_degree) = run(cp, K, K, np.ones((3, 2)), np.ones(3), "float32")
    assert np.isfinite(by_degree[:, 0]).all()
    assert not np.isfinite(by_degree[:, 2]).any() and not np.isfinite(numerator).any()


def test_exact_weights_within_the_bound(cp):
    @CUDA
    @given(
        st.integers(0, 2**32),
        st.integers(1, 40),
        st.integers(1, 40),
        st.integers(1, 6),
        st.integers(1, 9),
        st.sampled_from([0.0, 0.5, 8.0, 39.0, 200.0, 1e4]),
        st.sampled_from(["float32", "float64"]),
        st.sampled_from([1, 600, 1 << 22]),
    )
    def check(seed, n, m, d, d_v, logit, dtype, numbers):
        case = test_exact.problem(seed, n, m, d, d_v, logit, dtype)
        _, steps = tiny_steps(numbers)
        with mock.patch.object(lengths, "EXACT_KEY_BLOCK", 7), steps:
            test_exact.assert_within_bound(*case, exact(cp, *case))

    check()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("logit", [5.0, 100.0, 1e4])
def test_several_real_blocks(cp, logit, dtype):
    case = test_exact.problem(3, 300, 1100, 8, 3, logit, dtype)
    test_exact.assert_within_bound(*case, exact(cp, *case))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_weight_left_out_is_caught(cp, dtype):
    Q, K, W = test_exact.problem(5, 4, 30, 3, 2, 2.0, dtype)
    with pytest.raises(AssertionError):
        test_exact.assert_within_bound(Q, K, W, exact(cp, Q, K[1:], W[1:]))


def test_the_shift_grows_by_exact_powers_of_two(cp):
    K = np.log(2.0) * np.arange(-40.0, 41.0, 20.0)[:, None]
    Q, W = np.array([[1.0], [-1.0]]) * 4, np.ones((len(K), 2))
    _, steps = tiny_steps(1)
    with mock.patch.object(lengths, "EXACT_KEY_BLOCK", 1), steps:
        _, normaliser, shift = exact(cp, Q, K, W)
    assert shift.tolist() == [160, 160]
    np.testing.assert_allclose(normaliser, sum(2.0 ** (-80 * i) for i in range(5)), rtol=1e-13)


def test_repeated_runs_give_the_same_bits(cp):
    rng = np.random.default_rng(8)
    Q, K = (0.3 * rng.standard_normal((20_001, 24)).astype(np.float32) for _ in range(2))
    W = abs(rng.standard_normal((20_001, 11))).astype(np.float32)

    def bits():
        state, sums = run(cp, Q, K, W, [1.0, 1.0, 0.5, 0.2], "float32")
        return [
            *(m.get() for m in state.moments),
            state.norm_moments,
            *sums,
            *exact(cp, Q[:3000], K, W),
        ]

    first = bits()
    for _ in range(3):
        junk = cp.full(1 << 22, cp.nan)  # other memory, still dirty
        again = bits()
        del junk
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_arrays_of_two_libraries_are_refused(cp):
    ones = np.ones((4, 3))
    with pytest.raises(TypeError, match="different libraries .`K` cupy, `W` numpy"):
        engine.accumulate(cp.asarray(ones), ones[:, :2], 2, key_centre=np.zeros(3))
    state = engine.accumulate(ones, ones[:, :2], 1, key_centre=np.zeros(3))
    with pytest.raises(TypeError, match="different libraries .`Q` cupy, `moments` numpy"):
        engine.contract(cp.asarray(ones), state, [1.0])
