"""The passes of `subquad.engine.rows` on NumPy: blocks of rows that stay in cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from subquad.engine.cpu.blocks import over_blocks, powers_of_two
from subquad.engine.cpu.measures import (
    centred_norms,
    column_range,
    column_ranges,
    rotated_reach,
    row_dots,
    row_measures,
    stacked_rows,
    weighted_mean,
)

__all__ = [
    "affine",
    "column_range",
    "column_ranges",
    "restored_values",
    "rotated",
    "rotated_reach",
    "row_dots",
    "row_measures",
    "stacked_rows",
    "centred_norms",
    "take_rows",
    "weighted_mean",
    "weighted_values",
]


def affine(x, in_scale, centre, out_scale, dtype: str) -> Any:
    """Return (x * in_scale - centre) * out_scale rounded once to `dtype`."""
    out = np.empty(x.shape, dtype=dtype)

    def write(y: np.ndarray, rows: slice) -> None:
        out[rows] = y

    over_blocks(write, x, in_scale, centre, out_scale)
    return out


def take_rows(x, in_scale, rows) -> Any:
    """Return x[rows] * in_scale on the host, float64."""
    return x[rows].astype(np.float64) * in_scale


def weighted_values(v, in_scale, centre, out_scale, weights, dtype: str) -> Any:
    """Return [x, 1] * weights with x = (v * in_scale - centre) * out_scale in [-1, 1]."""
    m, d_v = v.shape
    out = np.empty((m, d_v + 1), dtype=dtype)
    # What exceeds 1 by rounding in float64 is 1 when rounded to less; times a weight it may not.
    clipped = dtype == "float64" or weights is not None

    def write(y: np.ndarray, rows: slice) -> None:
        if clipped:
            np.clip(y, -1.0, 1.0, out=y)
        if weights is not None:
            y *= weights[rows, None]
        out[rows, :d_v] = y
        out[rows, d_v] = 1.0 if weights is None else weights[rows]

    over_blocks(write, v, in_scale, centre, out_scale)
    return out


def restored_values(x, in_scale, centre, radius, low, high, dtype: str, divisor=None) -> Any:
    """Return (centre + radius * x / divisor) / in_scale within [low, high], rounded to `dtype`."""
    out = np.empty(x.shape, dtype=dtype)
    units = powers_of_two(in_scale)  # dividing by them commutes with the other roundings
    last, centre, radius = in_scale / units, centre / units, radius / units
    scaled = bool(np.any(last != 1.0))

    def write(y: np.ndarray, rows: slice) -> None:
        if divisor is not None:
            y /= divisor[rows, None]
        y *= radius
        y += centre
        if scaled:
            y /= last
        out[rows] = np.clip(y, low, high, out=y)

    over_blocks(write, x, 1.0, 0.0, 1.0)
    return out


def rotated(x, in_scale, centre, out_scale, basis, dtype: str) -> Any:
    """Return ((x * in_scale - centre) * out_scale) @ basis: float64, rounded once to `dtype`."""
    out = np.empty(x.shape, dtype=dtype)

    def write(y: np.ndarray, rows: slice) -> None:
        out[rows] = y @ basis

    over_blocks(write, x, in_scale, centre, out_scale)
    return out
