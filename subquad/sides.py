"""One side of a head, queries or keys: a sample of rows, centres, the norm of every row.

A centre is that of a small ball around the bulk of the rows (no row further than BULK times the
median from the mean), which a few large rows cannot move; where such rows are seen, there is a
second one, of the ball around all rows. Centres are found on a sample: any centre is a true one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from subquad.arrays import Array, exponent_of, power_of_two
from subquad.engine import prepare
from subquad.engine.threads import single_threaded_blas
from subquad.order import OrderStatistics

BULK = 3.0
SAMPLE = 2048
BALL_POINTS, BALL_STEPS = 256, 64
NEARLY = 1.02
"""A centre of a sample is given up for a simpler one whose ball is at most so many times larger."""
REFINED = range(2048, 16_385)
"""Numbers of rows with which the centre of a sample is held against that of the far rows of all:
below them exact attention is cheap, beyond them another pass over the rows is not."""
LEVEL = 2.0**60
"""Norms between this and its inverse, in prepared units, are far from both ends of the range."""


class NotFiniteError(ValueError):
    """A row has an entry that is not finite."""


@dataclass(frozen=True)
class Side:
    """How rows enter: (x * pre - centre) * post; centre (d,) in units of 1/pre."""

    pre: float
    centre: Array
    post: float

    @property
    def affine(self) -> tuple[float, Array, float]:
        """The three numbers, as the engine takes them."""
        return self.pre, self.centre, self.post

    def balanced(self, exponent: int) -> tuple[float, Array, float]:
        """Return the same with rows 2**exponent times as long."""
        return self.pre, self.centre, ldexp(self.post, exponent)


@dataclass(frozen=True)
class Rows:
    """The rows of one side about one centre, in units of 1/pre.

    Attributes
    ----------
    norms : array (n,)
        Rounded up; float32 where that loses nothing.
    mean : array (d,)
        Of the rows less the centre, within `slack`.
    """

    side: Side
    norms: np.ndarray
    mean: np.ndarray
    slack: float

    @cached_property
    def largest(self) -> float:
        """The largest norm."""
        return float(self.norms.max())

    def order(self, unit: float) -> OrderStatistics:
        """Return the order statistics of the norms times `unit`."""
        return OrderStatistics.of(self.norms, unit)


@dataclass(frozen=True)
class Measured:
    """A side measured: about zero where asked for, and about one or two centres.

    `sample` are some of its rows as they are, on the host, at most SAMPLE.
    """

    sample: np.ndarray
    about_zero: Rows | None
    centred: tuple[Rows, ...]


def ldexp(mantissa: float, exponent: int) -> float:
    """Return mantissa * 2**exponent, infinity past the range (nothing certifies there)."""
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf


def measure_keys(K: Array) -> Measured:
    """Return the keys about the ball of their bulk and, where some lie far out, that of all."""
    return _measure(K, with_zero=False)


def measure_queries(Q: Array) -> Measured:
    """Return the queries about zero and, unless that is their centre, as `measure_keys` does."""
    return _measure(Q, with_zero=True)


def _measure(x: Array, with_zero: bool, pre: float | None = None) -> Measured:
    """Raise NotFiniteError where a row is not; `pre` is found on the sample where None."""
    n = x.shape[0]
    sample = prepare.take_rows(x, 1.0, np.arange(0, n, -(-n // SAMPLE)))
    size = max(float(sample.max()), -float(sample.min()))
    if not size < math.inf:
        raise NotFiniteError
    unit = _unit(size) if pre is None else pre
    with single_threaded_blas(), np.errstate(all="ignore"):  # out of range is measured anew
        centre, typical = _bulk_centre(sample * unit, n > SAMPLE, _steps(n))
        centre = _representable(centre, unit, x)
        about_zero = _rows(x, unit, np.zeros(x.shape[1])) if with_zero else None
        first = _rows(x, unit, centre) if about_zero is None or centre.any() else about_zero
        centred = _about(x, first, typical, sample)
        largest = max(rows.largest for rows in centred)
    if pre is None and not (largest == 0.0 or 1.0 / LEVEL <= largest <= LEVEL):
        ends = prepare.column_range(x)
        if not all(np.isfinite(end).all() for end in ends):
            raise NotFiniteError
        return _measure(x, with_zero, _unit(float(np.max(np.abs(ends)))))
    kept = sample.astype(np.float32) if _is_single(x) else sample
    return Measured(kept, about_zero, centred)


def measuring_steps(n: int, d: int) -> float:
    """Return what measuring n rows costs beside the passes over all, in steps of the engine.

    What the sample costs, the ball of its bulk and, where the far rows of all are looked at, that
    of theirs; as measured on a CPU, in units of `Calls.steps`.
    """
    sampled = min(n, SAMPLE) * d / 110.0
    return sampled + (450.0 if n <= 1024 else 570.0) + (1150.0 if n in REFINED else 0.0)


def _unit(largest: float) -> float:
    """Return the power of two that brings the largest entry into [1/2, 1)."""
    return 1.0 / power_of_two(exponent_of(largest))


def _representable(centre: np.ndarray, unit: float, x: Array) -> np.ndarray:
    """Return a centre that is, beside float32 rows, of float32 numbers: x less it rounds once."""
    if not _is_single(x):
        return centre
    return (centre / unit).astype(np.float32).astype(np.float64) * unit


def _is_single(x: Array) -> bool:
    return str(x.dtype).endswith(("float32", "float16"))


def _steps(n: int) -> int:
    """Return how long to look for a ball: beside few rows the search itself would cost most."""
    return BALL_STEPS if n > 1024 else BALL_STEPS // 2


def _rows(x: Array, unit: float, centre: np.ndarray) -> Rows:
    return Rows(Side(unit, centre, 1.0), *prepare.survey(x, unit, centre))


def _about(x: Array, first: Rows, typical: float, sample: np.ndarray) -> tuple[Rows, ...]:
    """Return the rows about the centre of their bulk and, if that is less, about that of all.

    The second alone where nothing lies far out.
    """
    apart = first.largest > BULK * typical
    if not apart and x.shape[0] not in REFINED:
        return (first,)
    unit, centre = first.side.pre, first.side.centre
    far = np.argpartition(first.norms, -min(BALL_POINTS, x.shape[0]))[-BALL_POINTS:]
    spread = sample[:: max(1, len(sample) // BALL_POINTS)] * unit
    points = np.concatenate([prepare.take_rows(x, unit, far), spread])
    about_whole = _rows(x, unit, _representable(ball_centre(points, centre), unit, x))
    if not about_whole.largest * (1.0 if apart else NEARLY) < first.largest:
        return (first,)
    return (first, about_whole) if apart else (about_whole,)


def _bulk_centre(points: np.ndarray, sampled: bool, steps: int) -> tuple[np.ndarray, float]:
    """Return (centre of the bulk of points (p, d), median distance from it).

    Zero, the mean or the centre of the smallest ball: the first that is (nearly) the best on the
    points. Where they are a sample, each is found on one half and judged on the other: a ball
    around a sample of many dimensions is smaller than any around all rows, and off their centre.
    """
    found, judged = (points[::2], points[1::2]) if sampled else (points, points)
    mean = np.full(len(found), 1.0 / len(found)) @ found
    squares = _squares(found - mean)
    limit = BULK**2 * np.median(squares)
    order = np.argsort(squares)[: np.count_nonzero(squares <= limit)]
    # The far rows decide the ball, and a spread of the others in case those lie all on one side.
    some = BALL_POINTS // (2 if sampled else 4)
    far = np.union1d(order[-some:], order[:: max(1, order.size // some)])
    bulk = judged[_squares(judged - mean) <= limit] if sampled else found[order]
    centres = np.zeros_like(mean), mean, ball_centre(found[far], mean, steps)
    reach = [float(_squares(bulk - centre).max(initial=0.0)) for centre in centres]
    enough = min(reach) * (NEARLY**2 if sampled else 1.0)
    first = next(i for i in range(3) if not reach[i] > enough)
    return centres[first], math.sqrt(np.median(_squares(judged - centres[first])))


def ball_centre(points: np.ndarray, start: np.ndarray, steps: int = BALL_STEPS) -> np.ndarray:
    """Return the centre of nearly the smallest ball around points (p, d), from `start`.

    Badoiu and Clarkson (2003): step 1/(i + 1) towards the furthest point. The squared distances
    follow each step from those between the points, O(p^2 d) once.
    """
    away = points - start
    squares = _squares(away)
    between = away @ away.T
    between *= -2.0
    between += squares
    between += squares[:, None]
    shares = np.zeros(len(points))  # of the points in the centre, less `start`
    for step in range(2, 2 + steps):
        far, t = int(squares.argmax()), 1.0 / step
        furthest = t * (1.0 - t) * squares[far]
        squares *= 1.0 - t
        squares += t * between[far]
        squares -= furthest
        shares *= 1.0 - t
        shares[far] += t
    return start + shares @ away


def _squares(rows: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", rows, rows)
