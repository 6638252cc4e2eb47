"""Claims on the gradient, and the functions of their checks against finite differences."""

from fractions import Fraction

import flint
import numpy as np
import pytest
import sympy as sp

from proofs_checks.checks.gradient import claims
from proofs_checks.checks.gradient.bounds import SHARP, slope_at_zero, two_level
from proofs_checks.checks.gradient.strip import composite_gauss, f_and_slope
from subquad.exp_poly.balls import precision

CLAIMS = {claim.id: claim for claim in (*claims.LITERATURE, *claims.DERIVED)}


@pytest.mark.parametrize("name", CLAIMS)
def test_claim_and_twin_are_as_expected(records, name):
    claim = CLAIMS[name]
    record = records[name]
    assert record.found.verdict == claim.expected, record.found.detail
    assert record.twin_found.verdict == claim.twin.expected, record.twin_found.detail


def test_closed_form_against_finite_differences():
    rng = np.random.default_rng(3)
    n, d, tau = 4, 3, 1.7
    A1, A2, h, E = (rng.normal(size=(n, d)) for _ in range(4))
    X = rng.normal(size=(d, d)) / 2

    def loss(X):
        weights = np.exp(A1 @ X @ A2.T / tau)
        f = weights / weights.sum(axis=1, keepdims=True)
        return ((f @ h - E) ** 2).sum() / 2, f

    form = claims.closed_form(*map(sp.Matrix, (A1, A2, h, E, loss(X)[1])))
    form = np.array(form.tolist(), dtype=float) / tau
    step = 1e-6 * np.eye(d * d).reshape(d * d, d, d)
    slopes = [(loss(X + s)[0] - loss(X - s)[0]) / 2e-6 for s in step]
    assert np.allclose(form.ravel(), slopes, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("form, number", [("D.3", "128/9"), ("D.5", "-224/9")])
def test_orientations_show_their_numbers(form, number):
    detail = claims.orientation(form).detail
    assert "dL/dX = -80/9" in detail and detail.endswith(f"printed form {number}")


def masses(A, V, x):
    weights = np.exp(x * A)
    return (weights / weights.sum(axis=1, keepdims=True)) @ V


def random_case(seed, n=5, d=3):
    rng = np.random.default_rng(seed)
    A = [[Fraction(int(t), 16) for t in row] for row in rng.integers(0, 33, (n, n))]
    return A, rng.integers(0, 2, (n, d))


@pytest.mark.parametrize("seed", range(3))
def test_slopes_against_finite_differences(seed):
    A, V = random_case(seed)
    floats = np.array(A, dtype=float)
    for x in (-1.0, 0.0, 0.7):
        f = [(masses(floats, V, x + s) ** 2).sum() for s in (0.0, 1e-5, -1e-5)]
        with precision(100):
            value, slope = (float(t) for t in f_and_slope(A, V, flint.arb(x)))
        assert value == pytest.approx(f[0])
        assert slope == pytest.approx((f[1] - f[2]) / 2e-5, rel=1e-6, abs=1e-8)
        if x == 0:
            assert float(slope_at_zero(A, V.tolist())) == pytest.approx(slope)


@pytest.mark.parametrize("seed", range(20))
def test_no_instance_exceeds_the_sharp_bound(seed):
    A, V = random_case(seed)
    B, (n, d) = max(map(max, A)), V.shape
    with precision(100):
        slopes = [f_and_slope(A, V, flint.arb(x) / 4)[1] for x in range(-12, 13)]
        assert all(abs(s) < n * d * float(B) * float(SHARP) for s in slopes)


def test_two_level_instances():
    assert two_level(3, 2, 1) == 3 * SHARP
    assert two_level(4, 2, 33) == 33  # against 8 B n = 32
    assert two_level(4, 2, 32) == 32
    assert two_level(3, 2, 27) == 24  # against 24: the last d at which 8 B n is right
    assert two_level(6, 6, 1) == 0


def test_gauss_integrates_what_a_fine_riemann_sum_does():
    A, V = random_case(1)
    floats = np.array(A, dtype=float)
    with precision(120):
        total = float(composite_gauss(A, V, 10, 4))
    ends = [(masses(floats, V, x) ** 2).sum() for x in (0.0, 1.0)]
    assert total == pytest.approx(ends[1] - ends[0], rel=1e-9)
