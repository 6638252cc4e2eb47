"""Feature tiles of the portable GPU path, and sums over tiles in float64 in a fixed order."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cupy
import numpy as np

from subquad.engine.gpu.kernels import THREADS, blocks_for, launch
from subquad.features import suffix_offsets

TILE_BYTES = 256 * 2**20
"""What the features of one step and their product may hold; on small devices a 32nd of memory."""

MOST_ROWS = 1 << 15
"""Most features, and most tiles, of one step: the grid of a kernel ends at 2^16 - 1."""

SLICES = 32
"""Most slices that one thread adds up where there are few sums and many slices."""


def step_numbers(dtype: str) -> int:
    """Return how many numbers of `dtype` the features of a step and their product may be."""
    return min(TILE_BYTES, cupy.cuda.Device().mem_info[1] // 32) // np.dtype(dtype).itemsize


@lru_cache(maxsize=32)
def factors(d: int, k: int) -> np.ndarray:
    """Return the variables of each degree-k monomial, (r_k, k) int16, the leading one first."""
    table = np.zeros((1, 0), dtype=np.int16)
    for j in range(1, k + 1):
        table = np.concatenate(
            [
                np.insert(table[start:], 0, a, axis=1)
                for a, start in enumerate(suffix_offsets(d, j - 1))
            ]
        )
    table.flags.writeable = False
    return table


class Factors:
    """The factors of a set of monomials on the device, and their features on tiles of tokens."""

    def __init__(self, table: np.ndarray) -> None:
        self._table = cupy.asarray(table)

    def __len__(self) -> int:
        return self._table.shape[0]

    def tile(self, x: Any, first: int, rows: int) -> Any:
        """Return features first .. first + rows - 1 of x (batch, d, t), (batch, rows, t).

        Past the last monomial they are 0.
        """
        batch, d, t = x.shape
        out = cupy.empty((batch, rows, t), x.dtype)
        degree = self._table.shape[1]
        arguments = (x, d, self._table, degree, first, len(self), t, out)
        launch("monomials", (x,), (-(-t // THREADS), rows, batch), arguments)
        return out


def tokens_last(rows: Any, tile: int) -> Any:
    """Return rows (t, columns) as (tiles, columns, tile), the last tile filled up with zeros."""
    return cupy.ascontiguousarray(tokens_first(rows, tile, rows.shape[1]).swapaxes(1, 2))


def tokens_first(rows: Any, tile: int, width: int) -> Any:
    """Return rows (t, columns) as (tiles, tile, width), filled up with zeros on both sides."""
    t, columns = rows.shape
    out = cupy.zeros((-(-t // tile) * tile, width), rows.dtype)
    out[:t, :columns] = rows
    return out.reshape(-1, tile, width)


def add_up(part: Any, total: Any) -> None:
    """Add part[0] + part[1] + ... to `total`, in float64, in an order that the sizes decide.

    Each number passes through at most len(part) roundings in float64.
    """
    size = total.size
    while part.shape[0] > SLICES and size < 1 << 17:  # few sums would leave the device idle
        groups = -(-part.shape[0] // SLICES)
        sums = cupy.empty((groups, *part.shape[1:]))
        _add_slices(part, SLICES, 0, sums)
        part = sums
    _add_slices(part, part.shape[0], 1, total)


def _add_slices(part: Any, per: int, keep: int, out: Any) -> None:
    size = part[0].size
    groups = -(-part.shape[0] // per)
    assert part.flags.c_contiguous and out.flags.c_contiguous and out.size == groups * size
    arguments = (part, part.shape[0], size, per, keep, out)
    launch("add_slices", (part,), blocks_for(out.size), arguments)
