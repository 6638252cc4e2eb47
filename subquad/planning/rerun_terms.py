"""What a plan proves of new data, from a few numbers that the passes measure on the way."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import numpy as np

from subquad.arrays.formats import FORMATS
from subquad.arrays.lazy import Lazy
from subquad.bounds.certificate import Term
from subquad.bounds.rounding import conversion_error
from subquad.engine.fused.rounding import fused_errors
from subquad.head.frame import WEIGHT_RANGE
from subquad.head.sides import OrderStatistics
from subquad.planning.choose import HeadPlan

UNIT = 1.0 + 2.0**-50
FAR = 2.0**100
"""Beyond that, and below its inverse, float32 has no room for units."""
STEPS, POWERS = 32, 4
"""Offsets of the keys are rounded up to multiples of 1 / 32, ratios to powers of 2^(1 / 4)."""
TINY = 2.0**-500
KEPT = 256
"""Most bounds of all heads that are kept."""


class Found(Protocol):
    """What heads were found to be. See `engine.gpu_reports.Report`."""

    key_norms: np.ndarray
    classes: np.ndarray
    offsets: np.ndarray
    ratios: np.ndarray


class RerunBounds:
    """What is proved of the heads of a plan on other data, were no logit outside: see `room`.

    `reach` (heads,) is by how much the norm of a key moves the logarithm of its weight at most.
    Bounds for offsets and ratios rounded up are kept: most data of one kind have the same.
    """

    def __init__(self, heads: tuple[HeadPlan, ...], reach: np.ndarray, tol: float) -> None:
        self._heads, self._tol = heads, tol
        forms = [FORMATS[head.parameters.dtype] for head in heads]
        bounds = np.array([head.parameters.logit_bound for head in heads])
        # `stored_norm_bound` the other way round, and balanced rows; roundings are far inside UNIT.
        self._product = (bounds - [f.normal * 2.0**-4 for f in forms]) / UNIT**2
        self._product /= [1.0 + 4.0 * f.u for f in forms]
        self._longest = np.sqrt(2.0 * bounds) / UNIT
        # Of the report on keys and values: `engine.fused.rerun.FusedHeads`.
        weighted = reach > 0.0
        longest = np.where(weighted, WEIGHT_RANGE / np.where(weighted, reach, 1.0), np.inf)
        steps = np.tile([STEPS, POWERS, FAR], (len(heads), 1))
        slack = [_slack(head) for head in heads]
        self.limits = np.column_stack([slack, longest, steps])
        self._kept: dict[bytes, np.ndarray] = {}
        self._by_class: dict[tuple[int, float, float], tuple[Term, ...]] = {}

    @cached_property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Name and claim of each Term."""
        return tuple((t.name, t.claim) for t in _terms(self._heads[0], 1.0, 1.0))

    def bounds(self, found: Found) -> np.ndarray:
        """Return the a priori Terms of each head under their sum, (1 + terms, heads).

        Infinite where the data are not what the roundings suppose.
        """
        key = found.classes.tobytes()
        if key in self._kept:
            return self._kept[key]
        own = [self._of_class(*pair) for pair in enumerate(found.classes.tolist())]
        made = _together(own)
        over = np.flatnonzero((made[0] > self._tol) & (found.classes[:, 0] > 0.0)).tolist()
        if over:  # not rounded up they may do
            for i in over:
                own[i] = _terms(self._heads[i], float(found.offsets[i]), float(found.ratios[i]))
            return _together(own)
        if len(self._kept) >= KEPT:
            self._kept.clear()
        self._kept[key] = made
        return made

    def _of_class(self, i: int, found: tuple[float, float, float]) -> tuple[Term, ...]:
        """Return the Terms of head i, its offset and ratio taking so many steps and powers."""
        in_range, step, power = found
        if not in_range:
            return _terms(self._heads[i], 1.0, math.inf)
        own = step / STEPS, 2.0 ** (power / POWERS) * UNIT
        if (i, *own) not in self._by_class:
            self._by_class[i, *own] = _terms(self._heads[i], *own)
        return self._by_class[i, *own]

    def room(self, key_norms: np.ndarray) -> np.ndarray:
        """Return the largest norms of queries allowed by those of keys, (heads,); none where < 0.

        With these no logit leaves the polynomial's interval, the rows balanced for it.
        """
        room = np.minimum(self._product / np.maximum(key_norms, TINY), self._longest)
        return np.where(key_norms <= self._longest, room, -1.0)


def _slack(head: HeadPlan) -> float:
    """Return a bound of the error of the mean of the keys, over the largest norm."""
    p, stats = head.parameters, head.stats
    # Rounding keys to operands, and what the passes lose of a sum of degree 1.
    return fused_errors(stats.d, p.degree, p.dtype, stats.m)[1] + 2.0 * FORMATS[p.dtype].u


def _terms(head: HeadPlan, offset: float, ratio: float) -> tuple[Term, ...]:
    """Return the Terms of a head whose keys and values are so, and no logit outside."""
    chosen, nothing = head.chosen, OrderStatistics.constant(1, 0.0)
    assert chosen is not None
    stats = replace(
        head.stats,
        query_norms=nothing,
        key_norms=nothing,
        find_offset=Lazy.known_to_be(offset),
        value_ratio=ratio,
    )
    conversion = Term("conversion", "rounding-storage", conversion_error(ratio))
    return (*chosen.method.certify(stats, chosen.parameters), conversion)


def _together(terms: list[tuple[Term, ...]]) -> np.ndarray:
    """Return the Terms of heads under their sum, rounded up, (1 + terms, heads)."""
    rows = [[sum(t.value for t in of_one) * UNIT, *(t.value for t in of_one)] for of_one in terms]
    return np.array(rows).T
