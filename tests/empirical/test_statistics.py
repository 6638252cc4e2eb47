"""Statistics of entries: known norms, calibrated tests, intervals that cover, messages."""

import dataclasses
import itertools
import json
import math
import re
import tracemalloc

import array_api_strict
import numpy as np
import pytest
from scipy import integrate, optimize

import subquad
from subquad.arrays.arithmetic import ldexp
from subquad.empirical.bootstrap import RUN, percentiles, resampled_psi_2, sample_rows, weights
from subquad.empirical.entries import entry_statistics
from subquad.empirical.hypotheses import (
    coordinates_test,
    gaussian_tail,
    permutation_moments,
    psi_2,
    rows_test,
)
from subquad.empirical.sample import MatrixStatistics, matrix_statistics

SIGN_NORM = 1 / math.sqrt(math.log(2))


def normal(seed, shape=(512, 32)):
    return np.random.default_rng(seed).standard_normal(shape)


def student(seed, dof=3, shape=(512, 32)):
    return np.random.default_rng(seed).standard_t(dof, shape)


def three(seed=0, n=60, d=4):
    return tuple(normal([seed, i], (n, d)) for i in range(3))


def one(x, resamples=200, level=0.95):
    rng = np.random.default_rng(0)
    return matrix_statistics(x, "Q", (), level=level, resamples=resamples, rng=rng)


# Norms.


@pytest.mark.parametrize("factor", [1.0, 1e-8, 37.0])
def test_psi_2_of_signs_is_exact(factor):
    signs = factor * np.random.default_rng(0).choice([-1.0, 1.0], (200, 5))
    assert psi_2(signs) == pytest.approx(factor * SIGN_NORM, rel=1e-12)
    found = one(signs).psi_2
    for end in (found.value, found.low, found.high):
        assert end == pytest.approx(factor * SIGN_NORM, rel=1e-9)


def test_psi_2_solves_its_equation():
    for x in (normal(1), student(1), np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([[1e-5, 1e3]])):
        assert np.mean(np.exp((x / psi_2(x)) ** 2)) == pytest.approx(2, rel=1e-9)
    assert psi_2(np.array([[0.0, 3.0]])) == pytest.approx(3 / math.sqrt(math.log(3)))
    assert psi_2(np.zeros((4, 2))) == 0


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_psi_2_of_a_gaussian(sigma):
    found = one(sigma * normal(0)).psi_2
    assert found.value == pytest.approx(sigma * math.sqrt(8 / 3), rel=0.06)
    assert found.low <= sigma * math.sqrt(8 / 3) <= found.high


def test_psi_2_of_an_offset_and_of_its_centre():
    found = one(normal(3) + np.linspace(-4, 4, 32))
    assert found.psi_2.value > 2 * found.psi_2_centred.value
    assert found.psi_2_centred.value == pytest.approx(math.sqrt(8 / 3), rel=0.06)


def test_resampled_psi_2_is_psi_2_of_the_resample():
    for x in (normal(4, (100, 3)), student(4, shape=(100, 3)), np.eye(100, 3) * 50 + 0.1):
        shares = weights(len(x), 20, np.random.default_rng(1))
        found = resampled_psi_2(x, shares)
        for value, share in zip(found, shares, strict=True):
            drawn = np.repeat(x, np.rint(share * len(x)).astype(int), axis=0)
            assert value == pytest.approx(psi_2(drawn), rel=0.02)


def test_proxy():
    assert one(np.tile([[1.0, -1.0], [-1.0, 1.0]], (40, 3))).proxy.value == pytest.approx(
        1, rel=1e-9
    )
    assert one(normal(5)).proxy.value == pytest.approx(1, rel=0.12)
    heavy = one(student(5))
    assert heavy.proxy.value > 2 * heavy.variance.value
    assert heavy.proxy.value < np.max(student(5) ** 2)


def test_proxy_of_a_gaussian_is_near_its_variance():
    # A resample's own mean must not pass for a tail.
    highs = [one(normal(seed, (512, 8)), resamples=100).proxy.high for seed in range(6)]
    assert 1.0 < np.mean(highs) < 1.2


# Intervals.


def test_intervals_cover():
    # Uniform entries on [-1, 1]: psi_2 regular, variance 1/3, kurtosis -1.2. 95 % asked for;
    # of 120 samples, 104 is below the 0.1 % quantile of the binomial.
    def excess(s):
        return integrate.quad(lambda x: math.exp((x / s) ** 2), 0, 1)[0] - 2

    truth = {"psi_2": optimize.brentq(excess, 0.5, 2), "variance": 1 / 3, "kurtosis": -1.2}
    covered = dict.fromkeys(truth, 0)
    for seed in range(120):
        found = one(np.random.default_rng(seed).uniform(-1, 1, (150, 6)))
        for name, value in truth.items():
            covered[name] += getattr(found, name).low <= value <= getattr(found, name).high
    assert all(104 <= count for count in covered.values()), covered


def test_intervals_resample_rows_not_entries():
    # Every entry of a row the same: 16 times fewer observations than entries.
    wide, narrow = (
        one(np.repeat(normal(6, (400, 1)), 16, axis=1)).variance,
        one(normal(6, (400, 16))),
    )
    assert wide.high - wide.low > 2.5 * (narrow.variance.high - narrow.variance.low)


def test_level_widens_the_interval():
    found = [one(normal(7), level=level).variance for level in (0.5, 0.99)]
    assert found[1].low < found[0].low < found[0].high < found[1].high
    assert percentiles(np.arange(101.0), 0.9) == pytest.approx((5, 95))


# Tests of the hypotheses: p-values are calibrated, effects are found.


@pytest.mark.parametrize(
    "draw",
    [normal, student, lambda seed: np.random.default_rng(seed).choice([-1.0, 1.0], (512, 32))],
    ids=["normal", "student", "signs"],
)
def test_false_alarms_of_the_independence_tests(draw):
    # 100 samples at level 0.05: more than 13 has probability below 1e-3. At level 0.5 the share
    # is 1/2, or 1 - (3/4)^2 for twice the smaller of two p-values: within 3.3 deviations.
    for test, share in ((coordinates_test, 1 - 0.75**2), (rows_test, 0.5)):
        p_values = np.array([test(draw(seed)).p_value for seed in range(100)])
        assert np.sum(p_values < 0.05) <= 13
        if draw(0).max() > 1:  # signs all have one distance from their median: one table, not two
            assert abs(np.sum(p_values < 0.5) - 100 * share) <= 16.5


def test_gaussian_entries_are_not_rejected():
    # The union bound makes the test conservative: no alarm at level 0.05 in 150 samples.
    for seed in range(100):
        x = normal(seed)
        assert gaussian_tail(x - x.mean(axis=0)).p_value >= 0.05
    for seed in range(50):  # nor with dependent entries, or other variances, in a row
        x = (normal(seed, (300, 1)) + normal([seed, 1], (300, 8))) * np.geomspace(1, 100, 8)
        assert gaussian_tail(x - x.mean(axis=0)).p_value >= 0.05


@pytest.mark.parametrize("dof", [3, 5])
def test_student_entries_are_rejected(dof):
    for seed in range(20):
        x = student(seed, dof)
        found = gaussian_tail(x - x.mean(axis=0))
        assert found.p_value < 1e-6
        assert found.effect > 1


def test_gaussian_tail_by_hand():
    # 1,000 rows, d = 1, signs but for 3 rows of 8: E = 1 asks for sqrt(2 ln 2000) = 3.9 sigma,
    # E = 1e-4 for 5.8 sigma, which 8/sqrt(1.189) = 7.3 passes: 3 rows against 1e-4.
    x = np.tile([[1.0], [-1.0]], (500, 1))
    x[:3] = 8.0
    found = gaussian_tail(x)
    assert found.effect == pytest.approx(3 / 1e-4)
    assert found.p_value == pytest.approx(4e-12 / 6, rel=0.01, abs=0)  # 4 times C(1000, 3) (1e-7)^3


def test_correlated_coordinates_are_found():
    x = normal(8, (400, 6))
    x[:, 1] = 0.6 * x[:, 0] + 0.8 * x[:, 1]
    found = coordinates_test(x)
    assert found.p_value < 1e-6
    assert found.effect == pytest.approx(0.58, abs=0.1)  # 6/pi arcsin(0.6 / 2)


def test_uncorrelated_but_dependent_coordinates_are_found():
    rng = np.random.default_rng(9)
    x = normal(9, (500, 6)) * rng.uniform(0.3, 1.7, (500, 1))
    assert coordinates_test(x).p_value < 1e-4


def test_successive_rows_are_found():
    x = normal(10, (400, 5))
    for i in range(1, len(x)):
        x[i] += 0.4 * x[i - 1]
    found = rows_test(x)
    assert found.p_value < 1e-8
    assert found.effect == pytest.approx(0.38, abs=0.08)
    assert rows_test(np.random.default_rng(0).permutation(x)).p_value > 0.01
    assert rows_test(np.tile([[1.0, 2.0], [2.0, 1.0]], (20, 1))).effect < -0.9


def test_permutation_moments_against_all_orders():
    y = student(11, shape=(6, 2))
    y -= y.mean(axis=0)
    orders = itertools.permutations(range(6))
    sums = [sum(y[a] @ y[b] for a, b in itertools.pairwise(order)) for order in orders]
    assert permutation_moments(y) == pytest.approx((np.mean(sums), np.var(sums)), rel=1e-12)


def test_nothing_to_test():
    for x in (np.ones((50, 3)), np.full((50, 3), 0.1), np.zeros((2, 1)), normal(0, (1, 4))):
        found = one(x)
        for test in (found.gaussian_tail, found.coordinates, found.rows):
            assert test.p_value == 1
        if len(x) > 1:
            assert found.variance.value == found.proxy.value == found.psi_2_centred.value == 0
            assert math.isnan(found.kurtosis.value)


# Tails and large rows.


def test_tail_curve():
    x = normal(12)
    tail = one(x).tail
    sigma = (x - x.mean(axis=0)).std()
    assert tail.mark == pytest.approx(sigma * math.sqrt(math.log(512)))
    assert np.any(tail.thresholds == tail.mark)
    assert np.all(np.diff(tail.thresholds) > 0)
    for t, share in zip(tail.thresholds, tail.observed, strict=True):
        assert share == pytest.approx(np.mean(np.abs(x - x.mean(axis=0)) > t), abs=1e-12)
    np.testing.assert_allclose(tail.observed, tail.gaussian, atol=0.01)
    assert np.all(tail.gaussian <= tail.subgaussian)
    assert np.all((tail.low <= tail.observed) & (tail.observed <= tail.high))


def test_large_rows_counted_and_predicted():
    Q, K, V = (0.1 * normal([13, i], (2048, 16)) for i in range(3))
    stats = entry_statistics(Q, K, V)
    for threshold in (0.0, 0.2, 0.3, 0.4, 0.5):
        q, k = stats.large_rows(threshold)
        for found, x in ((q, Q), (k, K)):
            assert found.counted == np.sum(np.max(np.abs(x), axis=1) > threshold)
            assert found.low <= found.counted <= found.high
            assert found.counted <= found.predicted <= 2048  # Markov: true of every sample
            bound = 2 * 2048 * 16 * math.exp(-(threshold**2) / (2 * 0.1**2))
            assert found.gaussian == pytest.approx(min(2048, bound), rel=0.2)
            assert found.counted <= found.gaussian
    heavy = entry_statistics(*(student([14, i]) for i in range(3))).large_rows(15.0)[0]
    assert heavy.gaussian < 1e-4 < heavy.counted <= heavy.predicted


def test_a_row_at_the_threshold_is_not_above_it():
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (50, 3))
    stats = entry_statistics(signs, signs, signs)
    assert [found.counted for found in stats.large_rows(1.0)] == [0, 0]
    assert stats.large_rows(math.nextafter(1, 0))[0].counted == 50


@pytest.mark.parametrize("threshold", ["x", None, True, 1j])
def test_large_rows_refuses_what_is_no_number(threshold):
    with pytest.raises(TypeError, match="^`threshold` is .*; pass a real number.$"):
        entry_statistics(*three()).large_rows(threshold)


def test_large_rows_refuses_a_negative_threshold():
    with pytest.raises(ValueError, match="`threshold` is -1; a magnitude of at least 0"):
        entry_statistics(*three()).large_rows(-1)


# The whole.


def test_verdicts_over_seeds():
    # Level 0.01: of 20 Gaussian samples, more than 2 alarms has probability 1e-3.
    alarms = {"gaussian_tail": 0, "coordinates": 0, "rows": 0}
    for seed in range(20):
        Q, K, V = (normal([seed, i], (256, 8)) for i in range(3))
        stats = entry_statistics(Q, K, V, resamples=20)
        for name in alarms:
            alarms[name] += stats.verdict(name).rejected
        heavy = entry_statistics(student(seed, shape=(256, 8)), K, V, resamples=20)
        assert heavy.rejected
        assert "rejected by `Q`, p = " in heavy.reason
    assert alarms["gaussian_tail"] == 0
    assert max(alarms.values()) <= 2


def test_many_heads_are_corrected_for():
    Q, K, V = (normal([15, i], (2, 3, 100, 4)) for i in range(3))
    K = K[:1, :1]  # broadcasts
    Q[1, 2] = student(15, shape=(100, 4)) ** 3
    stats = entry_statistics(Q, K, V, resamples=20)
    assert len(stats.matrices) == 18
    assert stats.of("Q", (1, 2)).psi_2.value > 100 > stats.of("Q", (0, 0)).psi_2.value
    alone = stats.of("Q", (1, 2)).gaussian_tail.p_value
    assert stats.verdict("gaussian_tail").p_value == pytest.approx(12 * alone, abs=0)
    assert stats.reason.startswith("entries sub-Gaussian, each column's variance its parameter")
    assert "rejected by `Q` of head (1, 2)" in stats.reason
    assert "Head (1, 2) of 6" in str(stats)
    with pytest.raises(KeyError, match="no matrix 'K' of head"):
        stats.of("K", (5, 5))


def test_dependent_rows_are_said_beside_the_verdict():
    Q, K, V = three(16, n=200)
    Q = np.cumsum(Q, axis=0)
    stats = entry_statistics(Q, K, V)
    assert stats.verdict("rows").rejected
    assert stats.reason.endswith("(given independent rows, which are rejected)")


def test_logit_bounds():
    Q, K, V = three()
    stats = entry_statistics(Q, K, V, scale=0.25)
    logits = 0.25 * np.max(np.abs(Q @ K.T))
    assert logits <= stats.norm_logit_bound <= stats.entry_logit_bound
    by_entries = 0.25 * 4 * np.max(np.abs(Q)) * np.max(np.abs(K))
    assert stats.entry_logit_bound == pytest.approx(by_entries)
    assert entry_statistics(Q, K, V).scale == 0.5


SCALES = [3, -20, 300, -400, 500, -560, 660, 1016, -1000]


def rescaled(estimate, exponent):
    return [
        math.inf if math.isinf(x) else x
        for x in (ldexp(end, exponent) for end in dataclasses.astuple(estimate))
    ]


def drawn_away_from_the_ends(seed):
    """Entries of sizes 1e-3 to 10: none becomes subnormal or infinite when scaled as here."""
    x = student([21, seed], shape=(2, 80, 5)) + 0.3
    return np.clip(np.abs(x), 1e-3, 10.0) * np.where(x < 0, -1.0, 1.0)


@pytest.mark.parametrize("exponent", SCALES)
def test_the_size_of_the_entries_is_no_matter(exponent):
    """Verdicts to the bit, linear figures times 2^e, squares times 4^e: inf or 0 past floats."""
    arrays = [drawn_away_from_the_ends(i) for i in range(3)]
    plain = entry_statistics(*arrays, resamples=30)
    moved = entry_statistics(*(np.ldexp(x, exponent) for x in arrays), resamples=30)
    for a, b in zip(plain.matrices, moved.matrices, strict=True):
        assert (a.gaussian_tail, a.coordinates, a.rows) == (b.gaussian_tail, b.coordinates, b.rows)
        assert a.kurtosis == b.kurtosis
        for name in ("psi_2", "psi_2_centred"):
            assert list(dataclasses.astuple(getattr(b, name))) == rescaled(
                getattr(a, name), exponent
            )
        for name in ("variance", "proxy"):
            found = list(dataclasses.astuple(getattr(b, name)))
            assert found == rescaled(getattr(a, name), 2 * exponent)
        assert b.mean_square == ldexp(a.mean_square, 2 * exponent)
        assert np.array_equal(b.row_max, np.ldexp(a.row_max, exponent))
        assert np.array_equal(b.tail.thresholds, [ldexp(t, exponent) for t in a.tail.thresholds])
        for name in ("observed", "low", "high", "gaussian", "subgaussian"):
            assert np.array_equal(getattr(a.tail, name), getattr(b.tail, name))
    for hypothesis in ("gaussian_tail", "coordinates", "rows"):
        assert plain.verdict(hypothesis) == moved.verdict(hypothesis)
    assert moved.norm_logit_bound == ldexp(plain.norm_logit_bound, 2 * exponent)
    assert moved.entry_logit_bound == ldexp(plain.entry_logit_bound, 2 * exponent)


@pytest.mark.parametrize("exponent", SCALES)
def test_large_rows_of_any_size(exponent):
    arrays = [drawn_away_from_the_ends(i) for i in range(3)]
    plain = entry_statistics(*arrays, resamples=2)
    moved = entry_statistics(*(np.ldexp(x, exponent) for x in arrays), resamples=2)
    for t in (0.0, 1.0, 6.0, 9.0):
        there = moved.large_rows(ldexp(t, exponent))
        for a, b in zip(plain.large_rows(t), there, strict=True):
            same = (a.rows, a.counted, a.low, a.high, a.predicted, a.gaussian)
            assert same == (b.rows, b.counted, b.low, b.high, b.predicted, b.gaussian)
    for t in (1e308, math.inf):
        found = plain.large_rows(t)[0]
        assert found.counted == found.predicted == found.gaussian == 0


@pytest.mark.parametrize("size", [1e-170, 1e-160, 1e160, 1e200])
def test_extreme_sizes_in_words_and_json(size):
    Q, K, V = (normal([22, i], (100, 4)) for i in range(3))
    found = entry_statistics(Q * size, K * size, V, resamples=20)
    for matrix in "QK":
        norm = found.of(matrix).psi_2
        assert 0 < norm.low < norm.value < norm.high < math.inf
        assert norm.value == pytest.approx(math.sqrt(8 / 3) * size, rel=0.2)
        assert "nan" not in str(found)
    record = json.loads(found.to_json())
    square = record["matrices"][0]["variance"]["value"]
    assert square == ("inf" if size > 1 else 0.0 if size < 1e-165 else pytest.approx(size**2, 0.3))
    assert float(square) == found.of("Q").variance.value
    assert set(record["matrices"][0]) == {f.name for f in dataclasses.fields(MatrixStatistics)} - {
        "row_max",
        "unit",
        "unit_square",
    }


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_heavy_tails_of_any_size_are_rejected(size):
    heavy = student(23, shape=(512, 8)) * size
    found = entry_statistics(heavy, normal(24, (60, 8)), normal(25, (60, 8)), resamples=20)
    assert found.rejected
    assert found.verdict("gaussian_tail").p_value < 1e-6


def test_a_column_of_another_size_is_tested_too():
    x = student(26, shape=(512, 2))
    x -= x.mean(axis=0)
    away = x * np.array([1.0, 2.0**-600])
    assert gaussian_tail(away) == gaussian_tail(x)
    assert gaussian_tail(away) != gaussian_tail(x[:, :1])


def test_statistics_are_compared_by_identity():
    first, again = (entry_statistics(*three(), resamples=5) for _ in range(2))
    for one_, other in (
        (first, again),
        (first.of("Q"), again.of("Q")),
        (first.of("Q").tail, again.of("Q").tail),
    ):
        assert one_ == one_ and one_ != other
        assert len({one_, other}) == 2
    assert first.of("Q").psi_2 == again.of("Q").psi_2  # numbers alone: by value


def test_each_array_may_have_its_own_dtype():
    Q, K, V = three()
    found = entry_statistics(Q.astype(np.float32), K, V.astype(">f8"), resamples=5)
    plain = entry_statistics(Q.astype(np.float32).astype(np.float64), K, V, resamples=5)
    assert found.to_json() == plain.to_json()


def test_print_and_json():
    stats = entry_statistics(*three(), resamples=50)
    text = str(stats)
    assert len(text.splitlines()) == 14
    for word in ("psi_2", "proxy", "kurtosis", "95% intervals", "50 resamples", "not rejected"):
        assert word in text
    record = json.loads(stats.to_json())
    assert record["rejected"] is False
    assert record["matrices"][1]["psi_2"]["value"] == stats.of("K").psi_2.value
    assert len(record["matrices"][0]["tail"]["thresholds"]) == 13
    assert record["verdicts"]["rows"]["p_value"] == stats.verdict("rows").p_value
    Q, K, V = three()
    assert (
        json.loads(entry_statistics(0 * Q, K, V).to_json())["matrices"][0]["kurtosis"]["value"]
        is None
    )


def test_same_seed_same_numbers():
    first, again = (entry_statistics(*three(), seed=4).to_json() for _ in range(2))
    assert first == again != entry_statistics(*three(), seed=5).to_json()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_another_array_library(dtype):
    arrays = [x.astype(dtype) for x in three()]
    strict = entry_statistics(*(array_api_strict.asarray(x) for x in arrays))
    assert strict.to_json() == entry_statistics(*arrays).to_json()


def test_many_rows_are_sampled_in_order():
    x = np.arange(50_000.0).reshape(-1, 1)
    kept = sample_rows(x, np.random.default_rng(0))[:, 0]
    assert len(kept) == 20_000
    assert np.all(np.diff(kept) > 0)
    assert np.mean(np.diff(kept) == 1) >= 1 - 1 / RUN
    found = one(normal(17, (20_500, 1)), resamples=5)
    assert (found.n, found.rows_used, len(found.row_max)) == (20_500, 20_000, 20_500)


def cost(n, d, resamples):
    """Return (entries exponentiated, bytes at the peak) of one call on three matrices (n, d)."""
    matrices = [normal(i, (n, d)) for i in range(3)]
    exponentials, real = [], np.exp
    entry_statistics(*matrices, resamples=resamples)  # what the first call imports is not counted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "exp", lambda x: exponentials.append(np.size(x)) or real(x))
        tracemalloc.start()
        try:
            entry_statistics(*matrices, resamples=resamples)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    return sum(exponentials), peak


@pytest.mark.parametrize(("n", "d"), [(128, 32), (128, 8), (512, 8)])
def test_cost(n, d):
    """Some 120 exponentials an entry, whatever the resamples; one of these costs bytes of rows."""
    few, many = (cost(n, d, resamples) for resamples in (20, 400))
    assert few[0] == many[0] <= 3 * n * d * 150
    for (_, peak), resamples in ((few, 20), (many, 400)):
        assert peak <= 8 * n * (24 * d + 80 + 2 * (1 + resamples))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"Q": [[1.0]]}, TypeError, "`Q` is a list; an array is needed"),
        (
            {"K": np.ones((60, 4), int)},
            TypeError,
            "`K` has dtype int64; real floating point is needed: convert it first",
        ),
        (
            {"V": np.ones((60, 4), complex)},
            TypeError,
            "`V` has dtype complex128; real floating point is needed: convert it first",
        ),
        (
            {"Q": np.ones(4)},
            ValueError,
            "`Q` has 1 dimension(s); it needs at least two, (..., n, d).",
        ),
        ({"Q": np.ones((0, 4))}, ValueError, "`Q` has no rows (n = 0); pass at least one query."),
        (
            {"Q": np.ones((0, 60, 4))},
            ValueError,
            "the leading dimensions (0,) hold no head; pass at least one.",
        ),
        (
            {"K": np.full((60, 4), math.nan)},
            ValueError,
            "`K` has 240 entries that are NaN or infinite; finite ones are needed",
        ),
        (
            {"K": np.ones((60, 5))},
            ValueError,
            "`K` has 5 columns but `Q` has 4: both need the head dimension d.",
        ),
        (
            {"V": np.ones((59, 4))},
            ValueError,
            "`V` has 59 rows but `K` has 60: each key needs one value.",
        ),
        (
            {"Q": np.ones((2, 60, 4)), "K": np.ones((3, 60, 4))},
            ValueError,
            "the leading dimensions of `Q`, `K`, `V` do not broadcast: (2,), (3,), ().",
        ),
        (
            {"scale": 0.0},
            ValueError,
            "`scale` is 0; it must be positive and finite (None gives 1/sqrt(d)).",
        ),
        (
            {"scale": math.nan},
            ValueError,
            "`scale` is nan; it must be positive and finite (None gives 1/sqrt(d)).",
        ),
        ({"scale": "x"}, TypeError, "`scale` is 'x' of type str; pass a real number."),
        ({"level": 1.0}, ValueError, "`level` is 1.0; a number in (0, 1) is needed"),
        ({"level": "a"}, TypeError, "`level` is 'a' of type str; pass a real number."),
        ({"alpha": 0.0}, ValueError, "`alpha` is 0.0; a number in (0, 1) is needed"),
        ({"alpha": 1j}, TypeError, "`alpha` is 1j of type complex; pass a real number."),
        ({"resamples": 0}, ValueError, "`resamples` is 0; a size is at least 1 and at most 2**53."),
        ({"scale": True}, TypeError, "`scale` is True of type bool; pass a real number."),
        ({"resamples": 1}, ValueError, "`resamples` is 1; an interval needs at least 2"),
        ({"resamples": 1.5}, TypeError, "`resamples` is 1.5 of type float; a size is an integer."),
        ({"seed": -1}, ValueError, "`seed` is -1; it must not be negative."),
        ({"seed": 0.5}, TypeError, "`seed` is 0.5 of type float; pass None or an integer."),
    ],
)
def test_messages(change, error, message):
    Q, K, V = three()
    given = {"Q": Q, "K": K, "V": V} | change
    with pytest.raises(error, match=f"^{re.escape(message)}$") as caught:
        subquad.entry_statistics(given.pop("Q"), given.pop("K"), given.pop("V"), **given)
    assert type(caught.value) is error


def test_numbers_of_numpy_are_taken_as_they_are():
    """No argument is refused, or moves a figure, for being NumPy's."""
    plain = {"scale": 0.25, "level": 0.5, "alpha": 0.125, "resamples": 7, "seed": 3}
    theirs = {
        "scale": np.float32(0.25),
        "level": np.float64(0.5),
        "alpha": np.float16(0.125),
        "resamples": np.int64(7),
        "seed": np.uint8(3),
    }
    first, again = (entry_statistics(*three(), **x).to_json() for x in (plain, theirs))
    assert first == again


def test_unknown_hypothesis():
    with pytest.raises(ValueError, match="`hypothesis` is 'tails'; one of gaussian_tail, coord"):
        entry_statistics(*three()).verdict("tails")
