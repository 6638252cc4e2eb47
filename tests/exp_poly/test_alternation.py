"""Where the exchange begins: points that are extrema already save it rounds in ball arithmetic."""

import importlib

import pytest

from subquad.exp_poly.alternation import alternation_points
from subquad.exp_poly.balls import ball, precision
from subquad.exp_poly.reference import kepler_points

from .oracle import sampled_error

solver = importlib.import_module("subquad.exp_poly.minimax")
enclosure = importlib.import_module("subquad.exp_poly.enclosure")


def counted(monkeypatch, module, name):
    calls, real = [], getattr(module, name)

    def function(*arguments):
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(module, name, function)
    return calls


@pytest.mark.parametrize(
    "degree, B",
    [(24, 1.0), (24, 8.0), (60, 4.0), (80, 64.0), (150, 64.0), (256, 1e-3), (256, 16.0)],
)
def test_one_exchange_is_enough_where_the_error_is_small(monkeypatch, degree, B):
    rounds = counted(monkeypatch, solver, "levelled_error")
    solver.solved.__wrapped__(degree, B)
    assert len(rounds) == 1


@pytest.mark.parametrize(
    "degree, B", [(1, 1e-12), (1, 64.0), (12, 64.0), (23, 0.5), (24, 64.0), (60, 64.0), (256, 64.0)]
)
def test_the_first_precision_is_enough_to_prove_the_error(monkeypatch, degree, B):
    proofs = counted(monkeypatch, enclosure, "_largest_error")
    isolations = counted(monkeypatch, enclosure, "real_roots")
    solver.solved.__wrapped__(degree, B)
    assert (len(proofs), len(isolations)) == (1, 0)


@pytest.mark.parametrize("degree, B", [(2, 1.0), (6, 4.0), (30, 8.0), (80, 64.0), (200, 32.0)])
def test_the_points_are_the_extrema_to_nine_digits(degree, B):
    points = alternation_points(degree, B)
    with precision(solver.working_bits(degree, B)):
        _, _, extrema = solver._exchange(degree, B)
        exact = [float(x / ball(B)) for x in extrema]
    gaps = [a - b for a, b in zip(exact, exact[1:], strict=False)]
    assert len(points) == degree + 2
    for i, (x, y) in enumerate(zip(points, exact, strict=True)):
        assert abs(x - y) <= 1e-9 * gaps[min(i, degree)]
    assert max(abs(x - y) for x, y in zip(kepler_points(degree, B), exact, strict=True)) > 1e-6


@pytest.mark.parametrize("degree, B", [(0, 1.0), (7, 64.0), (24, 64.0), (256, 64.0), (256, 5e-324)])
def test_any_request_gives_points_in_order(degree, B):
    points = alternation_points(degree, B)
    assert len(points) == degree + 2 and (points[0], points[-1]) == (1.0, -1.0)
    assert all(x > y for x, y in zip(points, points[1:], strict=False))


def test_where_the_error_is_near_one_the_points_are_keplers():
    assert alternation_points(24, 64.0) == kepler_points(24, 64.0)


def test_a_poor_start_costs_exchanges_and_no_proof(monkeypatch):
    good = solver.solved.__wrapped__(30, 8.0)
    monkeypatch.setattr(solver, "alternation_points", lambda g, B: kepler_points(g, 0.0))
    rounds = counted(monkeypatch, solver, "levelled_error")
    polynomial, lower = solver.solved.__wrapped__(30, 8.0)
    assert len(rounds) > 3
    assert lower == pytest.approx(good[1], rel=1e-12)
    assert lower <= polynomial.upper <= lower * (1 + 1e-12)
    assert sampled_error(polynomial.coefficients, 8.0) <= polynomial.upper
