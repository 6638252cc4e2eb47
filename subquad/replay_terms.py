"""What a plan proves of new data, from a few numbers that were found of them beside the work."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import numpy as np

from subquad.arrays import product_up
from subquad.bounds.rounding import conversion_error
from subquad.certificate import Term
from subquad.frame import WEIGHT_RANGE
from subquad.methods.method import widened
from subquad.order import OrderStatistics
from subquad.planner import HeadPlan

UNIT = 1.0 + 2.0**-50
FAR = 2.0**100
"""Beyond that, and below its inverse, float32 has no room for units."""
STEPS = 32
"""Offsets of the keys are rounded up to multiples of one in so many."""


class Found(Protocol):
    """What heads were found to be; NaN where they have one. See `engine.gpu_reports.Report`."""

    key_norms: np.ndarray
    key_means: np.ndarray
    low: np.ndarray
    high: np.ndarray


def certified(
    heads: tuple[HeadPlan, ...], reach: np.ndarray, slack: np.ndarray, found: Found, tol: float
) -> list[tuple[Term, ...]]:
    """Return the a priori Terms of each head with what was found of its data, were it `inside`.

    `reach` (heads,) is by how much the norm of a key moves the logarithm of its weight at most,
    `slack` (heads,) what the mean of the keys may be off by, over their largest norm.

    Those of offsets and ratios rounded up are kept: most data of one kind have the same.
    """
    with np.errstate(all="ignore"):  # what is not finite is not supposed
        supposed = _supposed(reach, found).tolist()
        offsets = offsets_of(found, slack).tolist()
        ratios = _ratios(heads[0].stats.dtype, found).tolist()
    return [
        _of_head(head, offset, ratio, tol) if near else _terms(head, 1.0, math.inf)
        for head, near, offset, ratio in zip(heads, supposed, offsets, ratios, strict=True)
    ]


def _of_head(head: HeadPlan, offset: float, ratio: float, tol: float) -> tuple[Term, ...]:
    nearby = math.ceil(offset * STEPS) / STEPS, 2.0 ** (math.ceil(4.0 * math.log2(ratio)) / 4.0)
    if nearby not in head.certified:
        head.certified[nearby] = _terms(head, nearby[0], nearby[1] * UNIT)
    terms = head.certified[nearby]
    return terms if sum(t.value for t in terms) <= tol else _terms(head, offset, ratio)


def _terms(head: HeadPlan, offset: float, ratio: float) -> tuple[Term, ...]:
    """Return the Terms of a head whose keys and values are so, and no logit outside."""
    chosen, nothing = head.chosen, OrderStatistics.constant(1, 0.0)
    assert chosen is not None
    stats = replace(head.stats, query_norms=nothing, key_norms=nothing, key_offset=offset,
                    value_ratio=ratio)  # fmt: skip
    conversion = Term("conversion", "rounding-storage", conversion_error(ratio))
    return (*chosen.method.certify(stats, chosen.parameters), conversion)


def _supposed(reach: np.ndarray, found: Found) -> np.ndarray:
    """Return whether the data are what the roundings suppose: values and key weights in range."""
    size = np.maximum(abs(found.low), abs(found.high))
    near = (size == 0.0) | ((1.0 / FAR <= size) & (size <= FAR))
    return near.all(axis=1) & ((reach == 0.0) | (reach * found.key_norms <= WEIGHT_RANGE))


def _ratios(dtype: str, found: Found) -> np.ndarray:
    """Return max|V| over value_radius of each head, as `Frame.value_ratio` does, at least 1."""
    width = found.high - found.low
    size = np.maximum(abs(found.low), abs(found.high)) + np.finfo(dtype).smallest_normal
    moving = width > 0.0
    ratios = np.where(moving, size / np.where(moving, width, 1.0), 0.0).max(axis=1)
    return np.maximum(1.0, ratios * (2.0 * UNIT))


def inside(head: HeadPlan, query_norm: float, key_norm: float) -> bool:
    """Return whether no logit leaves the polynomial's interval, the rows balanced for it."""
    assert head.chosen is not None
    p = head.chosen.parameters
    logit_bound = widened(product_up(query_norm, key_norm), p.dtype)
    longest = max(query_norm, key_norm)
    return bool(logit_bound <= p.logit_bound and longest**2 <= 2.0 * p.logit_bound)


def offsets_of(found: Found, slack: np.ndarray) -> np.ndarray:
    """Return |mean of the keys| over the largest norm, from their mean as the passes have it."""
    offsets = np.linalg.norm(found.key_means, axis=1) / found.key_norms * UNIT + slack
    return np.where((found.key_norms > 0.0) & (offsets < 1.0), offsets, 1.0)
