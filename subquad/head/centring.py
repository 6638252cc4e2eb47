"""Measuring the sides of many heads together, each as it would be alone: centres and norms.

A centre is that of a small ball around the bulk of the rows (no row further than BULK times the
median from the mean), which a few large rows cannot move; where such rows are seen, there is a
second one, of the ball around all rows. Centres are found on a sample, in its dtype: any centre is
a true one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from subquad.arrays.arithmetic import Affine, Array, unit_for
from subquad.engine.rows import rows_of
from subquad.engine.threads import parallel_map
from subquad.head.ball import BALL_POINTS, BALL_STEPS, BULK, NEARLY, Clouds, ball_centres, balls_of
from subquad.head.sides import CentredRows, MeasuredSide, NotFiniteError

SAMPLE = 2048
REFINED = range(2048, 16_385)
"""Numbers of rows with which the centre of a sample is held against that of the far rows of all:
below them exact attention is cheap, beyond them another pass over the rows is not."""
LEVEL = 2.0**60
"""Norms between this and its inverse, in prepared units, are far from both ends of the range."""
AT_ONCE = 2**21
"""Numbers held at most of the samples of sides measured together, and of their norms."""
SEARCHED, SEARCH_WORK = 2**19, 2**11
"""Numbers of samples that one thread searches at once, for they stay in cache; and what each
counts, in the unit of `ENTRY_WORK`."""


def measure(xs: Sequence[Array], with_zero: bool) -> list[MeasuredSide]:
    """Return each array of rows about the ball of their bulk and, where some lie far out, of all.

    With `with_zero`, which is for queries, about zero as well. All are of one shape, library and
    dtype. Raises NotFiniteError where a row of any is not finite.
    """
    return [found for group in groups(xs) for found in _measured(group, with_zero)]


def groups(xs: Sequence[Array]) -> list[Sequence[Array]]:
    """Return arrays of one shape in groups that are measured at once."""
    n, d = xs[0].shape
    each = max(1, AT_ONCE // max(n, min(n, SAMPLE) * d, BALL_POINTS**2 // 4))
    return [xs[i : i + each] for i in range(0, len(xs), each)]


def _measured(
    xs: Sequence[Array], with_zero: bool, unit: float | None = None
) -> list[MeasuredSide]:
    """Return `measure` of one group; units are found on the samples where there is none."""
    n = xs[0].shape[0]
    samples = rows_of(xs[0]).stacked_rows(xs, slice(None, None, -(-n // SAMPLE)))
    with np.errstate(all="ignore"):  # out of range is measured anew
        units, centres, typical = _search(samples, n, unit)
        centres = _representable(centres, units, xs[0])
        about_zero: list[Any] = [None] * len(xs)
        if with_zero:
            about_zero = _rows(xs, units, 0.0 * centres, True)
        moved = [i for i, centre in enumerate(centres) if centre.any() or not with_zero]
        some = [xs[i] for i in moved]
        rows = _rows(some, units[moved], centres[moved], with_zero) if moved else []
        first = dict(enumerate(about_zero)) | dict(zip(moved, rows, strict=True))
        centred = _refined(xs, [first[i] for i in range(len(xs))], typical, samples)
    found = list(map(MeasuredSide, samples, about_zero, centred))
    return found if unit is not None else list(map(_in_range, xs, found))


def _in_range(x: Array, found: MeasuredSide) -> MeasuredSide:
    """Return `found`, measured anew where the sample was far from the size of the rows."""
    largest = max(rows.largest for rows in found.centred)
    if largest == 0.0 or 1.0 / LEVEL <= largest <= LEVEL:
        return found
    ends = rows_of(x).column_range(x)
    if not all(np.isfinite(end).all() for end in ends):
        raise NotFiniteError
    again = _measured([x], found.about_zero is not None, unit_for(float(np.max(np.abs(ends)))))
    return again[0]


def measuring_steps(n: int, d: int, heads: int = 1) -> float:
    """Return what measuring n rows costs beside the passes over all, in steps of the engine.

    What the sample costs, the ball of its bulk and, where the far rows of all are looked at, that
    of theirs; of a head, where so many share the steps of the searches. As measured on a CPU, in
    units of `Overhead.steps`.
    """
    each = 50.0 + min(n, SAMPLE) * d / 400.0
    once = 400.0 if n <= 1024 else 500.0
    if n in REFINED:
        each, once = each + 330.0 + 4.5 * d, once + 330.0
    return each + once / heads


def _representable(centres: np.ndarray, units: np.ndarray, x: Array) -> np.ndarray:
    """Return centres that are, beside float32 rows, of float32 numbers: x less them rounds once."""
    if not str(x.dtype).endswith(("float32", "float16")):
        return centres
    return (centres / units[:, None]).astype(np.float32).astype(np.float64) * units[:, None]


def _search(
    samples: np.ndarray, n: int, unit: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (units (h,), centres (h, d), median distances (h,)) from samples (h, p, d) of n rows.

    Raises NotFiniteError.
    """
    heads, p, d = samples.shape
    steps = BALL_STEPS if n > 1024 else BALL_STEPS // 2  # the search would cost most beside few

    def clouds_of(start: int) -> tuple[np.ndarray, Clouds]:
        some = samples[start : start + each]
        sizes = np.maximum(some.max(axis=(1, 2)), -some.min(axis=(1, 2)))
        if not (sizes < math.inf).all():
            raise NotFiniteError
        units = np.full(len(sizes), 1.0 if unit is None else unit)
        if unit is None:
            units = np.array([unit_for(float(size)) for size in sizes])
        points = np.empty_like(some)  # in the dtype of the input, which is that of the centres
        narrow = units.astype(some.dtype)  # powers of two: faster, and the same where there is room
        factors = narrow if np.isfinite(narrow).all() else units
        np.multiply(some, factors[:, None, None], out=points, casting="same_kind")
        return units, Clouds.of(points, n > SAMPLE)

    each, work = max(1, SEARCHED // (p * d)), float(SEARCH_WORK) * samples.size
    every, clouds = zip(*parallel_map(clouds_of, range(0, heads, each), work), strict=True)
    # The steps are many and short: threads beside one another would wait for the interpreter.
    away, squares, gram = _joined([own.some for own in clouds])
    balls = balls_of(away, squares, gram, steps)
    found = parallel_map(
        lambda i: clouds[i].centres(balls[i * each : (i + 1) * each]), range(len(clouds)), work
    )
    return np.concatenate(every), *_joined(found)


def _joined(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[Any, ...]:
    """Return tuples of arrays as one: of each place, those of all; one is not copied."""
    if len(parts) == 1:
        return parts[0]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _rows(
    xs: Sequence[Array], units: np.ndarray, centres: np.ndarray, queries: bool
) -> list[CentredRows]:
    """Return the rows of each about its centre: of queries the furthest, of keys the mean."""
    found = rows_of(xs[0]).centred_norms(xs, units.tolist(), list(centres), means=not queries)
    far: list[np.ndarray | None] = [None] * len(xs)
    if queries:
        largest = np.array([[norms.argmax()] for norms, _, _ in found])
        far = list(rows_of(xs[0]).stacked_rows(xs, largest))
    return [
        CentredRows(Affine(float(unit), centre, 1.0), *of_one, furthest)
        for unit, centre, of_one, furthest in zip(units, centres, found, far, strict=True)
    ]


def _refined(
    xs: Sequence[Array], first: list[CentredRows], typical: np.ndarray, samples: np.ndarray
) -> list[tuple[CentredRows, ...]]:
    """Return the rows about the centre of their bulk and, if that is less, about that of all.

    The second alone where nothing lies far out.
    """
    apart = [rows.largest > BULK * float(t) for rows, t in zip(first, typical, strict=True)]
    found: list[tuple[CentredRows, ...]] = [(rows,) for rows in first]
    some = [i for i, out in enumerate(apart) if out or xs[0].shape[0] in REFINED]
    if not some:
        return found
    wholes = _about_all([xs[i] for i in some], [first[i] for i in some], samples[some])
    for i, whole in zip(some, wholes, strict=True):
        if whole.largest * (1.0 if apart[i] else NEARLY) < first[i].largest:
            found[i] = (first[i], whole) if apart[i] else (whole,)
    return found


def _about_all(
    xs: Sequence[Array], first: list[CentredRows], samples: np.ndarray
) -> list[CentredRows]:
    """Return the rows about the centres of small balls around the furthest of them and some."""
    units = np.array([rows.side.in_scale for rows in first])
    starts = np.array([rows.side.centre for rows in first])
    count = min(BALL_POINTS, xs[0].shape[0])
    far = np.array([np.argpartition(rows.norms, -count)[-count:] for rows in first])
    spread = samples[:, :: max(1, samples.shape[1] // BALL_POINTS)]
    points = np.concatenate([rows_of(xs[0]).stacked_rows(xs, far), spread], axis=1)
    np.multiply(points, units[:, None, None], out=points, casting="same_kind")
    centres = ball_centres(points, starts.astype(points.dtype)).astype(np.float64)
    queries = first[0].furthest is not None
    return _rows(xs, units, _representable(centres, units, xs[0]), queries)
