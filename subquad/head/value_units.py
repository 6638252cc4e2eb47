"""Units of values: the mid-range and the radius of each column, which bring it to [-1, 1].

A power of two first brings the column into the middle of the floating-point range.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.engine.rows import rows_of
from subquad.head.centring import groups
from subquad.head.sides import NotFiniteError


def value_units(Vs: Sequence[Array]) -> list[tuple[np.ndarray, ...]]:
    """Return (pre, mid, radius, low, high) of the columns of each V of one shape.

    The radius is rounded up. Raises NotFiniteError.
    """
    ends = np.concatenate([rows_of(group[0]).column_ranges(group) for group in groups(Vs)])
    if not np.isfinite(ends).all():
        raise NotFiniteError
    return list(zip(*units_of(ends[:, 0], ends[:, 1]), strict=True))


def units_of(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return (pre, mid, radius, low, high) of columns with these ranges; radius rounded up."""
    size = np.maximum(abs(low), abs(high))
    pre = np.ldexp(1.0, -np.clip(np.frexp(size)[1], -1000, 1000))
    mid = (low * pre + high * pre) / 2.0
    radius = np.maximum(high * pre - mid, mid - low * pre) * (1.0 + 2.0**-51)
    return pre, mid, radius, low, high


def value_ratio(
    pre: np.ndarray, radius: np.ndarray, low: np.ndarray, high: np.ndarray, dtype: str
) -> float:
    """Return max over columns of (max|V_c| + smallest normal) / radius_c; 0 if all constant."""
    size = np.maximum(abs(low), abs(high)) + float(np.finfo(dtype).smallest_normal)
    moving = radius > 0.0
    with np.errstate(over="ignore"):  # an infinite ratio is a true answer: it refuses
        ratio = size * pre / np.where(moving, radius, 1.0)
    return float(np.max(np.where(moving, ratio, 0.0)))
