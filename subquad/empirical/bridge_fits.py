"""The sums of polynomial attentions of `softmax_as_polynomials`, fitted, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

NORMS = ("1", "2", "inf")
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


class Measure:
    """The true weights and output of one head, and the errors of others."""

    def __init__(self, logits: np.ndarray, V: np.ndarray) -> None:
        self.logits = logits
        largest = logits.max(axis=1, keepdims=True)
        weights = np.exp(logits - largest)
        total = weights.sum(axis=1, keepdims=True)
        self.true = weights / total
        self.log_normaliser = largest + np.log(total)
        high, low = V.max(axis=0) / 2.0, V.min(axis=0) / 2.0
        radius, middle = high - low, high + low
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
            name,
            terms,
            {p: _norm(change, p) / _norm(self.true, p) for p in NORMS},
            {p: _norm(moved, p) / _norm(np.ones_like(moved), p) for p in NORMS},
            int(lost.sum()),
        )


def _norm(x: np.ndarray, p: str) -> float:
    """Return the l_p norm of the entries, without overflow of squares."""
    largest = float(np.abs(x).max())
    if p == "inf" or largest == 0.0:
        return largest
    power = int(p)
    return largest * float((np.abs(x / largest) ** power).sum() ** (1.0 / power))


def buckets_of(x: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the indices of the rows in at most `count` buckets of rising norm, none empty.

    Thresholds in geometric progression between the lowest tenth and the largest, so that twice as
    many buckets split those there were.
    """
    # A power of two: squares neither overflow nor vanish, and ratios stay what they are.
    norms = np.linalg.norm(np.ldexp(x, -int(np.frexp(np.abs(x).max())[1])), axis=1)
    largest = float(norms.max())
    least = max(float(np.quantile(norms, 0.1)), 2.0**-20 * largest)
    count = min(count, 64 * len(norms))
    steps = np.arange(1, count)
    cuts = least * (largest / least) ** (steps / count) if largest > 0.0 else np.empty(0)
    place = np.searchsorted(cuts, norms)
    return [np.flatnonzero(place == bucket) for bucket in np.unique(place)]


def sum_of(
    measure: Measure, rows: list[np.ndarray], columns: list[np.ndarray], degree: int
) -> Approximation:
    """Return the sum over bucket pairs of the polynomials of one degree, fitted to the weights.

    Each pair by least squares: sum (p(x_ij) - exp(x_ij))^2 / D_i^2 over its pairs of rows, D_i the
    normalisers, so that the errors are those of the normalised weights.
    """
    weights = np.empty_like(measure.logits)
    for a in rows:
        # The polynomials of these rows stand for exp(x - least of their log normalisers).
        units = measure.log_normaliser[a]
        units = np.exp(units.min() - units)
        for b in columns:
            block = np.ix_(a, b)
            fitted = _fit(measure.logits[block], measure.true[block], units, degree)
            weights[block] = fitted(measure.logits[block])
    name = f"sum of degree {degree}, {len(rows)} x {len(columns)} buckets"
    return measure.of(name, len(rows) * len(columns) * (degree + 1), weights)


def _fit(
    logits: np.ndarray, true: np.ndarray, units: np.ndarray, degree: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the polynomial p for which units * p(logits), units (rows, 1), is nearest `true`."""
    reach = float(np.abs(logits).max()) or 1.0
    step = -(-logits.size // FITTED_ENTRIES)
    x, p, unit = (y.ravel()[::step] for y in (logits, true, np.broadcast_to(units, true.shape)))
    matrix = chebyshev.chebvander(x / reach, degree) * unit[:, None]
    found = np.linalg.lstsq(matrix, p, rcond=None)[0]
    return lambda y: chebyshev.chebval(y / reach, found)


def power_of(measure: Measure, power: int, shifted: bool) -> Approximation:
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
