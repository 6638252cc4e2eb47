"""Frame: the units of one head, fixed before any Partial or State exists, so that parts agree.

Softmax is invariant to a common shift of the keys; a shift of the queries is undone by key
weights exp(scale * centre_q . k). The centres are those of the smallest balls around the bulk of
the rows (no row further than BULK times the median from the mean), which a few large rows cannot
move, and, as a second Frame, around all rows. Powers of two bring every input into the middle of
the floating-point range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from subquad.arrays import Array, exponent_of, namespace, power_of_two
from subquad.engine import prepare
from subquad.engine.rotate import Rotation, measure_rotation

BULK = 3.0
SAMPLE = 8192
BALL_POINTS, BALL_STEPS = 256, 64
WEIGHT_RANGE = 16.0
"""Query centring is used only where its key weights stay within exp(+-16)."""


@dataclass(frozen=True)
class Side:
    """How rows enter: (x * pre - centre) * post; centre (d,) in units of 1/pre."""

    pre: float
    centre: Array
    post: float

    @property
    def affine(self) -> tuple[float, Array, float]:
        """The three numbers, as the engine takes them."""
        return self.pre, self.centre, self.post


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
        side = self.query
        return prepare.affine(Q, side.pre, side.centre, _ldexp(side.post, balance), dtype)

    def full_queries(self, Q: Array, dtype: str) -> Array:
        """Return scale * q, (n, d), for exact weights, which need no tilt; go with `full_keys`."""
        side = self.full_query
        return prepare.affine(Q, side.pre, side.centre, side.post, dtype)

    def full_keys(self, K: Array, dtype: str) -> Array:
        """Return k - key centre, (m, d), balanced against `full_queries`."""
        return self.keys(K, dtype, -self.full_balance)

    def keys(self, K: Array, dtype: str, balance: int = 0) -> Array:
        """Return (k - key centre) * 2**balance, balanced, (m, d)."""
        side = self.key
        return prepare.affine(K, side.pre, side.centre, _ldexp(side.post, balance), dtype)

    def key_weights(self, K: Array) -> tuple[Array | None, int]:
        """Return (weights (m,), shift): exp(scale * query centre . k) = weights * 2**shift.

        None, 0 where the queries are not centred.
        """
        if self.query_tilt is None:
            return None, 0
        xp = namespace(K)
        logits = prepare.row_dots(K, self.key.pre, self.key.centre, self.query_tilt)
        shift = math.ceil(float(xp.max(logits)) / math.log(2.0))
        return xp.exp(logits - shift * math.log(2.0)), shift

    def values(self, V: Array, weights: Array | None, dtype: str) -> Array:
        """Return [V, 1] * weights, V centred and scaled to [-1, 1], (m, d_v + 1)."""
        # A constant column has radius 0: it enters as 0 and leaves as its mid-range.
        moving = self.value_radius > 0.0
        inverse = np.where(moving, 1.0, 0.0) / np.where(moving, self.value_radius, 1.0)
        return prepare.weighted_values(V, self.value_pre, self.value_mid, inverse, weights, dtype)

    def restore(self, x: Array, dtype: str) -> Array:
        """Return mid-range + radius * x in `dtype`, (n, d_v)."""
        return prepare.restored_values(
            x, self.value_pre, self.value_mid, self.value_radius,
            self.value_low, self.value_high, dtype,
        )  # fmt: skip

    def value_ratio(self, dtype: str) -> float:
        """Return max over columns of (max|V_c| + smallest normal) / radius_c; 0 if all constant."""
        normal = float(np.finfo(dtype).smallest_normal)
        size = np.maximum(abs(self.value_low), abs(self.value_high)) + normal
        moving = self.value_radius > 0.0
        with np.errstate(over="ignore"):  # an infinite ratio is a true answer: it refuses
            ratio = size * self.value_pre / np.where(moving, self.value_radius, 1.0)
        return float(np.max(np.where(moving, ratio, 0.0)))


@dataclass(frozen=True)
class Measures:
    """Row magnitudes in prepared units, on the host, float64, each rounded outwards.

    |logit_ij| <= query_norms[i] * key_norms[j] about the centres; the largest full query (about
    zero) times the largest key bounds the logits of the exact path.
    """

    query_norms: np.ndarray
    query_entries: np.ndarray
    key_norms: np.ndarray
    key_entries: np.ndarray
    full_query_norms: np.ndarray
    key_offset: float
    """|weighted mean of the keys| / max key norm, rounded up, at most 1."""
    rotation: Rotation | None = None
    """A basis in which most coordinates are small on both sides, where there is one of use."""


Rows = tuple[np.ndarray, np.ndarray]
"""Norms and largest entries of the rows of one side, each (n,)."""


def make_frames(Q: Array, K: Array, V: Array, scale: float) -> tuple[tuple[Frame, Measures], ...]:
    """Return the Frames of one head, with its row magnitudes in each.

    The first is about the smallest balls around the bulk of the rows; where a few rows lie far
    out, a second is about those around all rows. O((n + m)(d + d_v)) time, O(n + m) memory.
    """
    keys, queries = _balls(K), _balls(Q, skip_if_central=True)
    pre = _unit(Q)
    about_zero = Side(pre, np.zeros(Q.shape[1]), 1.0)
    full = about_zero, prepare.row_measures(Q, pre, about_zero.centre)
    queries = queries or (full,)
    units = _value_units(V)
    pairs = [(queries[min(i, len(queries) - 1)], keys[min(i, len(keys) - 1)])
             for i in range(max(len(keys), len(queries)))]  # fmt: skip
    frames = (_frame(query, full, key, K, units, scale) for query, key in pairs)
    return tuple(_rotated(frame, rows, Q, K) for frame, rows in frames)


def _rotated(frame: Frame, rows: Measures, Q: Array, K: Array) -> tuple[Frame, Measures]:
    """Return the pair with the rotation measured, O(n d) and, where it is of use, O(n d^2)."""
    norms = float(rows.query_norms.max()), float(rows.key_norms.max())
    found = measure_rotation(Q, K, frame.query.affine, frame.key.affine, *norms)
    return frame, replace(rows, rotation=found)


def _frame(
    queries: tuple[Side, Rows], full: tuple[Side, Rows], keys: tuple[Side, Rows], K: Array,
    units: tuple[np.ndarray, ...], scale: float,
) -> tuple[Frame, Measures]:  # fmt: skip
    """Return the balanced Frame of one choice of centres, and the magnitudes in it."""
    (query, query_rows), (about_zero, full_rows), (key, key_rows) = queries, full, keys
    gain, exponent = math.frexp(scale)
    exponent -= math.frexp(key.pre)[1] + math.frexp(query.pre)[1] - 2  # scale / (pre_q pre_k)
    if 0.0 in (full_rows[0].max(), key_rows[0].max()):
        gain, exponent = 0.5, 1  # every logit is 0 whatever the scale
    tilted = _worth_tilting(query, query_rows, full_rows, key_rows, gain, exponent)
    if not tilted:
        query, query_rows = about_zero, full_rows
    # Equal largest norms on both sides; a power of two, so that balancing rounds nothing.
    lean = balancing_exponent(float(key_rows[0].max()), float(query_rows[0].max()))
    half = max(-1000, min(1000, round(exponent / 2) + lean))
    key_post, query_post = _ldexp(1.0, half), _ldexp(gain, exponent - half)

    key = Side(key.pre, key.centre, key_post)
    # One query alone is its own centre: balanced about it, the keys would vanish beside |q|.
    lean = balancing_exponent(
        float(full_rows[0].max()) * query_post, float(key_rows[0].max()) * key_post
    )
    full_side = Side(query.pre, about_zero.centre, _ldexp(query_post, lean))
    query = Side(query.pre, query.centre, query_post)
    tilt = query.centre * query_post * key_post if tilted else None
    frame = Frame(query, full_side, lean, key, tilt, *units)
    q_out, k_out = query_post * (1.0 + 2.0**-50), key_post
    measures = Measures(
        query_rows[0] * q_out, query_rows[1] * q_out,
        key_rows[0] * k_out, key_rows[1] * k_out,
        full_rows[0] * q_out, _offset(frame, K, float(key_rows[0].max())),
    )  # fmt: skip
    return frame, measures


def _balls(x: Array, skip_if_central: bool = False) -> tuple[tuple[Side, Rows], ...]:
    """Return the ball around the bulk of the rows and, where a few lie far out, that around all.

    The bulk is judged, and its ball found, on at most SAMPLE rows: any centre is a true one.
    Empty where `skip_if_central` and the centre is next to zero.
    """
    pre = _unit(x)
    sample = prepare.take_rows(x, pre, np.arange(0, x.shape[0], -(-x.shape[0] // SAMPLE)))
    centre, radius = _bulk_ball(sample)
    if skip_if_central and float(np.linalg.norm(centre)) <= 0.02 * radius:
        return ()
    about = prepare.row_measures(x, pre, centre)
    first = Side(pre, centre, 1.0), about
    if about[0].max() <= BULK * np.median(about[0]):
        return (first,)
    far = np.argsort(about[0])[-BALL_POINTS:]
    spread = sample[:: max(1, len(sample) // BALL_POINTS)]
    whole = _ball_centre(np.concatenate([prepare.take_rows(x, pre, far), spread]), centre)
    about_whole = prepare.row_measures(x, pre, whole)
    if about_whole[0].max() < about[0].max():
        return first, (Side(pre, whole, 1.0), about_whole)
    return (first,)


def _unit(x: Array) -> float:
    """Return the power of two that brings the largest entry of x into [1/2, 1)."""
    low, high = prepare.column_range(x)
    return 1.0 / power_of_two(exponent_of(float(max(np.max(abs(low)), np.max(abs(high))))))


def _bulk_ball(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return (centre, radius) of the smallest ball around the bulk of points (p, d)."""
    mean = points.mean(axis=0)
    distance = np.linalg.norm(points - mean, axis=1)
    bulk = points[distance <= BULK * np.median(distance)]
    order = np.argsort(np.linalg.norm(bulk - mean, axis=1))
    # The far rows decide the ball, and a spread of the others in case those lie all on one side.
    spread = order[:: max(1, order.size // BALL_POINTS)]
    far = np.unique(np.concatenate([order[-BALL_POINTS:], spread]))
    radii = {}
    for centre in (_ball_centre(bulk[far], mean), mean):
        radii[float(np.linalg.norm(bulk - centre, axis=1).max())] = centre
    return radii[min(radii)], min(radii)


def _ball_centre(points: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the centre of nearly the smallest ball around points (p, d), from `start`.

    Badoiu and Clarkson (2003): step 1/(i + 1) towards the furthest point.
    """
    centre = start.copy()
    for step in range(2, 2 + BALL_STEPS):
        away = points - centre
        centre += away[np.argmax(np.einsum("ij,ij->i", away, away))] / step
    return centre


def _worth_tilting(query: Side, about, full, key_rows, gain: float, exponent: int) -> bool:
    """Return whether centring the queries pays: smaller largest norm, key weights in range."""
    reach = float(np.linalg.norm(query.centre)) * float(key_rows[0].max())
    in_range = _ldexp(reach * gain, exponent) <= WEIGHT_RANGE
    return bool(in_range and about[0].max() < 0.97 * full[0].max())


def _offset(frame: Frame, K: Array, key_radius: float) -> float:
    """Return |weighted mean of the keys - centre| over the largest key norm, rounded up."""
    weights, _ = frame.key_weights(K)
    mean = prepare.weighted_mean(K, frame.key.pre, weights)
    # The mean of m rows of entries at most 1: sums of blocks, far inside 2**-30 of the truth.
    away = float(np.linalg.norm(mean - frame.key.centre)) + 2.0**-30 * math.sqrt(mean.size)
    return min(1.0, away / key_radius) if key_radius > 0.0 else 1.0


def _value_units(V: Array) -> tuple[np.ndarray, ...]:
    """Return (pre, mid, radius, low, high) of the columns of V; radius rounded up."""
    low, high = prepare.column_range(V)
    size = np.maximum(abs(low), abs(high))
    pre = np.ldexp(1.0, -np.clip(np.frexp(size)[1], -1000, 1000))
    mid = (low * pre + high * pre) / 2.0
    radius = np.maximum(high * pre - mid, mid - low * pre) * (1.0 + 2.0**-51)
    return pre, mid, radius, low, high


def balancing_exponent(query_norm: float, key_norm: float) -> int:
    """Return b such that query_norm * 2**b and key_norm * 2**-b are within a factor 2."""
    smallest = 2.0**-900
    return round(math.log2(max(key_norm, smallest) / max(query_norm, smallest)) / 2.0)


def _ldexp(mantissa: float, exponent: int) -> float:
    """Return mantissa * 2**exponent, infinity past the range (nothing certifies there)."""
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf
