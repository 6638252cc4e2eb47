"""softmax_as_polynomials: errors against matrices formed here, terms, limits, corners, messages."""

import re

import numpy as np
import pytest

import subquad
from subquad.empirical import bridge, bridge_fits


def head(n=120, m=150, d=5, size=1.0, seed=0):
    rng = np.random.default_rng(seed)
    Q, K = size * rng.standard_normal((n, d)), size * rng.standard_normal((m, d))
    return Q, K, rng.standard_normal((m, 3)) + 2.0


def softmax(Q, K, scale):
    weights = np.exp(scale * Q @ (K - K.mean(axis=0)).T)
    return weights / weights.sum(axis=1, keepdims=True)


def test_the_uniform_answer_is_measured_as_it_is():
    """Every norm of its error, of weights and of output, formed here once more."""
    Q, K, V = head()
    found = subquad.softmax_as_polynomials(Q, K, V, buckets=2, degree=1).uniform
    P = softmax(Q, K, 5**-0.5)
    change = 1.0 / 150 - P
    radius = (V.max(axis=0) - V.min(axis=0)) / 2
    moved = (V.mean(axis=0) - P @ V) / radius
    for p, order in (("1", 1), ("2", 2), ("inf", np.inf)):
        norm = np.linalg.norm(change.ravel(), order) / np.linalg.norm(P.ravel(), order)
        assert found.weights[p] == pytest.approx(norm, rel=1e-9)
    assert found.output["inf"] == pytest.approx(np.abs(moved).max(), rel=1e-9)
    assert found.output["1"] == pytest.approx(np.abs(moved).mean(), rel=1e-9)
    assert found.output["2"] == pytest.approx((moved**2).mean() ** 0.5, rel=1e-9)


def test_a_plain_power_is_measured_as_it_is():
    Q, K, V = head()
    found = subquad.softmax_as_polynomials(Q, K, V, buckets=1, degree=1)
    logits = 5**-0.5 * Q @ (K - K.mean(axis=0)).T
    own = logits**4 / (logits**4).sum(axis=1, keepdims=True)
    P = softmax(Q, K, 5**-0.5)
    (power,) = [x for x in found.powers if x.name == "(q.k)^4"]
    error = np.linalg.norm(own - P) / np.linalg.norm(P)
    assert power.weights["2"] == pytest.approx(error, rel=1e-9)
    assert power.terms == 1


def test_terms_count_bucket_pairs_and_degrees():
    found = subquad.softmax_as_polynomials(*head(), buckets=3, degree=4)
    assert [x.terms for x in found.by_degree] == [9 * (g + 1) for g in range(5)]
    assert found.logit_bounds.shape == (3, 3)
    assert np.all(np.diff(found.logit_bounds[:, -1]) > 0)


def test_more_terms_come_nearer():
    Q, K, V = head(300, 400)
    by_buckets = [
        subquad.softmax_as_polynomials(Q, K, V, buckets=b, degree=6).by_degree for b in (1, 2, 4, 8)
    ]
    for sums in by_buckets:
        errors = [x.weights["2"] for x in sums]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.3 * errors[1]
    last = [sums[-1].weights["2"] for sums in by_buckets]
    assert last == sorted(last, reverse=True)


def test_a_sum_of_degree_zero_in_one_bucket_is_uniform():
    found = subquad.softmax_as_polynomials(*head(), buckets=1, degree=1)
    for p in ("1", "2", "inf"):
        assert found.by_degree[0].weights[p] == pytest.approx(found.uniform.weights[p], rel=1e-6)


def test_the_sum_beats_the_best_single_power():
    found = subquad.softmax_as_polynomials(*head(300, 400), buckets=4, degree=6)
    for p in ("1", "2", "inf"):
        assert found.by_degree[-1].weights[p] < min(x.weights[p] for x in found.powers)
        assert found.by_degree[-1].output[p] < min(x.output[p] for x in found.powers)
    assert found.best_power.weights["2"] < found.uniform.weights["2"]


def test_the_shift_is_the_best_on_its_grid():
    """(1 + x/p)^p is nearly exp: the shift found lies near p, and no other is better."""
    Q, K, V = head(200, 200, size=0.6)
    logits = 5**-0.5 * Q @ (K - K.mean(axis=0)).T
    P = softmax(Q, K, 5**-0.5)
    found = bridge_fits.power_of(bridge_fits.Measure(logits, V), 8, True)
    for shift in bridge_fits.SHIFTS:
        own = (logits + shift) ** 8
        own /= own.sum(axis=1, keepdims=True)
        error = np.linalg.norm(own - P) / np.linalg.norm(P)
        assert found.weights["2"] <= error * (1 + 1e-9)
    assert 4.0 < float(re.search(r"\+ (.*)\)", found.name)[1]) < 16.0


@pytest.mark.parametrize(("n", "m", "buckets"), [(1, 1, 1), (1, 9, 4), (9, 1, 4), (3, 2, 8)])
def test_few_rows_and_empty_buckets(n, m, buckets):
    found = subquad.softmax_as_polynomials(*head(n, m), buckets=buckets, degree=2)
    assert found.by_degree[-1].terms == 3 * found.logit_bounds.size
    a, b = found.logit_bounds.shape
    assert 1 <= a <= min(n, buckets) and 1 <= b <= min(m, buckets)
    assert np.isfinite(list(found.by_degree[-1].output.values())).all()
    if m == 1:
        assert found.by_degree[-1].weights["inf"] == pytest.approx(0.0, abs=1e-12)


def test_equal_rows_and_constant_values():
    Q, K, _ = head(20, 30)
    found = subquad.softmax_as_polynomials(0 * Q, K, np.ones((30, 2)), buckets=2, degree=1)
    assert found.uniform.weights["inf"] == pytest.approx(0.0, abs=1e-12)
    assert found.by_degree[0].output["inf"] == pytest.approx(0.0, abs=1e-12)


def test_huge_logits_are_measured_without_a_warning():
    found = subquad.softmax_as_polynomials(*head(60, 70, size=40.0), buckets=2, degree=2)
    assert np.isfinite(list(found.by_degree[-1].weights.values())).all()


def at_powers(of_q, of_k, of_v, **options):
    """Return the Bridge of one head, its arrays times powers of two."""
    Q, K, V = head()
    sizes = zip((Q, K, V), (of_q, of_k, of_v), strict=True)
    return subquad.softmax_as_polynomials(
        *(np.ldexp(x, power) for x, power in sizes), buckets=3, degree=4, **options
    )


@pytest.mark.parametrize(
    "powers",
    [
        (600, -600, 0),
        (-600, 600, 0),
        (1000, -1000, 0),
        (-1000, 1000, 0),
        (0, 0, 1020),
        (0, 0, -1000),
    ],
)
def test_the_size_of_the_entries_changes_nothing_but_through_the_logits(powers):
    """Equal logits, equal answers, whatever squares of the entries over- or underflow."""
    found, plain = at_powers(*powers), at_powers(0, 0, 0)
    assert found.logit_bounds == pytest.approx(plain.logit_bounds, rel=1e-12)
    for one, other in zip(found.by_degree, plain.by_degree, strict=True):
        assert one.weights == pytest.approx(other.weights, rel=1e-6)
        assert one.output == pytest.approx(other.output, rel=1e-6)


def test_values_from_one_end_of_float64_to_the_other():
    Q, K, V = head()
    V = V / np.abs(V).max(axis=0)
    V[:2, 0] = 1.0, -1.0
    largest = np.finfo(np.float64).max
    found, plain = (
        subquad.softmax_as_polynomials(Q, K, x, buckets=2, degree=2).by_degree[-1].output
        for x in (largest * V, V)
    )
    assert found == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("size", [14.0, 17.0, 25.0, 300.0])
@pytest.mark.parametrize("seed", range(4))
def test_normalisers_that_are_far_apart(size, seed):
    """By more than exp(745), which no float64 is: the rows of the least weigh most in the fit."""
    found = subquad.softmax_as_polynomials(*head(40, 50, size=size, seed=seed), buckets=3, degree=4)
    for x in found.by_degree:
        assert np.isfinite([*x.weights.values(), *x.output.values()]).all()


@pytest.mark.parametrize("apart", [0.0, 800.0, 5000.0])
def test_the_fit_is_the_least_squares_of_the_normalised_weights(apart):
    """Against normal equations, each half of the rows in units of its own."""
    rng = np.random.default_rng(7)
    logits = rng.uniform(-3.0, 1.0, (30, 1)) + rng.uniform(-1.0, 2.0, (30, 20))
    halves = [np.arange(15), np.arange(15, 30)]
    own, true = [], []
    for half in halves:
        x = logits[half]
        P = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
        powers = x[..., None] ** np.arange(3)
        matrix = (powers * (P / np.exp(x))[..., None]).reshape(-1, 3)
        weights = powers @ np.linalg.solve(matrix.T @ matrix, matrix.T @ P.ravel())
        own.append(weights / weights.sum(axis=1, keepdims=True))
        true.append(P)
    error = np.linalg.norm(np.vstack(own) - np.vstack(true)) / np.linalg.norm(np.vstack(true))
    logits[15:] += apart
    measure = bridge_fits.Measure(logits, rng.standard_normal((20, 2)))
    found = bridge_fits.sum_of(measure, halves, [np.arange(20)], 2)
    assert found.rows_lost == 0
    assert found.weights["2"] == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize(
    ("powers", "scale"),
    [((665, 498), None), ((400, 400), 2.0**300), ((0, 1021), 1.0), ((1020, 0), 8.0)],
)
def test_logits_beyond_float64_are_refused(powers, scale):
    Q, K, _ = head()
    largest = [np.abs(np.ldexp(x, power)).max() for x, power in zip((Q, K), powers, strict=True)]
    with pytest.raises(
        ValueError,
        match=re.escape(
            f"`Q` and `K` have entries up to {largest[0]:.3g} and {largest[1]:.3g}: "
            f"at `scale` {scale or 5**-0.5:.3g} a logit exceeds 4.49e+307, the most that is taken"
        ),
    ):
        at_powers(*powers, 0, scale=scale)


def test_the_largest_logits_that_are_taken():
    """One below the limit, one above."""
    Q, K, V = head()
    logits = np.abs(Q @ (K - K.mean(axis=0)).T).max()
    Q = Q * (bridge.LOGIT_MAX / logits)
    found = subquad.softmax_as_polynomials(0.99 * Q, K, V, buckets=2, degree=2, scale=1.0)
    assert found.logit_bounds.max() == pytest.approx(0.99 * 2.0**1022, rel=1e-9)
    with pytest.raises(ValueError, match="a logit exceeds"):
        subquad.softmax_as_polynomials(1.01 * Q, K, V, buckets=2, degree=2, scale=1.0)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"buckets": 0}, ValueError, "`buckets` is 0; a size is at least 1"),
        ({"degree": 0}, ValueError, "`degree` is 0; a size is at least 1"),
        ({"degree": 65}, ValueError, "`degree` is 65; it must be at most 64."),
        ({"degree": 2.0}, TypeError, "`degree` is 2.0 of type float; a size is an integer."),
        ({"scale": -1.0}, ValueError, "`scale` is -1; it must be positive"),
    ],
)
def test_messages(options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        subquad.softmax_as_polynomials(*head(), **{"buckets": 2, "degree": 2, **options})


def test_one_head_of_moderate_size():
    x = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match=r"leading dimensions \(2,\); pass one head"):
        subquad.softmax_as_polynomials(x, x, x, buckets=1, degree=1)
    x = np.zeros((5000, 1))
    with pytest.raises(ValueError, match=re.escape("n m = 25,000,000 logits")):
        subquad.softmax_as_polynomials(x, x, x, buckets=1, degree=1)
