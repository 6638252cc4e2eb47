"""The passes over rows in shards: each shard by its own device's passes, results joined by rank.

Those of `engine.rows.RowPasses` that measure rows, and `accumulate`. What a row-wise pass returns
is sharded like its rows; what it measures comes to every host, for all rows, as it would from one
device: norms and ranges are the same numbers, means differ in the order of their sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import array_api_compat
import numpy as np

from subquad.engine import passes
from subquad.engine.backend import backend_of
from subquad.engine.fused.sizes import OPERANDS
from subquad.engine.shards.fleet import Fleet, Sharded
from subquad.engine.state import State, sum_up


def centred_norms(
    xs: Sequence[Sharded],
    in_scales: Sequence[float],
    centres: Sequence[np.ndarray],
    means: bool = True,
) -> list[tuple[np.ndarray, np.ndarray | None, float]]:
    """Return (norms, mean, error of the mean) of the rows of each x * in_scale - centre.

    The mean is None without `means`.
    """
    return [_centred_norms(*own, means) for own in zip(xs, in_scales, centres, strict=True)]


def _centred_norms(
    x: Sharded, in_scale: float, centre: np.ndarray, means: bool
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Return (norms, mean or None, error of the mean) of the rows of x * in_scale - centre."""
    d = x.shape[1]

    def own(part: Any) -> tuple[np.ndarray, np.ndarray | None, float]:
        if part.shape[0] == 0:
            return np.zeros(0, np.float32), np.zeros(d), 0.0
        return backend_of(part).rows.centred_norms([part], [in_scale], [centre], means)[0]

    norms, own_means, slacks = zip(*x.map(own), strict=True)
    if not means:
        return _rows(x, norms), None, math.inf
    parts = [np.append(m, s)[None] for m, s in zip(own_means, slacks, strict=True)]
    every = np.concatenate(x.fleet.all_gather_host(parts))
    slack = float(every[:, d].max()) * (1.0 if x.fleet.ranks == 1 else 1.0 + 2.0**-10)
    return _rows(x, norms), _shares(np.diff(x.starts)) @ every[:, :d], slack


def row_measures(x: Sharded, in_scale, centre) -> tuple[np.ndarray, np.ndarray]:
    """Return (norms, largest |entries|), (n,), of the rows of x * in_scale - centre, host."""
    found = x.map(
        lambda part: np.stack(backend_of(part).rows.row_measures(part, in_scale, centre), axis=1)
    )
    both = np.concatenate(x.fleet.all_gather_host(found))
    return both[:, 0], both[:, 1]


def row_dots(x: Sharded, in_scale, centre, vector) -> Sharded:
    """Return (x * in_scale - centre) @ vector, shape (n,), float64, sharded like x."""
    parts = x.map(lambda part: backend_of(part).rows.row_dots(part, in_scale, centre, vector))
    return replace(x, parts=tuple(parts))


def column_range(x: Sharded) -> tuple[np.ndarray, np.ndarray]:
    """Return (smallest, largest) entry of each column, host; NaN where a column has one."""

    def own(part: Any) -> np.ndarray:
        if part.shape[0] == 0:
            return np.zeros((0, 2, part.shape[1]))
        return np.stack(backend_of(part).rows.column_range(part))[None]

    ends = np.concatenate(x.fleet.all_gather_host(x.map(own)))
    return ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)


def column_ranges(xs: Sequence[Sharded]) -> np.ndarray:
    """Return (heads, 2, columns): the smallest and largest entries of each array of a stack."""
    return np.array([column_range(x) for x in xs])


def stacked_rows(xs: Sequence[Sharded], rows: Any) -> np.ndarray:
    """Return rows of each array of a stack, (heads, count, columns), host, float32 or float64."""
    every = np.arange(xs[0].shape[0])
    own = [every[rows]] * len(xs) if isinstance(rows, slice) else rows
    wide = np.stack([take_rows(x, 1.0, index) for x, index in zip(xs, own, strict=True)])
    return np.ascontiguousarray(wide, np.result_type(xs[0].dtype, np.float32))


def take_rows(x: Sharded, in_scale, rows: np.ndarray) -> np.ndarray:
    """Return x[rows] * in_scale, host."""
    rank = np.searchsorted(x.starts, rows, side="right") - 1
    wanted = [rows[rank == r] - x.starts[r] for r in x.fleet.local]

    def own(part: Any, index: np.ndarray) -> np.ndarray:
        if index.size == 0:
            return np.zeros((0, part.shape[1]))
        return backend_of(part).rows.take_rows(part, in_scale, index)

    found = np.concatenate(x.fleet.all_gather_host(x.map(own, wanted)))
    out = np.empty_like(found)
    out[np.argsort(rank, kind="stable")] = found
    return out


def weighted_mean(x: Sharded, in_scale, weights: Sharded | None = None) -> np.ndarray:
    """Return the mean of the rows of x * in_scale, shape (columns,), host."""

    def own(part: Any, w: Any) -> np.ndarray:
        if part.shape[0] == 0:
            return np.zeros((1, 1 + part.shape[1]))
        mass = float(part.shape[0] if w is None else w.sum())
        return np.append(mass, backend_of(part).rows.weighted_mean(part, in_scale, w))[None]

    used = [None] * len(x.parts) if weights is None else weights.parts
    every = np.concatenate(x.fleet.all_gather_host(x.map(own, used)))
    return _shares(every[:, 0]) @ every[:, 1:]


def key_weights(K: Sharded, find: Callable[[Any], tuple[Any, int]]) -> tuple[Sharded, int]:
    """Return (weights, shift) of all keys in one unit 2**shift, from those of each shard.

    The shift is the largest of those found; changing it multiplies weights near 1 by a power of
    two, which is exact.
    """

    def own(part: Any) -> tuple[Any, int | None]:
        if part.shape[0] == 0:
            return array_api_compat.array_namespace(part).zeros(0, dtype=np.float64), None
        return find(part)

    weights, shifts = zip(*K.map(own), strict=True)
    known = K.fleet.all_gather_host(
        [np.array([s] if s is not None else [], np.int64) for s in shifts]
    )
    shift = max((int(s[0]) for s in known if s.size), default=0)
    raised = K.fleet.map(lambda w, s: w if s is None else w * 2.0 ** (s - shift), weights, shifts)
    return replace(K, parts=tuple(raised)), shift


def accumulate(
    K: Sharded, W: Sequence[Any], degree: int, *, operands: str | None = None, **units: Any
) -> list[State]:
    """Return the State of all keys on the device of each local rank, the same bits on each.

    `W` holds [V, 1] times the key weights of each local shard; the rest is as for
    `engine.accumulate`. O(m r d_v / ranks) time, and one exchange of O(ranks r d_v) numbers.
    """

    def own(k: Any, w: Any) -> State:
        if k.shape[0] > 0 or operands is None:
            return passes.accumulate(k, w, degree, operands=operands, **units)
        return replace(passes.accumulate(k, w, degree, **units), dtype=operands)  # of no keys

    return sum_states(K.fleet, K.map(own, W))


def sum_states(fleet: Fleet, states: Sequence[State]) -> list[State]:
    """Return the sum of the States of all ranks, on each device: one rounding for any number.

    Raises ValueError where States of two ranks have not the same units.
    """
    if fleet.ranks == 1:
        return list(states)
    units = np.concatenate(fleet.all_gather_host([_units(state)[None] for state in states]))
    apart = np.flatnonzero((units != units[0]).any(axis=1))
    if apart.size:
        msg = (
            f"the States of ranks 0 and {apart[0]} have other degrees, sizes, shifts or centres "
            f"({units[0]} and {units[apart[0]]}); they cannot be added."
        )
        raise ValueError(msg)
    records = np.concatenate(
        fleet.all_gather_host(
            [np.append(state.norm_moments, state.count)[None] for state in states]
        )
    )
    norms, count = reduce(sum_up, records[:, :-1]), int(records[:, -1].sum())
    xp = array_api_compat.array_namespace(states[0].moments[0])
    flat = fleet.sum(fleet.map(lambda state: xp.concat(state.moments), states))
    ends = np.cumsum([0, *(block.shape[0] for block in states[0].moments)]).tolist()
    return [
        replace(
            state,
            norm_moments=norms,
            count=count,
            moments=tuple(whole[a:b] for a, b in zip(ends, ends[1:], strict=False)),
        )
        for state, whole in zip(states, flat, strict=True)
    ]


def _units(state: State) -> np.ndarray:
    """Return what States that are added must have alike, as numbers."""
    dtype = (*passes.COMPUTE_DTYPES, *OPERANDS).index(state.dtype)
    sizes = state.degree, state.d, state.d_v, state.weight_shift, state.balance, dtype
    return np.concatenate([np.array(sizes, np.float64), state.key_centre])


def _rows(x: Sharded, values: Sequence[np.ndarray]) -> np.ndarray:
    """Return host values of the rows of each local shard as those of all rows."""
    return np.concatenate([v for v in x.fleet.all_gather_host(values) if v.size])


def _shares(masses: np.ndarray) -> np.ndarray:
    return masses / masses.sum()
