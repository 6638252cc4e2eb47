"""Frame: the units of one head, fixed before any Partial or State exists, so that parts agree.

Softmax is invariant to a common shift of the keys; a shift of the queries is undone by key
weights exp(scale * centre_q . k). The centres are those of the smallest balls around the bulk of
the rows and, as a second Frame, around all rows (`sides`). Powers of two bring every input into
the middle of the floating-point range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from subquad.arrays.arithmetic import Array, ldexp, namespace
from subquad.arrays.once import Once
from subquad.engine.rows import rows_of
from subquad.engine.shards import rows as shards_rows
from subquad.engine.shards.fleet import Sharded
from subquad.head.basis import measure_rotation
from subquad.head.centring import groups
from subquad.head.magnitudes import Measures, entries_of, mean_offset
from subquad.head.sides import Measured, NotFiniteError, Rows, Side

WEIGHT_RANGE = 16.0
"""Query centring is used only where its key weights stay within exp(+-16)."""


@dataclass(frozen=True)
class Frame:
    """Centres, scales and value units of one head."""

    query: Side
    full_query: Side
    full_balance: int
    key: Side
    query_tilt: Array | None
    value_pre: Array
    value_mid: Array
    value_radius: Array
    value_low: Array
    value_high: Array

    def queries(self, Q: Array, dtype: str, balance: int = 0) -> Array:
        """Return scale * (q - query centre) * 2**balance, balanced, (n, d)."""
        return rows_of(Q).affine(Q, *self.query.balanced(balance), dtype)

    def full_queries(self, Q: Array, dtype: str) -> Array:
        """Return scale * q, (n, d), for exact weights, which need no tilt; go with `full_keys`."""
        side = self.full_query
        return rows_of(Q).affine(Q, side.pre, side.centre, side.post, dtype)

    def full_keys(self, K: Array, dtype: str) -> Array:
        """Return k - key centre, (m, d), balanced against `full_queries`."""
        return self.keys(K, dtype, -self.full_balance)

    def keys(self, K: Array, dtype: str, balance: int = 0) -> Array:
        """Return (k - key centre) * 2**balance, balanced, (m, d)."""
        return rows_of(K).affine(K, *self.key.balanced(balance), dtype)

    def key_weights(self, K: Array) -> tuple[Array | None, int]:
        """Return (weights (m,), shift): exp(scale * query centre . k) = weights * 2**shift.

        None, 0 where the queries are not centred.
        """
        if self.query_tilt is None:
            return None, 0
        if isinstance(K, Sharded):
            return shards_rows.key_weights(K, self.key_weights)
        xp = namespace(K)
        logits = rows_of(K).row_dots(K, self.key.pre, self.key.centre, self.query_tilt)
        shift = math.ceil(float(xp.max(logits)) / math.log(2.0))
        return xp.exp(logits - shift * math.log(2.0)), shift

    def values(self, V: Array, weights: Array | None, dtype: str) -> Array:
        """Return [V, 1] * weights, V centred and scaled to [-1, 1], (m, d_v + 1)."""
        # A constant column has radius 0: it enters as 0 and leaves as its mid-range.
        moving = self.value_radius > 0.0
        inverse = np.where(moving, 1.0, 0.0) / np.where(moving, self.value_radius, 1.0)
        return rows_of(V).weighted_values(
            V, self.value_pre, self.value_mid, inverse, weights, dtype
        )

    def restore(self, x: Array, dtype: str, divisor: Array | None = None) -> Array:
        """Return mid-range + radius * x (over `divisor`, row by row) in `dtype`, (n, d_v)."""
        return rows_of(x).restored_values(
            x,
            self.value_pre,
            self.value_mid,
            self.value_radius,
            self.value_low,
            self.value_high,
            dtype,
            divisor,
        )

    def value_ratio(self, dtype: str) -> float:
        """Return max over columns of (max|V_c| + smallest normal) / radius_c; 0 if all constant."""
        return value_ratio(
            self.value_pre, self.value_radius, self.value_low, self.value_high, dtype
        )


def make_frames(
    queries: Measured,
    keys: Measured,
    units: tuple[np.ndarray, ...],
    rows: tuple[Array, Array],
    scale: float,
) -> tuple[tuple[Frame, Measures], ...]:
    """Return the Frames of one head, with its row magnitudes in each.

    The first is about the smallest balls around the bulk of the rows; where a few rows lie far
    out, a second is about those around all rows. `rows` are Q and K, `units` those of the values.
    O(n + m), what is tilted O((n + m) d).
    """
    assert queries.about_zero is not None
    full, about, of_keys = queries.about_zero, queries.centred, keys.centred
    pairs = [
        (about[min(i, len(about) - 1)], of_keys[min(i, len(of_keys) - 1)])
        for i in range(max(len(about), len(of_keys)))
    ]
    return tuple(_frame(q, full, k, rows, units, scale) for q, k in pairs)


def _frame(
    query: Rows,
    full: Rows,
    key: Rows,
    rows: tuple[Array, Array],
    units: tuple[np.ndarray, ...],
    scale: float,
) -> tuple[Frame, Measures]:
    """Return the balanced Frame of one choice of centres, and the magnitudes in it."""
    gain, exponent = math.frexp(scale)
    exponent -= math.frexp(key.side.pre)[1] + math.frexp(query.side.pre)[1] - 2  # / (pre_q pre_k)
    if 0.0 in (full.largest, key.largest):
        gain, exponent = 0.5, 1  # every logit is 0 whatever the scale
    tilted = query is not full and _worth_tilting(query, full, key, gain, exponent)
    if not tilted:
        query = full
    # Equal largest norms on both sides; a power of two, so that balancing rounds nothing.
    lean = balancing_exponent(key.largest, query.largest)
    half = max(-1000, min(1000, round(exponent / 2) + lean))
    key_post, query_post = ldexp(1.0, half), ldexp(gain, exponent - half)

    # One query alone is its own centre: balanced about it, the keys would vanish beside |q|.
    lean = balancing_exponent(full.largest * query_post, key.largest * key_post)
    frame = Frame(
        replace(query.side, post=query_post),
        replace(full.side, post=ldexp(query_post, lean)),
        lean,
        replace(key.side, post=key_post),
        query.side.centre * query_post * key_post if tilted else None,
        *units,
    )
    return frame, _measures(frame, query, full, key, rows)


def _measures(
    frame: Frame, query: Rows, full: Rows, key: Rows, rows: tuple[Array, Array]
) -> Measures:
    """Return the magnitudes in the units of the Frame."""
    (Q, K), q_out, k_out = rows, frame.query.post * (1.0 + 2.0**-50), frame.key.post
    largest = query.largest * q_out, key.largest * k_out
    return Measures(
        query,
        full,
        key,
        (q_out, k_out),
        _offset(frame, key, K),
        (Once(lambda: entries_of(Q, query, q_out)), Once(lambda: entries_of(K, key, k_out))),
        Once(lambda: measure_rotation(Q, K, frame.query.affine, frame.key.affine, *largest)),
    )


def _offset(frame: Frame, key: Rows, K: Array) -> Once[float]:
    """Return the offset of the mean of the keys: known, but where they carry weights."""
    if frame.query_tilt is not None:
        side, largest = frame.key, key.largest
        return Once(lambda: mean_offset(K, side, frame.key_weights(K)[0], largest))
    away = (float(np.linalg.norm(key.mean)) + key.slack) * (1.0 + 2.0**-40)
    return Once.known_to_be(min(1.0, away / key.largest) if key.largest > 0.0 else 1.0)


def _worth_tilting(query: Rows, full: Rows, key: Rows, gain: float, exponent: int) -> bool:
    """Return whether centring the queries pays: smaller largest norm, key weights in range."""
    reach = float(np.linalg.norm(query.side.centre)) * key.largest
    in_range = ldexp(reach * gain, exponent) <= WEIGHT_RANGE
    return bool(in_range and query.largest < 0.97 * full.largest)


def balancing_exponent(query_norm: float, key_norm: float) -> int:
    """Return b such that query_norm * 2**b and key_norm * 2**-b are within a factor 2."""
    smallest = 2.0**-900
    return round(math.log2(max(key_norm, smallest) / max(query_norm, smallest)) / 2.0)


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
