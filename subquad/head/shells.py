"""Shells of keys by norm, each in a ball about its own centre: numbers for buckets of their own.

exp(q.k) = exp(q.c_b) exp(q.(k - c_b)), units of the Frame: a shell whose keys lie in a smaller
ball about c_b than about the common centre has smaller logits there, and its rows are multiplied
by exp(q.c_b) afterwards (`Partial.times_exp`). Keys spread evenly over directions gain nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from subquad.arrays.arithmetic import OUTWARD, Affine, Array, namespace
from subquad.arrays.formats import U64
from subquad.engine.rows import rows_of
from subquad.head.ball import BALL_POINTS, ball_centre
from subquad.head.frame import Frame
from subquad.head.magnitudes import RowMagnitudes, mean_offset

SHARES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8)
"""Shares of the keys, the largest first, at which the table cuts."""
TABLE_ROWS = 20.0
"""Rows measured for the table, over the number of keys (a little more than they are)."""


@dataclass(frozen=True)
class Shell:
    """The keys of norm in (low, high]: their own centre, in units of the Frame's `key.in_scale`.

    `radius` bounds their distance from it, `away` its distance from the Frame's centre, in
    prepared units, rounded up; `offset` is |weighted mean of these keys - centre| over `radius`,
    at most 1. `side` is how keys enter about it.
    """

    side: Affine
    radius: float
    away: float
    offset: float

    def displacement(self, frame: Frame) -> np.ndarray:
        """Return its own centre less the Frame's, prepared, (d,)."""
        return (self.side.centre - frame.key.centre) * frame.key.out_scale


@dataclass(frozen=True)
class ShellTable:
    """`edges`: norms from above the largest down to below the smallest; a Shell for each pair."""

    edges: tuple[float, ...]
    shells: dict[tuple[float, float], Shell]


class KeyShells:
    """The shells of one head, measured when asked for; lets go of the keys with the table made."""

    def __init__(self, K: Array, frame: Frame, rows: RowMagnitudes) -> None:
        self._arguments: tuple[Array, Frame, RowMagnitudes] | None = (K, frame, rows)
        self._table: ShellTable | None = None
        self._known: dict[tuple[float, float], Shell] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy starts with: the shells measured so far, and no keys."""
        return self.__dict__ | {"_arguments": None}

    def __call__(self) -> ShellTable:
        """Return the table of all shells between cuts at SHARES; O(m d), some 0.1 s at least."""
        arguments = self._arguments  # another thread may make the table, and then let go of them
        if self._table is None:
            assert arguments is not None
            descending = np.sort(arguments[2].key_norms)[::-1]
            cuts = {float(descending[int(s * descending.size)]) for s in SHARES[1:]}
            edges = (math.inf, *sorted(cuts - {float(descending[0])}, reverse=True), -1.0)
            self._table = ShellTable(
                edges, {(a, b): self._once(arguments, a, b) for b, a in combinations(edges, 2)}
            )
            self._arguments = None
        return self._table

    @property
    def at_hand(self) -> bool:
        """Whether the table is made or can be."""
        return self._table is not None or self._arguments is not None

    def release(self) -> None:
        """Let go of the keys: what nobody asked for is not known any more."""
        self._arguments = None

    @property
    def known(self) -> bool:
        """Whether the table was made."""
        return self._table is not None

    def between(self, low: float, high: float) -> Shell | None:
        """Return the shell of norms in (low, high]; None where it is not known any more."""
        arguments = self._arguments
        if arguments is None:
            return self._known.get((low, high))
        return self._once(arguments, low, high)

    def _once(self, arguments: tuple[Array, Frame, RowMagnitudes], *norms: float) -> Shell:
        """Return the shell of norms (low, high], measured once."""
        low, high = norms
        if (low, high) not in self._known:
            K, frame, rows = arguments
            self._known[low, high] = _measured(K, frame, rows.key_norms, low, high)
        return self._known[low, high]


def _measured(K: Array, frame: Frame, norms: np.ndarray, low: float, high: float) -> Shell:
    """Return the shell: its centre from the furthest of its keys and some others, radius of all."""
    rows = np.flatnonzero((norms > low) & (norms <= high))
    side = frame.key
    if rows.size == 0:
        return Shell(side, 0.0, 0.0, 1.0)
    spread = rows[:: -(-rows.size // BALL_POINTS)]
    mean = rows_of(K).take_rows(K, side.in_scale, spread).mean(axis=0)
    xp = namespace(K)
    keys = xp.take(K, xp.asarray(rows), axis=0)
    about_mean, _ = rows_of(keys).row_measures(keys, side.in_scale, mean)
    far = np.argsort(about_mean)[-BALL_POINTS:]
    points = rows_of(K).take_rows(K, side.in_scale, np.union1d(rows[far], spread))
    centre = ball_centre(points, mean)
    about, _ = rows_of(keys).row_measures(keys, side.in_scale, centre)
    if not about.max() < about_mean.max():
        centre, about = mean, about_mean
    away = float(np.linalg.norm(centre - side.centre)) * (1.0 + (centre.size + 8) * U64)
    own, radius = Affine(side.in_scale, centre, side.out_scale), float(about.max())
    return Shell(
        own,
        radius * side.out_scale * OUTWARD,
        (away + 2.0**-500) * side.out_scale * OUTWARD,
        mean_offset(keys, own, frame.key_weights(keys)[0], radius),
    )
