"""The exact path against extended precision, within the accounting of its docstring."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad import engine
from subquad.bounds.rounding import exact_sum_error
from subquad.engine import lengths, naive
from subquad.engine.cpu import exact as cpu_exact
from subquad.methods.exact import sum_error

BITS = {"float32": 24, "float64": 53}


def problem(seed, n, m, d, d_v, logit, dtype):
    rng = np.random.default_rng(seed)
    Q = (rng.standard_normal((n, d)) + 0.3).astype(dtype)
    K = (rng.standard_normal((m, d)) - 0.1).astype(dtype)
    Q *= np.asarray(logit / max(1e-30, np.abs(Q @ K.T).max()), dtype)
    w = rng.uniform(0.5, 2, m)
    W = np.column_stack([rng.uniform(-1, 1, (m, d_v)) * w[:, None], w]).astype(dtype)
    return Q, K, W


def assert_within_bound(Q, K, W, result):
    numerator, normaliser, log_shift = result
    u = np.longdouble(2.0) ** -BITS[Q.dtype.name]
    long = [a.astype(np.longdouble) for a in (Q, K, W)]
    logits = long[0] @ long[1].T
    weights = np.exp(logits - log_shift[:, None] * np.log(np.longdouble(2)))
    norms = [np.linalg.norm(rows.astype(float), axis=1) for rows in (Q, K)]
    bound = norms[0] * norms[1].max()
    exponent = (Q.shape[1] * bound + 3 * bound + 2 + 8) * u * 1.01
    relative = np.expm1(exponent) + (lengths.EXACT_KEY_BLOCK + 1) * u * 1.01 + len(K) * 2.0**-52
    total = weights @ long[2][:, -1]
    allowed = relative * total + len(K) * np.finfo(Q.dtype).tiny
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        allowed = allowed + (bound + 4) * 2.0**-50 * total  # a reference no better than float64
    assert (np.abs(normaliser - total) <= allowed).all()
    assert (np.abs(numerator - weights @ long[2][:, :-1]) <= allowed[:, None]).all()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.5, 8.0, 39.0, 200.0, 1e4]),
    st.sampled_from(["float32", "float64"]),
)
def test_rounding_bound(seed, n, m, d, d_v, logit, dtype):
    case = problem(seed, n, m, d, d_v, logit, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengths, "EXACT_KEY_BLOCK", 7)
        patch.setattr(lengths, "EXACT_ROW_BLOCK", 16)
        assert_within_bound(*case, engine.exact_block(*case))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("logit", [5.0, 100.0, 1e4])
def test_several_real_blocks(logit, dtype):
    case = problem(3, 300, 1100, 8, 3, logit, dtype)
    result = engine.exact_block(*case)
    assert_within_bound(*case, result)
    slow = naive.exact(*case)
    if logit > engine.UNSHIFTED_LOGITS:
        assert np.abs(slow[2] - result[2]).max() <= 1
        largest = case[2][:, -1].max()
        assert (result[1] > 0.49 * 0.5).all()
        assert (result[1] < 1.01 * largest * 1100).all()
    shifted = np.ldexp(slow[1], slow[2] - result[2])
    np.testing.assert_allclose(result[1], shifted, rtol=1e-2 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_blocks_that_need_it_are_shifted(dtype, monkeypatch):
    # One large key in the second of three blocks, one large query in the last block of rows.
    monkeypatch.setattr(lengths, "EXACT_KEY_BLOCK", 50)
    monkeypatch.setattr(lengths, "EXACT_ROW_BLOCK", 20)
    monkeypatch.setattr(lengths, "GROUPS", 1)
    Q, K, W = problem(6, 60, 150, 4, 3, 3.0, dtype)
    Q[-1] *= 50
    K[70] *= 30
    real = cpu_exact._shifted
    with mock.patch.object(cpu_exact, "_shifted", side_effect=real) as shifted:
        result = engine.exact_block(Q, K, W)
    # The block of the large key for all rows, the other two for the rows of the large query.
    assert shifted.call_count == 3 + 2
    assert_within_bound(Q, K, W, result)
    # Rows that had a block without a shift keep at least their unit.
    assert (result[2][:40] >= 0).all()
    assert (result[2][:40] > 0).any()


@pytest.mark.parametrize(("dtype", "small"), [("float32", 2.0**-90), ("float64", 2.0**-600)])
def test_squares_that_underflow_do_not_hide_a_large_logit(dtype, small):
    Q = (np.array([[3.0], [-2.0]]) * small).astype(dtype)
    K = (np.array([[100.0], [-50.0], [90.0]]) / small).astype(dtype)
    result = engine.exact_block(Q, K, np.ones((3, 2), dtype))
    assert result[2].tolist() == [433, 145]  # 300 and 100, in units of ln 2, rounded up
    assert np.isfinite(result[0]).all()
    assert (result[1] >= 0.49).all()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_block_that_needs_a_shift_beside_one_that_does_not(sign, order):
    # Weights e^-900 and e^900 beside those of a block that is not shifted.
    Q, W = np.array([[3.0], [2.0]]), np.ones((4, 2))
    K = np.array([[0.5], [-0.5], [sign * 300.0], [sign * 299.0]])[::order]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengths, "EXACT_KEY_BLOCK", 2)
        patch.setattr(lengths, "GROUPS", 1)
        result = engine.exact_block(Q, K, W)
    assert_within_bound(Q, K, W, result)
    if sign < 0:
        assert result[2].tolist() == [0, 0]
        np.testing.assert_allclose(result[1], 2 * np.cosh(0.5 * Q[:, 0]), rtol=1e-14)
    else:
        assert result[2].tolist() == [1299, 866]


def test_the_shift_grows_by_exact_powers_of_two(monkeypatch):
    # Keys in ascending order: every block raises the shift. W = 1, so sums are of weights alone.
    monkeypatch.setattr(lengths, "EXACT_KEY_BLOCK", 1)
    monkeypatch.setattr(lengths, "GROUPS", 1)
    K = np.log(2.0) * np.arange(-40.0, 41.0, 20.0)[:, None]
    W = np.ones((len(K), 2))
    _, normaliser, shift = engine.exact_block(np.array([[1.0], [-1.0]]) * 4, K, W)
    assert shift.tolist() == [160, 160]
    np.testing.assert_allclose(normaliser, sum(2.0 ** (-80 * i) for i in range(5)), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("logit", [5.0, 100.0])
def test_few_rows_and_many_keys_are_cut_by_keys(dtype, logit, monkeypatch):
    monkeypatch.setattr(lengths, "SHARE_PAIRS", 1)
    assert lengths.exact_shares(7, 4000) == (7, 8)
    case = problem(4, 7, 4000, 5, 3, logit, dtype)
    assert_within_bound(*case, engine.exact_block(*case))


def test_groups_of_keys_meet_at_the_largest_shift(monkeypatch):
    # Keys ascend for one row and descend for the other: the largest weight in the last, first group
    monkeypatch.setattr(lengths, "SHARE_PAIRS", 1)
    monkeypatch.setattr(lengths, "EXACT_KEY_BLOCK", 1)
    K = np.log(2.0) * np.arange(-40.0, 41.0, 20.0)[:, None]
    assert lengths.exact_shares(2, len(K))[1] == len(K)
    W = np.ones((len(K), 2))
    numerator, normaliser, shift = engine.exact_block(np.array([[1.0], [-1.0]]) * 4, K, W)
    assert shift.tolist() == [160, 160]
    np.testing.assert_allclose(normaliser, sum(2.0 ** (-80 * i) for i in range(5)), rtol=1e-13)
    assert np.array_equal(numerator[:, 0], normaliser)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_group_of_keys_left_out_is_caught(dtype, monkeypatch):
    monkeypatch.setattr(lengths, "SHARE_PAIRS", 1)
    case = problem(4, 7, 4000, 5, 3, 5.0, dtype)
    with mock.patch.object(cpu_exact, "_added", lambda sums, shifts: (sums[1:].sum(0), shifts[0])):
        result = engine.exact_block(*case)
    with pytest.raises(AssertionError):
        assert_within_bound(*case, result)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_weight_left_out_is_caught(dtype):
    Q, K, W = problem(5, 4, 30, 3, 2, 2.0, dtype)
    with pytest.raises(AssertionError):
        assert_within_bound(Q, K, W, engine.exact_block(Q, K[1:], W[1:]))


def test_what_underflows_is_relative_to_any_largest_weight_there_may_be():
    """In float32; in float64 it is far below what the bound itself is rounded to."""
    m, block = 2**20, lengths.EXACT_KEY_BLOCK
    for least in (0.5, np.exp(-engine.UNSHIFTED_LOGITS)):
        assert sum_error(m, "float32") >= (
            exact_sum_error(least, m, block, m // block, "float32") / least
        )
    assert sum_error(m, "float32") < 1e-3


def test_no_keys_and_no_queries():
    numerator, normaliser, shift = engine.exact_block(
        np.ones((3, 2)), np.ones((0, 2)), np.ones((0, 5))
    )
    assert numerator.shape == (3, 4)
    assert not numerator.any()
    assert normaliser.tolist() == [0, 0, 0]
    assert shift.dtype == np.int64
    assert shift.tolist() == [0, 0, 0]
    numerator, normaliser, shift = engine.exact_block(
        np.ones((0, 2)), np.ones((6, 2)), np.ones((6, 5))
    )
    assert numerator.shape == (0, 4)
    assert normaliser.shape == shift.shape == (0,)
