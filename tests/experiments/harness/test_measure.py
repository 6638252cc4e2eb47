"""Oracle, errors, null models, timing and slopes against independent formulas, by hand."""

import itertools
import math

import mpmath
import numpy as np
import pytest

from experiments.harness import timing
from experiments.harness.measure import (
    errors,
    errors_within,
    first_order_answer,
    frobenius_error,
    mean_answer,
    measured_error,
    null_errors,
    oracle,
    sample_rows,
)
from experiments.questions import crossover

rng = np.random.default_rng(7)


def head(n=5, m=4, d=3, d_v=2, size=1.0):
    Q, K = size * rng.standard_normal((n, d)), size * rng.standard_normal((m, d))
    return Q, K, rng.standard_normal((m, d_v)) + 2.0, 0.7


def by_mpmath(Q, K, V, scale):
    with mpmath.workdps(40):
        out = np.empty((len(Q), V.shape[1]))
        for i, c in itertools.product(range(len(Q)), range(V.shape[1])):
            weights = [
                mpmath.exp(
                    mpmath.mpf(scale)
                    * mpmath.fsum(
                        mpmath.mpf(a) * mpmath.mpf(b) for a, b in zip(Q[i], k, strict=True)
                    )
                )
                for k in K.tolist()
            ]
            top = mpmath.fsum(w * mpmath.mpf(v) for w, v in zip(weights, V[:, c], strict=True))
            out[i, c] = float(top / mpmath.fsum(weights))
    return out


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_oracle_against_forty_digits(size):
    Q, K, V, scale = head(size=size)
    # Logits of 3000 lose digits in any float64 softmax: half an ulp of 4096 is 5e-13.
    np.testing.assert_allclose(oracle(Q, K, V, scale), by_mpmath(Q, K, V, scale), rtol=1e-12)


def test_oracle_of_some_rows_and_many_blocks():
    Q, K, V, scale = head(n=1200, m=30)
    rows = np.array([0, 600, 1199])
    np.testing.assert_allclose(
        oracle(Q, K, V, scale, rows), oracle(Q, K, V, scale)[rows], rtol=1e-14
    )


def test_measured_error_is_the_worst_in_value_radius():
    V = np.array([[0.0, 5.0], [4.0, 15.0]])  # radii 2 and 5
    exact = np.array([[1.0, 10.0], [2.0, 11.0]])
    output = exact + np.array([[0.0, 0.5], [0.3, 0.0]])
    assert measured_error(output, exact, V) == pytest.approx(0.15)
    size = math.sqrt(1 + 100 + 4 + 121)
    assert frobenius_error(output, exact) == pytest.approx(math.hypot(0.5, 0.3) / size)
    assert errors(output, exact, V) == {
        "measured": measured_error(output, exact, V),
        "frobenius": frobenius_error(output, exact),
    }


def test_a_constant_column_must_be_met():
    V = np.array([[1.0], [1.0]])
    exact = np.array([[1.0]])
    assert measured_error(exact, exact, V) == 0.0
    assert measured_error(exact + 1e-12, exact, V) == math.inf
    assert frobenius_error(np.zeros((1, 1)), np.zeros((1, 1))) == 0.0


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_nan_in_any_column_is_no_right_answer(column):
    V = np.array([[0.0, 5.0, 1.0], [4.0, 15.0, 1.0]])
    exact = np.array([[1.0, 10.0, 1.0], [2.0, 11.0, 1.0]])
    assert errors_within(1e-3, exact.copy(), exact, V)["measured"] == 0.0
    output = exact.copy()
    output[1, column] = np.nan
    assert not measured_error(output, exact, V) <= 1e3
    with pytest.raises(AssertionError, match="no time is taken of a wrong answer"):
        errors_within(1e-3, output, exact, V)


def test_mean_answer():
    np.testing.assert_array_equal(
        mean_answer(2, np.array([[1.0, 0], [3.0, 1]])), [[2.0, 0.5], [2.0, 0.5]]
    )


def test_first_order_is_the_derivative_at_no_logits():
    Q, K, V, scale = head(n=6, m=9)
    np.testing.assert_allclose(first_order_answer(0 * Q, K, V, scale), mean_answer(6, V))
    # Softmax along t Q: mean(V) at t = 0, and the central difference is its slope there.
    t = 1e-4
    slope = (oracle(t * Q, K, V, scale) - oracle(-t * Q, K, V, scale)) / (2 * t)
    first = first_order_answer(Q, K, V, scale) - mean_answer(6, V)
    np.testing.assert_allclose(first, slope, atol=1e-7)
    # It does not depend on where the keys' origin is.
    np.testing.assert_allclose(
        first_order_answer(Q, K + 3.0, V, scale), first_order_answer(Q, K, V, scale), atol=1e-12
    )


def test_first_order_error_is_second_order():
    Q, K, V, scale = head(n=6, m=9)
    worst = [
        null_errors(t * Q, K, V, scale, oracle(t * Q, K, V, scale))["first_order"]["measured"]
        for t in (1e-2, 1e-3)
    ]
    assert worst[0] / worst[1] == pytest.approx(100, rel=0.1)


def test_sampled_rows_hold_the_largest():
    Q = np.ones((100, 2))
    Q[[7, 50]] = 9.0
    rows = sample_rows(Q, 4)
    assert {7, 50} <= set(rows.tolist())
    assert len(set(rows.tolist())) == 4
    np.testing.assert_array_equal(rows, sample_rows(Q, 4))
    np.testing.assert_array_equal(sample_rows(Q, 1000), np.arange(100))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_peer_is_softmax(dtype):
    Q, K, V, scale = head(n=1100, m=40)
    out = timing.numpy_softmax(*(x.astype(dtype) for x in (Q, K, V)), scale)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, oracle(Q, K, V, scale), rtol=30 * np.finfo(dtype).eps)


@pytest.mark.skipif(not timing.torch_available(), reason="needs torch")
def test_torch_peer_is_softmax():
    Q, K, V, scale = head(n=30, m=40, d=8, d_v=8)
    np.testing.assert_allclose(timing.sdpa(Q, K, V, scale)(), oracle(Q, K, V, scale), rtol=1e-10)


def test_interleaved_takes_turns_and_the_median(monkeypatch):
    clock, order = [0.0], []
    durations = {"a": iter([9.0, 1.0, 5.0, 2.0]), "b": iter([9.0, 3.0, 3.0, 4.0])}

    def call(name):
        order.append(name)
        clock[0] += next(durations[name])

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    found = timing.interleaved({n: lambda n=n: call(n) for n in "ab"}, repeats=3, warm_up=1)
    assert "".join(order) == "abababab"
    assert found == {"a": 2.0, "b": 3.0}


def test_slope_of_a_power_law_is_exact():
    lengths = [2**k for k in range(5, 16)]
    fit = crossover.slope(lengths, [3e-9 * n**1.75 for n in lengths])
    assert fit["slope"] == pytest.approx(1.75)
    assert fit["high"] - fit["low"] < 1e-6
    assert (fit["points"], fit["from_n"], fit["to_n"]) == (6, 2**10, 2**15)
    assert crossover.slope([1, 2], [1.0, 2.0])["slope"] is None


def test_slope_interval_covers_the_truth_as_often_as_it_says():
    lengths = [2**k for k in range(5, 15)]
    hits = 0
    for _ in range(400):
        noise = np.exp(0.1 * rng.standard_normal(len(lengths)))
        fit = crossover.slope(lengths, [n**1.5 * e for n, e in zip(lengths, noise, strict=True)])
        hits += fit["low"] <= 1.5 <= fit["high"]
    assert 0.91 < hits / 400 < 0.985


def test_ahead_of_exact_from_the_last_loss():
    rows = [
        {
            "family": "f",
            "n": n,
            "methods": {
                "polynomial": {"seconds": ours},
                "refused": {},
                "exact": {"seconds": exact},
            },
        }
        for n, ours, exact in ((10, 1, 2), (20, 3, 2), (40, 3, 4), (80, 3, 9))
    ]
    found = crossover.scaling(rows)["f"]
    assert found["polynomial"]["faster_from"] == 40
    assert found["polynomial"]["times_faster_than_exact"] == pytest.approx(3.0)
    assert found["exact"]["faster_from"] is None
    assert "refused" not in found
