"""Claims on hardness gadgets, and the gadget itself, built and run through plain softmax."""

import math
from fractions import Fraction

import numpy as np
import pytest

from proofs_checks.checks.hardness import claims
from proofs_checks.checks.hardness.gadget import balanced, logit_over_log_n

CLAIMS = {claim.id: claim for claim in (*claims.LITERATURE, *claims.DERIVED)}


@pytest.mark.parametrize("name", CLAIMS)
def test_claim_and_twin_are_as_expected(records, name):
    claim = CLAIMS[name]
    record = records[name]
    assert record.found.verdict == claim.expected, record.found.detail
    assert record.twin_found.verdict == claim.twin.expected, record.twin_found.detail


def test_balanced_vectors():
    vectors = balanced(6)
    assert len(set(vectors)) == math.comb(6, 3)
    assert all(len(v) == 6 and sum(v) == 3 for v in vectors)


@pytest.mark.parametrize("seed", range(20))
def test_gadget_built_as_attention(seed):
    """Queries and keys as in the lemma, plain softmax over 2 n keys, D >= 2 d columns."""
    rng = np.random.default_rng(seed)
    n, d, t, eps = 6, 8, 3, Fraction(1, 3)
    D = 2 * d + 3
    vectors = np.array(balanced(d))
    a, b = (vectors[rng.integers(0, len(vectors), n)] for _ in range(2))
    mu = 0.5 - (0.5 + float(eps) / 3) * t / d
    size = math.sqrt(D / (2 * d)) * math.sqrt(12 * d * math.log(n) / (float(eps) * t))
    Q, K = np.zeros((n, D)), np.zeros((2 * n, D))
    Q[:, :d], Q[:, d : 2 * d] = size * a, size
    K[:n, :d], K[:n, d : 2 * d] = size * b, -size * mu
    logits = Q @ K.T / D
    wanted = [[logit_over_log_n(int(x @ y), d, t, eps) for y in b] for x in a]
    assert np.allclose(logits[:, :n], np.array(wanted, dtype=float) * math.log(n))
    weights = np.exp(logits)
    y = weights[:, :n].sum(axis=1) / weights.sum(axis=1)
    distances = np.abs(a[:, None] - b).sum(axis=2).min(axis=1)
    near, far = distances <= t, distances >= float(1 + eps) * t
    assert (y[near] >= n / (n + 1)).all()
    assert (y[far] <= 1 / (n + 1) * (1 + 1e-12)).all()


def test_logits_at_the_two_distances():
    """2 ln n at distance t, -ln n at (1 + eps) t; the inner product is (d - distance)/2."""
    assert logit_over_log_n(2, 8, 4, Fraction(1, 2)) == 2
    assert logit_over_log_n(1, 8, 4, Fraction(1, 2)) == -1
