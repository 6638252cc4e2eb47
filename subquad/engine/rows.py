"""The passes over rows before the first product: centre, scale, measure. O(n d) time.

`rows_of(x)` is the one door: `rows_of(x).affine(x, ...)`, whether x is in one piece on a CPU or a
GPU or divided over several devices. `RowPasses` says what each of them does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np

from subquad.engine.backend import backend_of, operands_of
from subquad.engine.shards import rows as shards_rows
from subquad.engine.shards.fleet import Sharded


def rows_of(x: Any) -> RowPasses:
    """Return the passes over rows like those of x: of its library, or of its shards."""
    if isinstance(x, Sharded):
        return cast(RowPasses, shards_rows)
    return backend_of(x).rows


def fused_operands(x: Any) -> tuple[str, ...]:
    """Return the operands of the fused passes that every device of x has: none but on some GPUs."""
    if not isinstance(x, Sharded):
        return operands_of(x)
    every = x.map(operands_of)
    return tuple(name for name in every[0] if all(name in some for some in every))


class RowPasses(Protocol):
    """What is done to rows, one after the other, by the modules `rows` of `cpu`, `gpu`, `shards`.

    Everything is computed in float64 and rounded once to the compute dtype; no copy of the input
    in float64 is ever held. What is of the input's size stays in its array library and on its
    device; what is not (ranges, means, sampled rows) and the magnitudes of rows come to the host,
    NumPy float64 unless said. `in_scale`, `centre`, `out_scale` and their like are floats or NumPy
    arrays (columns,), float64.

    A stack is a sequence of arrays of one shape, dtype, library and device, measured together at
    the price of about one. What comes back of each has the bits that it would have alone.

    The shards have no pass that makes rows (`affine`, `weighted_values`, `restored_values`,
    `rotated`): those run on each shard, by the passes of its own device.
    """

    def affine(self, x: Any, in_scale: Any, centre: Any, out_scale: Any, dtype: str) -> Any:
        """Return (x * in_scale - centre) * out_scale rounded once to `dtype`, (n, columns)."""

    def row_measures(self, x: Any, in_scale: Any, centre: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return (norms, largest |entries|), (n,), of the rows of x * in_scale - centre, host.

        Rounded outwards: each is at least the true value.
        """

    def row_dots(self, x: Any, in_scale: Any, centre: Any, vector: Any) -> Any:
        """Return (x * in_scale - centre) @ vector, shape (n,), float64."""

    def column_range(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return (smallest, largest) entry of each column of x (..., n, columns), host.

        NaN where a column has one.
        """

    def take_rows(self, x: Any, in_scale: Any, rows: np.ndarray) -> np.ndarray:
        """Return x[rows] * in_scale, host."""

    def weighted_mean(self, x: Any, in_scale: Any, weights: Any = None) -> np.ndarray:
        """Return the mean of the rows of x * in_scale, shape (columns,), host.

        `weights` is an array (n,) float64 of the library of `x`, or None for ones.
        """

    def weighted_values(
        self, v: Any, in_scale: Any, centre: Any, out_scale: Any, weights: Any, dtype: str
    ) -> Any:
        """Return [x, 1] * weights, (m, d_v + 1); x = (v * in_scale - centre) * out_scale.

        x is clipped to [-1, 1], where the exact values lie: that removes rounding alone. `weights`
        is an array (m,) float64 of the library of `v`, or None for ones.
        """

    def restored_values(
        self,
        x: Any,
        in_scale: Any,
        centre: Any,
        radius: Any,
        low: Any,
        high: Any,
        dtype: str,
        divisor: Any = None,
    ) -> Any:
        """Return (centre + radius * x) / in_scale within [low, high], rounded to `dtype`, (n, d_v).

        `x` is divided by `divisor` (n,) first, where that is given. The exact output is a mean of
        values, so clipping to their range only removes error.
        """

    def rotated(
        self, x: Any, in_scale: Any, centre: Any, out_scale: Any, basis: np.ndarray, dtype: str
    ) -> Any:
        """Return ((x * in_scale - centre) * out_scale) @ basis, (n, d), rounded once to `dtype`."""

    def rotated_reach(
        self, x: Any, in_scale: Any, centre: Any, out_scale: Any, basis: np.ndarray
    ) -> np.ndarray:
        """Return the largest |entry| of each column of `rotated`, as computed in float64, host."""

    def centred_norms(
        self,
        xs: Sequence[Any],
        in_scales: Sequence[float],
        centres: Sequence[np.ndarray],
        means: bool = True,
    ) -> list[tuple[np.ndarray, np.ndarray | None, float]]:
        """Return (norms, mean, error of the mean) of the rows of each x * in_scale - centre.

        Of each array of a stack with its own `in_scale` and `centre`, host. The norms (n,) are
        rounded up; float32 or float64, whichever they are numbers of. The mean is None without
        `means`, which saves a third of the time.
        """

    def stacked_rows(self, xs: Sequence[Any], rows: Any) -> np.ndarray:
        """Return rows of each array of a stack, (heads, count, columns), host, float32 or float64.

        In C order, whatever that of the arrays: what is computed of them has the same bits.
        `rows` are the same for all heads, a slice, or their own, an array (heads, count).
        """

    def column_ranges(self, xs: Sequence[Any]) -> np.ndarray:
        """Return (heads, 2, columns): the smallest and largest entries of each array of a stack.

        On the host; NaN where a column has one.
        """
