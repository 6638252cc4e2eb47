"""The method that CONTRIBUTING shows: its text is the file's, and its bound needs every summand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import subquad
from subquad.head.problem import Problem
from tests import oracle
from tests.methods.shown import CONTRIBUTING, shown_text
from tests.methods.table import LINE, ROWS
from tests.test_tightness import measured

WIDE = oracle.WIDE


def test_contributing_shows_the_file():
    assert shown_text() == (Path(__file__).parent / "example.py").read_text()
    assert type(LINE).__module__ == "shown_in_contributing"  # the table runs the text, not the file


def test_the_factor_that_contributing_prints_is_met():
    told = " ".join(CONTRIBUTING.split())
    for make in ROWS["line"].worst_cases:
        case = make()
        result, error = measured(case)
        assert error <= result.certificate.row_bounds[0] <= case.within * error
        assert f"the certificate is within a factor {case.within} of the error" in told


@pytest.fixture(scope="module")
def account():
    """Return the Partial of a head and, in extended precision, what its summands speak of.

    Logits as stored and their true values, about the centres; key weights as stored and the logs of
    the true ones; the weights of the exact line; values [V, 1] without weights.
    """
    rng = np.random.default_rng(5)
    Q, K = (rng.standard_normal((rows, 4)) / 7.0 + 0.1 for rows in (40, 50))
    head = Problem(Q, K, rng.standard_normal((50, 2)), scale=1.0).heads[0]
    (offer,) = LINE.fit(head.stats, 2.0, subquad.TYPICAL)
    frame, (a, b) = head.frame, offer.parameters.line.scaled().astype(WIDE)
    weights, shift = frame.key_weights(K)
    q, k = (
        side.out_scale * (x.astype(WIDE) * side.in_scale - side.centre)
        for x, side in ((Q, frame.query), (K, frame.key))
    )
    stored = frame.queries(Q, "float64").astype(WIDE) @ frame.keys(K, "float64").astype(WIDE).T
    return LINE.run(head, offer.parameters), {
        "logits": (stored, q @ k.T),
        "key_weights": (
            weights.astype(WIDE),
            k @ frame.query_tilt / frame.key.out_scale - shift * np.log(WIDE(2.0)),
        ),
        "line": a + b * stored,
        "values": frame.values(head.V, None, "float64").astype(WIDE),
    }


def check(partial, logits, key_weights, line, values):
    """Assert what each summand of a Partial promises, by weights and sums that are far better."""
    (stored, true), (weights, logs) = logits, key_weights
    apart = np.abs(np.exp(stored) - line)
    assert np.all((apart * weights).sum(axis=1) <= partial.error)
    assert np.all((apart / line).max(axis=1) <= partial.ratio)
    sums = (line * weights) @ values
    away = np.abs(partial.numerator - sums[:, :-1]).max(axis=1)
    assert np.all(away + np.abs(partial.normaliser - sums[:, -1]) <= partial.rounding)
    moved = np.abs(stored - true + np.log(weights) - logs)
    assert np.all(moved.max(axis=1) <= partial.perturbation)


def test_every_summand_bounds_what_it_is_for(account):
    partial, known = account
    check(partial, **known)


@pytest.mark.parametrize("summand", ["error", "ratio", "rounding", "perturbation"])
def test_without_a_summand_the_bound_is_false(summand, account):
    partial, known = account
    with pytest.raises(AssertionError):
        check(replace(partial, **{summand: 0.0 * getattr(partial, summand)}), **known)


@pytest.mark.parametrize("summand", ["eps * (normaliser + rounding)", "eps * one"])
def test_the_text_with_half_of_its_truncation_is_refuted(summand):
    """The worst case of the table sees it: the certificate falls below the error."""
    assert shown_text().count(summand) == 1
    names: dict = {"__name__": "shown_in_contributing"}
    exec(shown_text().replace(summand, f"0.5 * {summand}"), names)  # noqa: S102
    case = ROWS["line"].worst_cases[0]()
    result, error = measured(case._replace(method=names["Line"]()))
    assert result.certificate.row_bounds[0] < error
