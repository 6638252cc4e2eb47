"""Centres of small balls around points: for many heads at once, each as it would be alone.

Badoiu and Clarkson (2003): from a start, step i goes 1/i of the way to the furthest point. So the
centre is the mean of the start and of the points met, and all that a step needs is products of
points with the points met: of every head a row of its Gram matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from subquad.engine.threads import single_threaded_blas

BULK = 3.0
"""Rows further from the mean than so many times the median distance are not of the bulk."""
BALL_POINTS, BALL_STEPS = 256, 64
NEARLY = 1.02
"""A centre of a sample is given up for a simpler one whose ball is at most so many times larger."""
GRAM = 2**22
"""Entries at most of the Gram matrices whose balls are found at once."""


def ball_centres(points: np.ndarray, starts: np.ndarray, steps: int = BALL_STEPS) -> np.ndarray:
    """Return the centres (h, d) of nearly the smallest balls around points (h, p, d).

    `starts` are (h, d). O(h p d (p + steps)) time, in the dtype of the points; for each head, no
    bit hangs on the others.
    """
    away = points - starts[:, None]
    squares, each = _squares(away), max(1, GRAM // points.shape[1] ** 2)
    some = [slice(i, i + each) for i in range(0, len(points), each)]
    return starts + np.concatenate([_balls(away[own], squares[own], steps) for own in some])


def ball_centre(points: np.ndarray, start: np.ndarray, steps: int = BALL_STEPS) -> np.ndarray:
    """Return `ball_centres` of one head: points (p, d), start (d,)."""
    return ball_centres(points[None], start[None], steps)[0]


def _balls(away: np.ndarray, squares: np.ndarray, steps: int) -> np.ndarray:
    """Return the centres (h, d) of points (h, p, d) whose squared norms are known, from 0."""
    with single_threaded_blas():
        gram = away @ away.swapaxes(1, 2)
    return balls_of(away, squares, gram, steps)


def balls_of(away: np.ndarray, squares: np.ndarray, gram: np.ndarray, steps: int) -> np.ndarray:
    """Return the same where the products of the points (h, p, p) are known as well."""
    heads, p, _ = away.shape
    rows, first, met = gram.reshape(-1, p), np.arange(heads) * p, np.empty((heads, steps), np.intp)
    row, reach, sums = np.empty_like(squares), squares.copy(), np.zeros_like(squares)
    for i in range(steps):
        np.add(reach.argmax(axis=1), first, out=met[:, i])
        sums += rows.take(met[:, i], axis=0, out=row, mode="clip")
        # |a - c|^2 less |c|^2, the centre c being `sums` over i + 2 points.
        np.multiply(sums, -2.0 / (i + 2), out=reach)
        reach += squares
    counts = np.bincount(met.ravel(), minlength=heads * p).reshape(heads, 1, p)
    with single_threaded_blas():
        return (counts.astype(away.dtype) @ away)[:, 0] / (steps + 1)


@dataclass(frozen=True)
class Clouds:
    """Points of some heads about their means, and those that decide the balls of their bulks.

    Where points are a sample, each centre is found on one half and judged on the other: a ball
    around a sample of many dimensions is smaller than any around all rows, and off their centre.

    Attributes
    ----------
    mean, limit : array (h, d), (h, 1)
        Mean of the half, and the squared distance from it up to which points are of the bulk.
    away, squares : array (h, p, d), (h, p)
        The points to judge by less the mean, and their squared norms.
    some : tuple of array (h, q, d), (h, q), (h, q, q)
        The furthest of the bulk and a spread of the others, likewise, and their products.
    """

    mean: np.ndarray
    limit: np.ndarray
    away: np.ndarray
    squares: np.ndarray
    some: tuple[np.ndarray, np.ndarray, np.ndarray]
    sampled: bool

    @classmethod
    def of(cls, points: np.ndarray, sampled: bool) -> Clouds:
        """Return the Clouds of points (h, p, d)."""
        found, judged = (points[:, ::2], points[:, 1::2]) if sampled else (points, points)
        with single_threaded_blas():
            mean = np.full((1, found.shape[1]), 1.0 / found.shape[1], points.dtype) @ found
        away = found - mean
        squares = _squares(away)
        limit = BULK**2 * np.median(squares, axis=1, keepdims=True)
        index = _furthest_and_some(squares, limit, BALL_POINTS // (2 if sampled else 4))
        some = np.take_along_axis(away, index[..., None], axis=1)
        with single_threaded_blas():
            gram = some @ some.swapaxes(1, 2)
        decisive = some, np.take_along_axis(squares, index, axis=1), gram
        if sampled:
            away = judged - mean
            squares = _squares(away)
        return cls(mean[:, 0], limit, away, squares, decisive, sampled)

    def centres(self, balls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (centres of the bulk (h, d), median distances from them (h,)).

        Zero, the mean or the centre of the ball, (h, d) less the mean: the first that is (nearly)
        the best on the points.
        """
        moves = np.stack([-self.mean, 0.0 * self.mean, balls], axis=1)
        squares, reach = _judged(self.away, self.squares, self.limit, moves)
        enough = reach.min(axis=1, keepdims=True) * (NEARLY**2 if self.sampled else 1.0)
        first = np.argmax(~(reach > enough), axis=1)
        found = np.where((first == 0)[:, None], 0.0, self.mean + (first == 2)[:, None] * balls)
        typical = np.sqrt(np.median(squares[np.arange(len(first)), first], axis=1))
        return found.astype(np.float64), typical.astype(np.float64)


def _furthest_and_some(squares: np.ndarray, limit: np.ndarray, some: int) -> np.ndarray:
    """Return which of the points (h, p) within the limits decide the ball: (h, 2 some) or fewer.

    The furthest, and a spread of the others in case those lie all on one side.
    """
    some = min(some, squares.shape[1])
    order = np.argsort(squares, axis=1)
    count = np.count_nonzero(squares <= limit, axis=1)[:, None]
    far = np.maximum(count - 1 - np.arange(some), 0)
    spread = np.arange(some) * count // some
    return np.take_along_axis(order, np.concatenate([far, spread], axis=1), axis=1)


def _judged(
    away: np.ndarray, squares: np.ndarray, limit: np.ndarray, moves: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared distances (h, c, p) from each of c centres, and their largest (h, c).

    The centres are `moves` (h, c, d) less the mean, about which `away` and `squares` are; only
    points whose squares are within the limits count for the largest.
    """
    with single_threaded_blas():
        about = moves @ away.swapaxes(1, 2)
    about *= -2.0
    about += squares[:, None]
    about += _squares(moves)[:, :, None]
    np.maximum(about, 0.0, out=about)
    return about, np.where((squares <= limit)[:, None], about, 0.0).max(axis=2)


def _squares(rows: np.ndarray) -> np.ndarray:
    return np.einsum("hij,hij->hi", rows, rows)
