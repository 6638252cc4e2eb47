"""The worst case of each theorem: problems on which the error is a known share of the bound."""

from typing import Any, NamedTuple

import numpy as np

import subquad
from subquad.exp_poly import minimax

FEW = 2000  # keys in all; multiplicities are rounded to whole keys
SMALL = ((0.5, 1e-2), (0.5, 1e-4), (0.4, 1e-3), (1.0, 1e-3))
"""Largest logits and tolerances. At 2 a twentieth of the worst keys lie so far from the others
that a method with thresholds takes them exactly."""


class Worst(NamedTuple):
    """A problem of scale 1: the Term of its first row is at most `within` times the error."""

    method: Any
    Q: np.ndarray
    K: np.ndarray
    V: np.ndarray
    tol: float
    term: str = "truncation"
    within: float = 2.0


def worst_keys(coefficients, logit_bound: float, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return keys (m, 1) at the extrema of p(x) exp(-x) - 1 and values of the error's sign.

    For the query 1 half of the softmax mass lies where the computed weights are too large, spread
    evenly over the extrema of each sign; the ends of the interval are among them.
    """
    x = np.linspace(-logit_bound, logit_bound, 200_001)
    error = np.polynomial.polynomial.polyval(x, coefficients) * np.exp(-x) - 1.0
    runs = np.split(np.arange(x.size), np.flatnonzero(np.diff(np.sign(error))) + 1)
    at = np.array([run[np.argmax(np.abs(error[run]))] for run in runs])
    assert (np.abs(error[at]) > 0.98 * eps).all()
    signs = np.sign(error[at])
    share = np.exp(-x[at]) / np.where(signs > 0, (signs > 0).sum(), (signs < 0).sum())
    counts = np.maximum(1, np.round(FEW * share / share.sum())).astype(int)
    return np.repeat(x[at], counts)[:, None], np.repeat(signs, counts)[:, None]


def of_minimax(method, reach, tol, *, queries=2, far=None, within=2.0) -> Worst:
    """Return the worst case of the polynomial that `polynomial` chooses for logits to `reach`.

    `queries` of size 1, of either sign; one more at `far`, where given.
    """
    Q = np.array([[1.0], [-1.0]])
    spread = np.linspace(-reach, reach, 101)[:, None]
    options = {"scale": 1.0, "rates": subquad.TYPICAL, "method": "polynomial"}
    made = subquad.plan(Q, spread, spread, tol=tol, **options)
    p = made.heads[0].chosen.parameters.polynomial
    K, V = worst_keys(p.scaled() * (1.0 - p.upper**2), p.logit_bound, p.upper)
    Q = np.repeat(Q, queries // 2, axis=0)
    Q = Q if far is None else np.concatenate([Q, [[far]]])
    return Worst(method, Q, np.clip(K, -reach, reach), V, tol, within=within)


def single_threshold(reach, tol) -> Worst:
    """Return that of a polynomial and one query far out, exact, which must not blunt the others."""
    method = subquad.SupportBasis(criterion="norm", threshold=1.5 * max(reach, 1.0))
    return of_minimax(method, reach, tol, far=300.0)


def of_line(method, reach, tol) -> Worst:
    """Return the worst case of the line on [-reach, reach], for the queries 1 and -1."""
    p = minimax(1, reach)
    K, V = worst_keys(p.scaled() * (1.0 - p.upper**2), reach, p.upper)
    return Worst(method, np.array([[1.0], [-1.0]]), K, V, tol, within=1.1)


def half_way_output() -> Worst:
    """Return a mean half way between two neighbours of float16: storing it costs half a step."""
    Q, K, V = np.zeros((1, 1)), [[-1.0], [1.0]], [[1024.0], [1025.0]]
    arrays = (np.asarray(x, np.float16) for x in (Q, K, V))
    return Worst("exact", *arrays, tol=2.0, term="storage", within=1.01)
