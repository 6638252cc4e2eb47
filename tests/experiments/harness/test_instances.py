"""Each family is what its first line says, by seed, in the dtype asked for."""

import math

import numpy as np
import pytest

from experiments.harness import instances
from experiments.harness.instances import FAMILIES

EVERY = pytest.mark.parametrize("name", FAMILIES)


def norms(rows):
    return np.linalg.norm(rows.astype(np.float64), axis=1)


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_and_dtype(name, dtype):
    Q, K, V, scale = FAMILIES[name](n=40, d=5, m=30, d_v=3, seed=2, dtype=dtype)
    assert (Q.shape, K.shape, V.shape) == ((40, 5), (30, 5), (30, 3))
    assert Q.dtype == K.dtype == V.dtype == dtype
    assert all(np.all(np.isfinite(x)) for x in (Q, K, V))
    assert scale == (1 / 5 if name == "reference" else 1 / math.sqrt(5))
    Q, K, V, _ = FAMILIES[name](7, 4)
    assert Q.shape == K.shape == V.shape == (7, 4)


@EVERY
def test_deterministic_by_seed(name):
    first, again, other = (FAMILIES[name](50, 4, seed=seed) for seed in (5, 5, 6))
    for a, b, c in zip(first[:3], again[:3], other[:3], strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


@EVERY
def test_keys_do_not_change_with_n(name):
    few, many = (FAMILIES[name](n, 4, m=30, seed=1) for n in (20, 25))
    if name != "outliers":  # which keys are outliers is drawn after the queries
        np.testing.assert_array_equal(few[1], many[1])


@EVERY
def test_values_are_off_centre(name):
    V = FAMILIES[name](4000, 6)[2]
    means = np.abs(V.mean(axis=0)) / V.std(axis=0)
    assert np.all(means < 0.1) if name == "reference" else np.all(means > 0.4)


@EVERY
def test_meaning_is_one_line(name):
    assert 20 < len(instances.meaning(name)) < 110


def test_reference_has_the_published_moments():
    Q, K, V, _ = instances.reference(4096, 64)
    for x, sigma in ((Q, 0.1), (K, 0.1), (V, 0.05)):
        assert x.std() == pytest.approx(sigma, rel=0.01)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("beta", [0.5, 8.0])
def test_bounded_meets_its_bound_from_below(beta, dtype):
    for seed in range(10):
        Q, K, _, scale = instances.bounded(100, 8, m=50, beta=beta, seed=seed, dtype=dtype)
        reached = norms(Q).max() * norms(K).max() * scale
        assert beta * (1 - 20 * np.finfo(dtype).eps) - 1e-12 <= reached <= beta
        for rows in (Q, K):
            ratio = norms(rows) / norms(rows).max()
            assert 0.49 < ratio.min() < 0.6
            assert abs(rows.mean()) < 0.2 * norms(rows).max()


def test_subgaussian_and_heavy_tail_are_their_laws():
    Q = instances.subgaussian(5000, 8, sigma=0.3)[0]
    assert Q.std() == pytest.approx(0.3, rel=0.02)
    assert np.max(np.abs(Q)) < 0.3 * 6
    Q = instances.heavy_tail(5000, 8, dof=3, factor=0.3)[0]
    assert np.median(np.abs(Q)) == pytest.approx(0.3 * 0.7649, rel=0.02)  # quartile of t3
    assert np.max(np.abs(Q)) > 10 * np.median(np.abs(Q))


@pytest.mark.parametrize("factor", [5, 50])
def test_outliers_are_few_and_large(factor):
    options = {"m": 1000, "beta": 0.5, "seed": 3}
    plain = instances.bounded(3000, 6, **options)
    found = instances.outliers(3000, 6, factor=factor, **options)
    for before, after, count in zip(plain[:2], found[:2], (3, 1), strict=True):
        ratio = norms(after) / norms(before)
        assert np.sum(ratio > 1.5) == count
        np.testing.assert_allclose(ratio[ratio > 1.5], factor)
        np.testing.assert_array_equal(after[ratio < 1.5], before[ratio < 1.5])
    assert np.sum(norms(instances.outliers(10, 6)[1]) > 5) == 1


@pytest.mark.parametrize(("n", "m"), [(64, 64), (40, 64), (64, 40)])
def test_planted_key_has_most_of_the_weight(n, m):
    Q, K, _, scale = instances.planted(n, 64, m=m)
    logits = scale * Q @ K.T
    match = logits.argmax(axis=1)
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.all(weights.max(axis=1) > 0.5)
    np.testing.assert_allclose(logits.max(axis=1), 2 * math.log(m) + 1)
    cosine = np.sum(Q * K[match], axis=1) / norms(Q) / norms(K[match])
    np.testing.assert_allclose(cosine, 1)
    if n <= m:
        assert len(set(match)) == n


def test_strength_is_the_matching_logit():
    Q, K, _, scale = instances.planted(20, 64, strength=3.0)
    assert np.sum(np.isclose(scale * Q @ K.T, 3.0)) == 20


def test_real_heads():
    assert len(instances.real_names()) == 12
    for name in instances.real_names():
        Q, K, V, scale = instances.real(name)
        assert Q.shape == K.shape == V.shape == (512, 32)
        assert Q.dtype == K.dtype == V.dtype == np.float32
        assert scale == 1 / math.sqrt(32)
    with pytest.raises(ValueError, match="`name` is 'none'; shipped heads: minilm-l0"):
        instances.real("none")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: instances.reference(0, 4), "`n` is 0"),
        (lambda: instances.planted(4, 4, d_v=0), "`d_v` is 0"),
        (lambda: instances.bounded(4, 4, beta=-1.0), "`beta` is -1.0; a logit bound above 0"),
        (lambda: instances.outliers(4, 4, factor=60), "`factor` is 60; outliers are 5 to 50"),
        (lambda: instances.outliers(4, 4, fraction=1), r"`fraction` is 1; .* in \(0, 1\)"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
