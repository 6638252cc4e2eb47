"""Fitted pairs: the majorant is one, at 50 digits; what is not one is raised; data steer it."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad.exp_poly import majorant, minimax
from subquad.exp_poly.majorant import fit_pair, proved_pair, relative_range, shortfall

X64 = np.random.default_rng(0).standard_normal((2, 4096, 64))


def sums_of(x, degree):
    return np.stack([(x**k).sum(axis=1) for k in range(degree + 1)], axis=1)


def gaussian_logits(logit_bound):
    """Logits of 64 queries: d = 64, i.i.d., the largest |q| |k| equal to logit_bound."""
    Q, K = X64[0, :64], X64[1]
    reach = np.linalg.norm(Q, axis=1).max() * np.linalg.norm(K, axis=1).max()
    return Q @ K.T * (logit_bound / reach)


def least_gap(p, m, logit_bound, points=401):
    """Return the least m - |exp - p| over a grid with the ends, at 50 digits."""
    with mpmath.workdps(50):
        p, m = ([mpmath.mpf(float(c)) for c in reversed(x)] for x in (p, m))
        B = mpmath.mpf(float(logit_bound))
        grid = [B * (2 * mpmath.mpf(i) / (points - 1) - 1) for i in range(points)]
        return float(
            min(mpmath.polyval(m, x) - abs(mpmath.exp(x) - mpmath.polyval(p, x)) for x in grid)
        )


@pytest.mark.parametrize("degree", [0, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("logit_bound", [2.0**-40, 0.01, 0.5, 2.0, 8.0, 16.0])
def test_the_majorant_is_one(degree, logit_bound):
    pair = fit_pair(degree, logit_bound, sums_of(gaussian_logits(logit_bound), degree))
    assert pair.degree == degree
    assert least_gap(pair.polynomial, pair.majorant, logit_bound) >= 0.0
    assert shortfall(pair.polynomial, pair.majorant, logit_bound) == 0.0


@settings(max_examples=30)
@given(
    p=st.lists(st.floats(-3, 3), min_size=3, max_size=5),
    logit_bound=st.floats(0.0, 6.0),
    m=st.lists(st.floats(-1, 1), min_size=3, max_size=5),
)
def test_any_two_polynomials_become_a_pair(p, m, logit_bound):
    """Whatever the linear program answers: the lift makes a majorant, and is not much too high."""
    size = min(len(p), len(m))
    pair = proved_pair(np.array(p[:size]), np.array(m[:size]), logit_bound)
    assert least_gap(pair.polynomial, pair.majorant, logit_bound) >= 0.0
    x = np.linspace(-logit_bound, logit_bound, 20_001)
    value = np.polynomial.polynomial.polyval
    gap = value(x, pair.majorant) - np.abs(np.exp(x) - value(x, pair.polynomial))
    assert pair.lift < 1e-9 or gap.min() <= 0.02 * pair.lift


@pytest.mark.parametrize(("degree", "logit_bound"), [(2, 0.5), (4, 1.0), (6, 4.0)])
def test_nine_tenths_of_a_majorant_are_refuted_and_raised(degree, logit_bound):
    pair = fit_pair(degree, logit_bound, sums_of(gaussian_logits(logit_bound), degree))
    p, less = pair.polynomial, 0.9 * pair.majorant
    gap = least_gap(p, less, logit_bound)
    assert gap < 0.0
    assert shortfall(p, less, logit_bound) >= -gap
    again = proved_pair(p, less, logit_bound)
    assert again.lift >= -gap
    assert least_gap(p, again.majorant, logit_bound) >= 0.0


@pytest.mark.parametrize(
    ("degree", "logit_bound", "reached", "a_priori"),
    [
        (2, 0.5, 4.2e-4, 10),
        (2, 1.0, 3.5e-3, 10),
        (2, 2.0, 3.2e-2, 8),
        (4, 0.5, 1.2e-7, 100),
        (4, 1.0, 4e-6, 70),
        (4, 2.0, 1.3e-4, 60),
    ],
)
def test_the_data_steer_it(degree, logit_bound, reached, a_priori):
    """Bounds of the worst row, and how many times smaller than the a priori one they are."""
    sums = sums_of(gaussian_logits(logit_bound), degree)
    pair = fit_pair(degree, logit_bound, sums)
    worst = float(np.max(2.0 * (sums @ pair.majorant) / (sums @ pair.polynomial)))
    assert worst <= reached
    assert worst <= minimax(degree, logit_bound).upper / a_priori


def test_one_round_is_near_enough_to_predict_with():
    sums = sums_of(gaussian_logits(1.0), 2)
    one, all_ = (fit_pair(2, 1.0, sums, rounds=r) for r in (1, majorant.ROUNDS))
    reached = [float(np.max(sums @ p.majorant / (sums @ p.polynomial))) for p in (one, all_)]
    assert reached[1] <= reached[0] <= 1.5 * reached[1]


@pytest.mark.parametrize(
    "sums",
    [
        np.zeros((0, 3)),
        np.zeros((2, 3)),
        np.full((1, 3), np.nan),
        np.full((1, 3), np.inf),
        np.array([[1.0, 0.0, 0.0]]),
        -np.ones((3, 3)),
    ],
)
@pytest.mark.parametrize("logit_bound", [2.0**-40, 1.0])
def test_sums_of_any_kind_give_a_majorant(sums, logit_bound):
    pair = fit_pair(2, logit_bound, sums)
    assert np.isfinite(pair.majorant).all()
    assert least_gap(pair.polynomial, pair.majorant, logit_bound) >= 0.0


def test_an_unsolved_or_lying_program_cannot_spoil_the_proof(monkeypatch):
    sums = sums_of(gaussian_logits(1.0), 2)
    for answer in (None, (np.ones(3), -np.ones(3), -1.0), (np.zeros(3), np.zeros(3), 0.0)):
        monkeypatch.setattr(majorant, "_program", lambda *_, answer=answer: answer)
        pair = fit_pair(2, 1.0, sums)
        assert least_gap(pair.polynomial, pair.majorant, 1.0) >= 0.0


def test_the_relative_range_holds_its_samples():
    from fractions import Fraction

    q = tuple(Fraction(c) for c in (1, 1, 1, -2))
    low, high = relative_range(q, 3.0)
    x = np.linspace(-3.0, 3.0, 2001)
    values = np.polynomial.polynomial.polyval(x, [float(c) for c in q]) * np.exp(-x) - 1.0
    assert low <= values.min() <= low + 1e-3
    assert high - 1e-3 <= values.max() <= high


def test_a_logit_bound_out_of_range_is_refused():
    with pytest.raises(ValueError, match="logit_bound"):
        fit_pair(2, 65.0, np.ones((1, 3)))
