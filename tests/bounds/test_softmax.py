"""Every lemma: true on random and adversarial weights, attained on its worst case, and falsifiable.

A checker is given the lemma as a function, so that the same checker must refute the lemma
multiplied by 0.99.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subquad.bounds.softmax import (
    additive_bound,
    logit_perturbation_bound,
    normaliser_lower_bound,
    output_bound,
    ratio_bound,
    ratio_bound_inverse,
)

SMALL = [1e-300, 1e-150, 1e-16, 1e-8, 1e-4, 1e-2]
PAIRS = [
    (e, a)
    for a in (*SMALL, 0.1, 0.5, 0.9, 0.999999, 1.0)
    for e in (*SMALL, 0.03, 0.1, 0.3, 0.6, 0.9, 0.99)
    if 1e-12 * a <= e <= a
]


def distance(true, computed):
    """Return the l1 distance of two weight vectors, each divided by its sum."""
    return float(
        np.abs(true / true.sum(-1, keepdims=True) - computed / computed.sum(-1, keepdims=True))
        .sum(-1)
        .max()
    )


def worst_masses(e, a):
    """Return (mass off A in error, mass on A in error, mass on A without error), computed weights.

    Errors -a off A and +a on A; the first solves the stationarity condition of the proof, or is
    all the mass e/a that may be in error.
    """
    share = e / a
    z = share
    if a * (1.0 + e) <= e * (3.0 - e):
        # (1 + e - sqrt((1+e)(1-a)))/(2a), without the cancellation.
        z = (1.0 + e) * (e + a) / (2.0 * a * (1.0 + e + math.sqrt((1.0 + e) * (1.0 - a))))
    return z, share - z, 1.0 - share


def attained(e, a):
    """Return the l1 distance of the worst case for (e, a), by its own formula.

    p(A) - p~(A) from the masses themselves: the masses of A are (1 - z), of which share - z grow
    by a, while z shrinks by a.
    """
    z, grown, still = worst_masses(e, a)
    total = 1.0 + a * (grown - z)
    moved = a * (grown * z + z * (1.0 - z) - z * (grown - z)) if still >= 0.0 else math.nan
    # p(A) = ((1 + a) grown + still)/total and p~(A) = 1 - z, so p(A) - p~(A) is as follows.
    assert grown >= -1e-15 and moved >= 0.0
    return 2.0 * a * (grown - (1.0 - z) * (grown - z)) / total


@pytest.mark.parametrize(("e", "a"), PAIRS)
def test_output_bound_is_attained(e, a):
    """The configuration of the proof reaches it to 1e-9, whatever the sizes."""
    assert 1.0 - 1e-9 < attained(e, a) / float(output_bound(e, a)) <= 1.0


@pytest.mark.parametrize(("e", "a"), [(e, a) for e, a in PAIRS if e > 1e-7])
def test_the_worst_case_is_a_true_instance(e, a):
    """The masses do have errors within e in sum and a each, and move softmax by that much."""
    masses = np.maximum(worst_masses(e, a), 0.0)
    true = masses * (1.0 + a * np.array([-1.0, 1.0, 0.0]))
    assert np.abs(true - masses).sum() <= e * (1.0 + 1e-12)
    assert distance(true, masses) == pytest.approx(attained(e, a), rel=1e-6, abs=1e-15)


def refuted_at_worst(lemma, e, a):
    return attained(e, a) > float(lemma(e, a))


@pytest.mark.parametrize(("e", "a"), PAIRS)
def test_a_smaller_bound_is_refuted(e, a):
    assert not refuted_at_worst(output_bound, e, a)
    assert refuted_at_worst(lambda e, a: 0.99 * output_bound(e, a), e, a)


def violations(lemma, rng, cases=300):
    """Return how often random and greedy errors of positive weights move softmax beyond `lemma`."""
    count = 0
    for _ in range(cases):
        m = int(rng.integers(2, 9))
        computed = rng.exponential(size=m) ** rng.uniform(0.5, 3.0)
        a = rng.choice([0.02, 0.3, 0.9, 1.0]) * rng.uniform(0.1, 1.0)
        kind = rng.integers(3)
        if kind == 0:
            t = rng.uniform(-a, a, m)
        elif kind == 1:  # each at its limit, a subset up and the rest down
            t = a * rng.choice([-1.0, 0.0, 1.0], m)
        else:  # greedy: flip whatever raises the distance
            t = a * rng.choice([-1.0, 1.0], m)
            for _ in range(2):
                for j in range(m):
                    tries = np.tile(t, (3, 1))
                    tries[:, j] = (-a, 0.0, a)
                    gains = [distance(computed * (1 + row), computed) for row in tries]
                    t = tries[int(np.argmax(gains))]
        true = computed * (1.0 + t)
        e = np.abs(true - computed).sum() / computed.sum() * (1.0 + 1e-14)
        count += distance(true, computed) > float(lemma(e, a)) * (1 + 1e-13) + 1e-15
    return count


def test_output_bound_is_sound():
    assert violations(output_bound, np.random.default_rng(0)) == 0
    half = lambda e, a: output_bound(e, a) / 2.0  # noqa: E731
    assert violations(half, np.random.default_rng(0)) > 50


def signed_violations(lemma, rng, cases=400):
    """With a = 1 the computed weights may be of either sign: only their sum is known."""
    count = 0
    for _ in range(cases):
        m = int(rng.integers(2, 9))
        true = rng.exponential(size=m)
        computed = true + rng.standard_normal(m) * rng.choice([0.01, 0.3, 1.0])
        if rng.random() < 0.5:  # the worst: all the error on one key and its opposite on another
            computed = true.copy()
            computed[0] += true[0] * rng.uniform(-3.0, 1.0)
        if not computed.sum() > 0:
            continue
        e = np.abs(true - computed).sum() / computed.sum() * (1.0 + 1e-14)
        count += distance(true, computed) > float(lemma(e)) * (1 + 1e-13)
    return count


def test_additive_bound_is_sound_for_signed_weights():
    assert signed_violations(additive_bound, np.random.default_rng(1)) == 0
    assert signed_violations(lambda e: additive_bound(e) / 4.0, np.random.default_rng(1)) > 10


def test_additive_bound_is_attained():
    """A vanishing key gets the weight -e: the l1 distance tends to 2e."""
    for e in (1e-9, 1e-3, 0.4):
        true, computed = np.array([1.0 + e, 1e-30]), np.array([1.0 + e, -e])
        assert distance(true, computed) == pytest.approx(float(additive_bound(e)), rel=1e-6)


def test_special_cases():
    for e in (*SMALL, 0.1, 0.5, 0.9):
        assert float(additive_bound(e)) == pytest.approx(2.0 * e, rel=1e-12)
        expected = 2.0 * e / (1.0 + math.sqrt((1.0 - e) * (1.0 + e)))
        assert float(ratio_bound(e)) == pytest.approx(expected, rel=1e-12)
        assert float(output_bound(e, e)) == float(ratio_bound(e))
        # Only the smaller of e and a counts where every ratio is known.
        assert float(output_bound(min(2.0 * e, 0.95), e)) == float(ratio_bound(e))


@given(a=st.floats(1e-12, 1.0), x=st.floats(1e-9, 1.0), y=st.floats(1e-9, 1.0))
def test_monotone(a, x, y):
    low, high = sorted((x * a, y * a))
    assert float(output_bound(low, a)) <= float(output_bound(high, a)) * (1.0 + 1e-12)
    e = 0.9 * low
    low, high = sorted((max(x, e), max(y, e)))
    assert float(output_bound(e, low)) <= float(output_bound(e, high)) * (1.0 + 1e-12)


def test_nothing_is_claimed_where_nothing_is_known():
    for e, a in (
        (1.0, 1.0),
        (1.5, 1.0),
        (np.nan, 0.5),
        (-1e-9, 0.5),
        (np.inf, 1.0),
        (0.5, np.nan),
        (np.nan, np.nan),
        (0.1, 0.0),
    ):
        assert not float(output_bound(e, a)) <= 2.0 or (e, a) == (0.1, 0.0)
    assert float(output_bound(0.0, 0.7)) == 0.0
    assert np.array_equal(output_bound(np.array([0.0, 2.0]), np.array([0.5, 1.0])), [0.0, np.inf])


def test_the_folklore_bound_is_looser_by_78_per_cent():
    """min(2 eps/(1 + sqrt(1 - eps^2)), 2e/(1 - e)) at eps = 1e-2, half of the mass in error."""
    a = 1e-2
    gain = max(
        min(float(ratio_bound(a)), 2.0 * e / (1.0 - e)) / float(output_bound(e, a))
        for e in a * np.linspace(0.05, 1.0, 400)
    )
    assert 1.7 < gain < 1.79


@given(bound=st.floats(1e-300, 2.0))
def test_ratio_bound_inverse(bound):
    eps = ratio_bound_inverse(bound)
    assert float(ratio_bound(eps)) <= bound
    assert bound * (1.0 - 1e-6) <= float(ratio_bound(eps * (1.0 - 1e-13))) or bound > 1.999


def perturbation_violations(lemma, rng, cases=500):
    count = 0
    for _ in range(cases):
        m = int(rng.integers(1, 9))
        delta = 10.0 ** rng.uniform(-6.0, 1.0)
        logits = rng.standard_normal(m) * rng.choice([0.1, 3.0])
        moved = logits + delta * rng.choice([-1.0, 1.0], m)
        count += distance(np.exp(logits), np.exp(moved)) > float(lemma(delta)) + 1e-15
    return count


def test_logit_perturbation_is_sound_and_attained():
    assert perturbation_violations(logit_perturbation_bound, np.random.default_rng(2)) == 0
    for delta in (1e-6, 1e-2, 1.0, 8.0):
        # Two groups: weights exp(+-delta) with masses such that both ends are alike.
        true = np.array([math.exp(delta / 2), math.exp(-delta / 2)])
        got = distance(true, true * np.exp([-delta, delta]))
        assert got == pytest.approx(float(logit_perturbation_bound(delta)), rel=1e-9)
        assert got > 0.99 * float(logit_perturbation_bound(delta))
    assert float(logit_perturbation_bound(0.0)) == 0.0
    assert math.isnan(float(logit_perturbation_bound(math.nan)))


@given(seed=st.integers(0, 2**32 - 1), tilt=st.floats(0.0, 3.0))
def test_normaliser_lower_bound_is_sound(seed, tilt):
    rng = np.random.default_rng(seed)
    m, d = int(rng.integers(1, 30)), int(rng.integers(1, 5))
    K, q = rng.standard_normal((m, d)) + tilt, rng.standard_normal(d)
    weights = rng.exponential(size=m)
    radius = np.linalg.norm(K, axis=1).max()
    offset = np.linalg.norm(weights @ K / weights.sum()) / radius
    lower = normaliser_lower_bound(weights.sum(), np.linalg.norm(q) * radius, offset)
    assert float(lower) <= float(weights @ np.exp(K @ q)) * (1.0 + 1e-13)


def test_normaliser_lower_bound_is_attained():
    """Centred keys and q = 0: exactly the number of keys. Equal keys against q: offset 1."""
    assert float(normaliser_lower_bound(7.0, 3.0, 0.0)) == pytest.approx(7.0, rel=1e-12)
    assert float(normaliser_lower_bound(7.0, 3.0, 0.0)) <= 7.0
    K, q = np.ones((5, 1)), np.array([-3.0])
    assert float(normaliser_lower_bound(5.0, 3.0, 1.0)) == pytest.approx(
        float(np.exp(K @ q).sum()), rel=1e-12
    )
    assert float(1.01 * normaliser_lower_bound(5.0, 3.0, 1.0)) > float(np.exp(K @ q).sum())
