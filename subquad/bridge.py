"""Softmax attention as a sum of polynomial attentions, measured: the bridge between the two.

exp restricted to the logits of one bucket of queries with one bucket of keys, both by norm, is
nearly a polynomial of low degree, and each power of it is a polynomial attention (q.k)^k over those
rows and keys. Beside the sum stands one polynomial attention ((q.k + t)^p, p even, normalised), as
good as the best p and t make it, and the uniform answer. Everything here is measured on the full
matrix of weights, O(n m), and proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from subquad.arguments import check_size
from subquad.problem import Problem

POWERS = (2, 4, 8)
DEGREE_MAX = 64
ENTRIES_MAX = 2**24
FITTED_ENTRIES = 2**12
"""Most logits of a bucket pair that its polynomial is fitted to."""
FITTED_ROWS = 256
SHIFTS = np.concatenate([[0.0], np.geomspace(0.05, 200.0, 49)])

Norms = dict[str, float]
"""Errors in l_p, by "1", "2" and "inf"."""


@dataclass(frozen=True)
class Approximation:
    """How near one answer comes; measured.

    Attributes
    ----------
    name : str
        What it is, in words.
    terms : int
        Polynomial attentions summed, each one power of the logits on one pair of buckets.
    weights : dict
        |P - P~|_p / |P|_p over the entries of the softmax matrix.
    output : dict
        (mean |error|^p)^(1/p) over the entries of the output, in units of value_radius.
    rows_lost : int
        Rows whose computed normaliser is not positive; they answer with the mean of V.
    """

    name: str
    terms: int
    weights: Norms
    output: Norms
    rows_lost: int


@dataclass(frozen=True)
class Bridge:
    """What `softmax_as_polynomials` found.

    Attributes
    ----------
    by_degree : tuple of Approximation
        The sum over the bucket pairs of polynomials of degree 0, 1, ... up to the one asked for.
    powers : tuple of Approximation
        One polynomial attention with p = 2, 4, 8, plain and with its best shift t.
    uniform : Approximation
        The null model: every weight 1/m.
    logit_bounds : array (buckets, buckets)
        Largest |logit| of each pair of buckets, keys centred at their mean.
    """

    by_degree: tuple[Approximation, ...]
    powers: tuple[Approximation, ...]
    uniform: Approximation
    logit_bounds: np.ndarray

    @property
    def best_power(self) -> Approximation:
        """The one polynomial attention of smallest l2 error of the weights."""
        return min(self.powers, key=lambda found: found.weights["2"])


def softmax_as_polynomials(
    Q: Any, K: Any, V: Any, /, *, buckets: int, degree: int, scale: float | None = None
) -> Bridge:
    """Return how well a sum of polynomial attentions stands for softmax attention; measured.

    Parameters
    ----------
    Q, K, V : array (n, d), (m, d), (m, d_v)
        One head, n m at most 2**24: the full matrix of weights is formed, in float64.
    buckets : int
        At most so many of queries and of keys, by norm, thresholds in geometric progression.
    degree : int
        Highest degree on each pair of buckets, 1 to 64.
    scale : float, optional
        Positive; 1/sqrt(d) by default.

    Returns
    -------
    Bridge
        Errors in l_p of weights and output against the number of terms, bucket pairs times
        (degree + 1); of one polynomial attention as good as can be; of the uniform answer.

    Raises
    ------
    TypeError, ValueError
        For bad input, as `attention` does.
    """
    problem = Problem(Q, K, V, scale=scale)
    check_size("buckets", buckets)
    if check_size("degree", degree) > DEGREE_MAX:
        msg = f"`degree` is {degree}; it must be at most {DEGREE_MAX}."
        raise ValueError(msg)
    lead, n, m, _, _ = problem.sizes
    if lead != ():
        msg = f"`Q`, `K`, `V` have leading dimensions {lead}; pass one head, (n, d)."
        raise ValueError(msg)
    if n * m > ENTRIES_MAX:
        msg = f"`Q` and `K` have n m = {n * m:,} logits, all of which are formed: 2**24 at most."
        raise ValueError(msg)
    q, k, v = (np.asarray(x, dtype=np.float64) for x in (Q, K, V))
    q = q * problem.scale
    k = k - k.mean(axis=0)
    measure = _Measure(q @ k.T, v)
    rows, columns = _buckets(q, buckets), _buckets(k, buckets)
    return Bridge(
        tuple(_sum(measure, rows, columns, g) for g in range(degree + 1)),
        tuple(_power(measure, p, shifted) for p in POWERS for shifted in (False, True)),
        measure.of("uniform, mean(V)", 0, np.ones_like(measure.logits)),
        np.array([[abs(measure.logits[np.ix_(a, b)]).max() for b in columns]
                  for a in rows]),
    )  # fmt: skip


class _Measure:
    """The true weights and output of one head, and the errors of others."""

    def __init__(self, logits: np.ndarray, V: np.ndarray) -> None:
        self.logits = logits
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.true = weights / weights.sum(axis=1, keepdims=True)
        radius = (V.max(axis=0) - V.min(axis=0)) / 2.0
        middle = (V.max(axis=0) + V.min(axis=0)) / 2.0
        self._values = (V - middle) / np.where(radius > 0.0, radius, 1.0)

    def of(self, name: str, terms: int, weights: np.ndarray) -> Approximation:
        """Return the errors of weights (n, m) that are still to be normalised."""
        total = weights.sum(axis=1, keepdims=True)
        lost = ~(total[:, 0] > 0.0)
        own = np.where(lost[:, None], 1.0, weights) / np.where(lost[:, None], total.size, total)
        own[lost] = 1.0 / weights.shape[1]
        change = own - self.true
        moved = np.abs(change @ self._values)
        return Approximation(
            name, terms,
            {p: _norm(change, p) / _norm(self.true, p) for p in ("1", "2", "inf")},
            {p: _norm(moved, p) / (1.0 if p == "inf" else moved.size ** (1.0 / int(p)))
             for p in ("1", "2", "inf")},
            int(lost.sum()),
        )  # fmt: skip


def _norm(x: np.ndarray, p: str) -> float:
    """Return the l_p norm of the entries, without overflow of squares."""
    largest = float(np.abs(x).max())
    if p == "inf" or largest == 0.0:
        return largest
    power = int(p)
    return largest * float((np.abs(x / largest) ** power).sum() ** (1.0 / power))


def _buckets(x: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the indices of the rows in at most `count` buckets of rising norm, none empty.

    Thresholds in geometric progression between the lowest tenth and the largest, so that twice as
    many buckets split those there were.
    """
    norms = np.linalg.norm(x, axis=1)
    largest = float(norms.max())
    least = max(float(np.quantile(norms, 0.1)), 2.0**-20 * largest)
    count = min(count, 64 * len(norms))
    steps = np.arange(1, count)
    cuts = least * (largest / least) ** (steps / count) if largest > 0.0 else np.empty(0)
    place = np.searchsorted(cuts, norms)
    return [np.flatnonzero(place == bucket) for bucket in np.unique(place)]


def _sum(
    measure: _Measure, rows: list[np.ndarray], columns: list[np.ndarray], degree: int
) -> Approximation:
    """Return the sum over bucket pairs of the polynomials of one degree, fitted to the weights.

    Each pair by least squares: sum (p(x_ij) - exp(x_ij))^2 / D_i^2 over its pairs of rows, so that
    the errors are those of the normalised weights.
    """
    weights = np.empty_like(measure.logits)
    # exp(x_ij) in units of the row's normaliser would differ from row to row; the polynomial may
    # not, so it stands for exp(x - largest logit of all), and the rows weigh what they should.
    top = measure.logits.max()
    for a in rows:
        for b in columns:
            block = np.ix_(a, b)
            fitted = _fit(measure.logits[block], measure.true[block], degree, top)
            weights[block] = fitted(measure.logits[block])
    name = f"sum of degree {degree}, {len(rows)} x {len(columns)} buckets"
    return measure.of(name, len(rows) * len(columns) * (degree + 1), weights)


def _fit(
    logits: np.ndarray, true: np.ndarray, degree: int, top: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the polynomial nearest exp(x - top), errors divided by the rows' normalisers."""
    reach = float(np.abs(logits).max()) or 1.0
    step = -(-logits.size // FITTED_ENTRIES)
    x, p = logits.ravel()[::step], true.ravel()[::step]
    exact = np.exp(x - top)
    # 1 / D_i = true / exp: where exp underflows the row is all but lost in any case.
    weight = np.where(exact > 0.0, p / np.where(exact > 0.0, exact, 1.0), 0.0)
    largest = weight.max() or 1.0
    weight = weight / largest
    matrix = chebyshev.chebvander(x / reach, degree) * weight[:, None]
    found = np.linalg.lstsq(matrix, exact * weight, rcond=None)[0]
    return lambda y: chebyshev.chebval(y / reach, found)


def _power(measure: _Measure, power: int, shifted: bool) -> Approximation:
    """Return one polynomial attention (x + t)^power, t = 0 or the best in l2 on some rows."""
    shift = 0.0
    if shifted:
        step = -(-len(measure.logits) // FITTED_ROWS)
        x, true = measure.logits[::step], measure.true[::step]
        errors = [float(np.linalg.norm(_normalised(x, t, power) - true)) for t in SHIFTS]
        shift = float(SHIFTS[int(np.argmin(errors))])
    name = f"(q.k + {shift:.3g})^{power}" if shifted else f"(q.k)^{power}"
    return measure.of(name, 1, _raised(measure.logits, shift, power))


def _normalised(logits: np.ndarray, shift: float, power: int) -> np.ndarray:
    weights = _raised(logits, shift, power)
    total = weights.sum(axis=1, keepdims=True)
    positive = total > 0.0
    return np.where(positive, weights / np.where(positive, total, 1.0), 1.0 / weights.shape[1])


def _raised(logits: np.ndarray, shift: float, power: int) -> np.ndarray:
    """Return (x + t)^power over its largest, a power of two by squarings; 0 where all are 0."""
    x = logits + shift
    x /= float(np.abs(x).max()) or 1.0
    for _ in range(power.bit_length() - 1):
        x *= x
    return x
