"""The passes over rows before the first product: centre, scale, measure. O(n d) time.

Everything is computed in float64 and rounded once to the compute dtype; no copy of the input in
float64 is ever held. What is of the input's size stays in its array library and on its device;
what is not (ranges, means, sampled rows) and the magnitudes of rows come to the host, NumPy
float64 unless said. `pre`, `centre`, `post` and their like are floats or NumPy arrays (columns,),
float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from subquad.engine.cpu import rows as cpu_rows
from subquad.engine.shards.fleet import Sharded


def supported(x: Any) -> bool:
    """Return whether the passes run on arrays of this library."""
    return array_api_compat.is_numpy_array(x) or array_api_compat.is_cupy_array(x)


def operands(x: Any) -> tuple[str, ...]:
    """Return the operands of the fused passes on the device of x: none but on some GPUs."""
    if isinstance(x, Sharded):
        return _passes(x).operands(x)
    if not array_api_compat.is_cupy_array(x):
        return ()
    from subquad.engine.fused import passes as fused_passes  # brings CuPy

    return fused_passes.OPERANDS if fused_passes.available() else ()


def _passes(x: Any) -> ModuleType:
    if isinstance(x, Sharded):
        from subquad.engine.shards import rows as shards_rows  # comes back here with its parts

        return shards_rows
    if array_api_compat.is_cupy_array(x):
        from subquad.engine.gpu import rows as gpu_rows  # brings CuPy

        return gpu_rows
    return cpu_rows


def to_host(x: Any) -> np.ndarray:
    """Return an array of any supported library as a NumPy array, without a copy where it is one."""
    return x.get() if array_api_compat.is_cupy_array(x) else np.asarray(x)


def affine(x: Any, pre, centre, post, dtype: str) -> Any:
    """Return (x * pre - centre) * post rounded once to `dtype`, shape (n, columns)."""
    return _passes(x).affine(x, pre, centre, post, dtype)


def row_measures(x: Any, pre, centre) -> tuple[np.ndarray, np.ndarray]:
    """Return (norms, largest absolute entries) of the rows of x * pre - centre, each (n,), host.

    Rounded outwards: each is at least the true value.
    """
    return _passes(x).row_measures(x, pre, centre)


def row_dots(x: Any, pre, centre, vector) -> Any:
    """Return (x * pre - centre) @ vector, shape (n,), float64."""
    return _passes(x).row_dots(x, pre, centre, vector)


def column_range(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return (smallest, largest) entry of each column of x (..., n, columns), host.

    NaN where a column has one.
    """
    return _passes(x).column_range(x)


def scatter_rows(rows: list[Any], parts: list[Any]) -> Any:
    """Return the array whose rows `rows[i]` are `parts[i]`; together they cover 0..n-1 once."""
    return _passes(parts[0]).scatter_rows(rows, parts)


def take_rows(x: Any, pre, rows: np.ndarray) -> np.ndarray:
    """Return x[rows] * pre, host."""
    return _passes(x).take_rows(x, pre, rows)


def weighted_mean(x: Any, pre, weights: Any = None) -> np.ndarray:
    """Return the mean of the rows of x * pre, shape (columns,), host.

    `weights` is an array (n,) float64 of the library of `x`, or None for ones.
    """
    return _passes(x).weighted_mean(x, pre, weights)


def weighted_values(v: Any, pre, centre, post, weights: Any, dtype: str) -> Any:
    """Return [x, 1] * weights with x = (v * pre - centre) * post in [-1, 1], shape (m, d_v + 1).

    Clipping to [-1, 1] only removes rounding: the exact values lie there. `weights` is an array
    (m,) float64 of the library of `v`, or None for ones.
    """
    return _passes(v).weighted_values(v, pre, centre, post, weights, dtype)


def restored_values(x: Any, pre, centre, radius, low, high, dtype: str, divisor: Any = None) -> Any:
    """Return (centre + radius * x) / pre within [low, high], rounded to `dtype`, shape (n, d_v).

    `x` is divided by `divisor` (n,) first, where that is given. The exact output is a mean of
    values, so clipping to their range only removes error.
    """
    return _passes(x).restored_values(x, pre, centre, radius, low, high, dtype, divisor)


def rotated(x: Any, pre, centre, post, basis: np.ndarray, dtype: str) -> Any:
    """Return ((x * pre - centre) * post) @ basis, (n, d): float64, rounded once to `dtype`."""
    return _passes(x).rotated(x, pre, centre, post, basis, dtype)


def rotated_reach(x: Any, pre, centre, post, basis: np.ndarray) -> np.ndarray:
    """Return the largest |entry| of each column of `rotated`, as computed in float64, host."""
    return _passes(x).rotated_reach(x, pre, centre, post, basis)


def survey(x: Any, pre, centre) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (norms, mean, how far off the mean may be) of the rows of x * pre - centre, host.

    The norms (n,) are rounded up; float32 or float64, whichever they are numbers of.
    """
    return surveys([x], [pre], [centre])[0]


# Stacks: arrays of one shape, dtype, library and device, measured together at the price of about
# one. What comes back of each has the bits that it would have alone.


def surveys(
    xs: Sequence[Any], pres: Sequence[float], centres: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Return `survey` of each array of a stack, with its own `pre` and `centre`."""
    if isinstance(xs[0], Sharded):
        return [_passes(x).survey(x, *units) for x, *units in zip(xs, pres, centres, strict=True)]
    return _passes(xs[0]).surveys(xs, pres, centres)


def stacked_rows(xs: Sequence[Any], rows: Any) -> np.ndarray:
    """Return rows of each array of a stack, (heads, count, columns), host, float32 or float64.

    In C order, whatever that of the arrays: what is computed of them has the same bits.
    `rows` are the same for all heads, a slice, or their own, an array (heads, count).
    """
    if not isinstance(xs[0], Sharded):
        return _passes(xs[0]).stacked_rows(xs, rows)
    every = np.arange(xs[0].shape[0])
    own = [every[rows]] * len(xs) if isinstance(rows, slice) else rows
    wide = np.stack([take_rows(x, 1.0, index) for x, index in zip(xs, own, strict=True)])
    return np.ascontiguousarray(wide, np.result_type(xs[0].dtype, np.float32))


def column_ranges(xs: Sequence[Any]) -> np.ndarray:
    """Return (heads, 2, columns): the smallest and largest entries of each array of a stack, host.

    NaN where a column has one.
    """
    if isinstance(xs[0], Sharded):
        return np.array([column_range(x) for x in xs])
    return _passes(xs[0]).column_ranges(xs)
