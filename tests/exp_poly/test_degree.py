import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subquad.exp_poly import minimal_degree, minimax, minimax_error
from subquad.exp_poly.degree import DegreeProof

from .oracle import sampled_error

BOUNDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


@pytest.mark.parametrize("B, degree", list(zip(BOUNDS, (2, 3, 5, 7, 12, 21), strict=True)))
def test_degrees_for_one_percent(B, degree):
    assert minimal_degree(B, 1e-2).degree == degree


@pytest.mark.parametrize("B", BOUNDS)
@pytest.mark.parametrize("exponent", range(1, 13))
def test_proved_from_both_sides(B, exponent):
    eps = 10.0**-exponent
    proof = minimal_degree(B, eps)
    assert proof.minimal
    assert proof.upper <= eps < proof.lower
    assert proof.upper == minimax(proof.degree, B).upper
    assert proof.lower == minimax_error(proof.degree - 1, B)[0]


@pytest.mark.parametrize("B, eps", [(0.5, 1e-3), (2.0, 1e-6), (8.0, 1e-1)])
def test_the_degree_works_and_the_one_below_does_not(B, eps):
    degree = minimal_degree(B, eps).degree
    assert sampled_error(minimax(degree, B).coefficients, B) <= eps
    assert sampled_error(minimax(degree - 1, B).coefficients, B) > eps


@settings(max_examples=30, deadline=None)
@given(B=st.floats(0.0, 24.0), log_eps=st.floats(-28.0, -0.01))
def test_any_request(B, log_eps):
    eps = math.exp(log_eps)
    proof = minimal_degree(B, eps)
    assert isinstance(proof, DegreeProof)
    assert (proof.logit_bound, proof.eps) == (B, eps)
    assert proof.upper <= eps
    assert proof.minimal == (proof.lower > eps)
    assert proof.minimal


def test_wide_interval_is_proved_too():
    proof = minimal_degree(64.0, 1e-2)
    assert proof.degree == 72 and proof.minimal


@pytest.mark.parametrize("eps, degree", [(0.99999, 49), (1 - 2.0**-53, 31)])
def test_an_estimate_far_off_costs_few_polynomials(monkeypatch, eps, degree):
    import subquad.exp_poly.degree as module

    asked = set()
    monkeypatch.setattr(module, "minimax_error", lambda g, B: asked.add(g) or minimax_error(g, B))
    proof = module._minimal_degree.__wrapped__(64.0, eps)
    assert proof.degree == degree and proof.upper <= eps
    assert len(asked) <= 10
    assert minimax_error(degree - 1, 64.0)[1] > eps


@pytest.mark.parametrize("B, eps, degree", [(64.0, 1e-40, 150), (64.0, 1e-100, 229)])
def test_tiny_errors_on_the_widest_interval(B, eps, degree):
    proof = minimal_degree(B, eps)
    assert proof.degree == degree and proof.minimal


def test_an_estimate_too_high_is_corrected(monkeypatch):
    import subquad.exp_poly.degree as module

    monkeypatch.setattr(module, "estimated_degree", lambda B, eps: 9)
    assert module._minimal_degree.__wrapped__(2.0, 1e-2).degree == 5


def test_degree_zero():
    assert minimal_degree(0, 1e-12) == DegreeProof(0, 0.0, 1e-12, lower=1.0, upper=0.0)
    proof = minimal_degree(0.1, 0.5)
    assert proof.degree == 0 and proof.lower == 1.0 and proof.minimal
    assert proof.upper == pytest.approx(math.tanh(0.1), rel=1e-15)


def test_eps_between_two_proofs_is_not_called_minimal():
    lower, upper = minimax_error(3, 1.0)
    assert minimal_degree(1.0, upper).degree == 3
    undecided = minimal_degree(1.0, lower)
    assert undecided.degree == 4 and not undecided.minimal


def test_numpy_scalars():
    assert minimal_degree(np.float32(0.5), np.float64(1e-2)).degree == 2


@pytest.mark.parametrize(
    "B, eps, kind, words",
    [
        (1.0, 0.0, ValueError, "`eps` is 0.0: it needs 0 < eps < 1"),
        (1.0, 1, ValueError, "`eps` is 1.0: it needs 0 < eps < 1"),
        (1.0, -0.25, ValueError, "`eps` is -0.25"),
        (1.0, math.nan, ValueError, "`eps` is nan"),
        (1.0, "small", TypeError, "`eps` is 'small': it needs to be a real number"),
        (1.0, np.bool_(True), TypeError, "`eps` is np.True_: it needs to be a real number"),
        (True, 0.1, TypeError, "`logit_bound` is True: it needs to be a real number"),
        (-1.0, 0.1, ValueError, r"`logit_bound` is -1.0: it needs to be in \[0, 64\]"),
        (64.25, 0.1, ValueError, r"`logit_bound` is 64.25: it needs to be in \[0, 64\]"),
        (math.nan, 0.1, ValueError, "`logit_bound` is nan"),
    ],
)
def test_bad_arguments(B, eps, kind, words):
    with pytest.raises(kind, match=words):
        minimal_degree(B, eps)


@pytest.mark.parametrize("degree", [True, np.bool_(True), 2.0])
def test_a_degree_is_an_integer(degree):
    with pytest.raises(TypeError, match="^`degree` is .*: it needs to be an integer.$"):
        minimax_error(degree, 1.0)


def test_out_of_reach(monkeypatch):
    import subquad.exp_poly.degree as module

    monkeypatch.setattr(module, "MAX_DEGREE", 10)
    words = r"`eps` is 1e-09: on \+-7.5 no degree up to 10 reaches it \(10 has 0.0341"
    with pytest.raises(ValueError, match=words):
        minimal_degree(7.5, 1e-9)
