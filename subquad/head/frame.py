"""Frame: the units of one head, fixed before any Partial or State exists, so that parts agree.

Softmax is invariant to a common shift of the keys; a shift of the queries is undone by key
weights exp(scale * centre_q . k). The centres are those of the smallest balls around the bulk of
the rows and, as a second Frame, around all rows (`sides`). Powers of two bring every input into
the middle of the floating-point range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subquad.arrays.arithmetic import Affine, Array, ldexp, namespace
from subquad.arrays.lazy import Lazy
from subquad.engine.rows import rows_of
from subquad.engine.shards import rows as shards_rows
from subquad.engine.shards.fleet import Sharded
from subquad.head.basis import measure_rotation
from subquad.head.centring import groups
from subquad.head.magnitudes import RowMagnitudes, entries_of, mean_offset
from subquad.head.sides import CentredRows, MeasuredSide, NotFiniteError

WEIGHT_RANGE = 16.0
"""Query centring is used only where its key weights stay within exp(+-16)."""


@dataclass(frozen=True)
class Frame:
    """Centres, scales and value units of one head; its methods prepare rows for the passes.

    Prepared logits are scale * (q - query centre) . (k - key centre), which differ from the true
    ones by a number of the row and, where queries are centred, by the logarithm of a weight of the
    key, `key_weights`. Rows stay where the input is; preparing them costs O(rows * columns).

    Parameters
    ----------
    query : Affine
        How queries enter: (q * in_scale - centre) * out_scale, their largest norm that of the keys.
    full_query : Affine
        How queries enter the exact path, about zero.
    full_balance : int
        Power of two by which `full_queries` are longer and `full_keys` shorter.
    key : Affine
        How keys enter.
    query_tilt : array (d,) or None
        The query centre times both out_scales, its dot product with k * in_scale - key centre a
        logit; None where queries are not centred, and then no key has a weight.
    value_pre, value_mid, value_radius : array (d_v,)
        A value enters as (v * value_pre - value_mid) / value_radius, in [-1, 1].
    value_low, value_high : array (d_v,)
        The smallest and the largest value of each column, in units of V.
    """

    query: Affine
    full_query: Affine
    full_balance: int
    key: Affine
    query_tilt: Array | None
    value_pre: Array
    value_mid: Array
    value_radius: Array
    value_low: Array
    value_high: Array

    def queries(self, Q: Array, dtype: str, balance: int = 0) -> Array:
        """Return the prepared queries.

        Parameters
        ----------
        Q : array (n, d)
            Queries as the caller passed them, all or some rows.
        dtype : {"float32", "float64"}
            The stored dtype of the compute dtype.
        balance : int, optional
            Power of two by which these are longer than the Frame says; `keys` take its negative.

        Returns
        -------
        array (n, d)
            scale * (q - query centre) * 2**balance, balanced against the keys.
        """
        return rows_of(Q).affine(Q, *self.query.balanced(balance), dtype)

    def full_queries(self, Q: Array, dtype: str) -> Array:
        """Return the queries for exact weights, about zero, where no key has a weight.

        Parameters
        ----------
        Q : array (n, d)
            Queries as the caller passed them.
        dtype : {"float32", "float64"}
            The compute dtype.

        Returns
        -------
        array (n, d)
            scale * q, balanced against `full_keys`.
        """
        side = self.full_query
        return rows_of(Q).affine(Q, side.in_scale, side.centre, side.out_scale, dtype)

    def full_keys(self, K: Array, dtype: str) -> Array:
        """Return the keys for exact weights.

        Parameters
        ----------
        K : array (m, d)
            Keys as the caller passed them.
        dtype : {"float32", "float64"}
            The compute dtype.

        Returns
        -------
        array (m, d)
            k - key centre, balanced against `full_queries`.
        """
        return self.keys(K, dtype, -self.full_balance)

    def keys(self, K: Array, dtype: str, balance: int = 0) -> Array:
        """Return the prepared keys.

        Parameters
        ----------
        K : array (m, d)
            Keys as the caller passed them, all or some rows.
        dtype : {"float32", "float64"}
            The stored dtype of the compute dtype.
        balance : int, optional
            Power of two by which these are longer than the Frame says.

        Returns
        -------
        array (m, d)
            (k - key centre) * 2**balance, balanced against the queries.
        """
        return rows_of(K).affine(K, *self.key.balanced(balance), dtype)

    def key_weights(self, K: Array) -> tuple[Array | None, int]:
        """Return what undoes the centring of the queries, a weight for each key.

        Parameters
        ----------
        K : array (m, d)
            Keys as the caller passed them, all or some rows.

        Returns
        -------
        weights : array (m,), float64, or None
            At most 1; None where the queries are not centred.
        shift : int
            exp(scale * query centre . (k - key centre)) is weights * 2**shift.
        """
        if self.query_tilt is None:
            return None, 0
        if isinstance(K, Sharded):
            return shards_rows.key_weights(K, self.key_weights)
        xp = namespace(K)
        logits = rows_of(K).row_dots(K, self.key.in_scale, self.key.centre, self.query_tilt)
        shift = math.ceil(float(xp.max(logits)) / math.log(2.0))
        return xp.exp(logits - shift * math.log(2.0)), shift

    def values(self, V: Array, weights: Array | None, dtype: str) -> Array:
        """Return the prepared values, and ones in a last column for the normaliser.

        Parameters
        ----------
        V : array (m, d_v)
            Values as the caller passed them, of the same keys as `weights`.
        weights : array (m,) or None
            From `key_weights`.
        dtype : {"float32", "float64"}
            The stored dtype of the compute dtype.

        Returns
        -------
        array (m, d_v + 1)
            [V, 1] * weights, V centred and scaled to [-1, 1]; a constant column is 0.
        """
        # A constant column has radius 0: it enters as 0 and leaves as its mid-range.
        moving = self.value_radius > 0.0
        inverse = np.where(moving, 1.0, 0.0) / np.where(moving, self.value_radius, 1.0)
        return rows_of(V).weighted_values(
            V, self.value_pre, self.value_mid, inverse, weights, dtype
        )

    def restore(self, x: Array, dtype: str, divisor: Array | None = None) -> Array:
        """Return an output in the units of V.

        Parameters
        ----------
        x : array (n, d_v), float64
            In units of value_radius, from `Partial.finish`; a numerator where `divisor` is given.
        dtype : {"float16", "float32", "float64"}
            Of the input.
        divisor : array (n,), optional
            Divides the rows of x.

        Returns
        -------
        array (n, d_v)
            mid-range + radius * x, within the range of each column, rounded once to `dtype`.
        """
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


def make_frames(
    queries: MeasuredSide,
    keys: MeasuredSide,
    units: tuple[np.ndarray, ...],
    rows: tuple[Array, Array],
    scale: float,
) -> tuple[tuple[Frame, RowMagnitudes], ...]:
    """Return the Frames of one head, with its row magnitudes in each.

    The first is about the smallest balls around the bulk of the rows; where a few rows lie far
    out, a second is about those around all rows. `rows` are Q and K, `units` those of the values.
    O(n + m), where keys are weighted O((n + m) d).
    """
    assert queries.about_zero is not None
    full, about, of_keys = queries.about_zero, queries.centred, keys.centred
    pairs = [
        (about[min(i, len(about) - 1)], of_keys[min(i, len(of_keys) - 1)])
        for i in range(max(len(about), len(of_keys)))
    ]
    return tuple(_frame(q, full, k, rows, units, scale) for q, k in pairs)


def _frame(
    query: CentredRows,
    full: CentredRows,
    key: CentredRows,
    rows: tuple[Array, Array],
    units: tuple[np.ndarray, ...],
    scale: float,
) -> tuple[Frame, RowMagnitudes]:
    """Return the balanced Frame of one choice of centres, and the magnitudes in it."""
    gain, exponent = math.frexp(scale)
    exponent -= (
        math.frexp(key.side.in_scale)[1] + math.frexp(query.side.in_scale)[1] - 2
    )  # / (pre_q pre_k)
    if 0.0 in (full.largest, key.largest):
        gain, exponent = 0.5, 1  # every logit is 0 whatever the scale
    keys_weighted = query is not full and _worth_tilting(query, full, key, gain, exponent)
    if not keys_weighted:
        query = full
    # Equal largest norms on both sides; a power of two, so that balancing rounds nothing.
    lean = balancing_exponent(key.largest, query.largest)
    half = max(-1000, min(1000, round(exponent / 2) + lean))
    key_post, query_post = ldexp(1.0, half), ldexp(gain, exponent - half)

    # One query alone is its own centre: balanced about it, the keys would vanish beside |q|.
    lean = balancing_exponent(full.largest * query_post, key.largest * key_post)
    frame = Frame(
        query.side._replace(out_scale=query_post),
        full.side._replace(out_scale=ldexp(query_post, lean)),
        lean,
        key.side._replace(out_scale=key_post),
        query.side.centre * query_post * key_post if keys_weighted else None,
        *units,
    )
    return frame, _measures(frame, query, full, key, rows)


def _measures(
    frame: Frame, query: CentredRows, full: CentredRows, key: CentredRows, rows: tuple[Array, Array]
) -> RowMagnitudes:
    """Return the magnitudes in the units of the Frame."""
    (Q, K), q_out, k_out = rows, frame.query.out_scale * (1.0 + 2.0**-50), frame.key.out_scale
    largest = query.largest * q_out, key.largest * k_out
    return RowMagnitudes(
        query,
        full,
        key,
        (q_out, k_out),
        _offset(frame, key, K),
        (Lazy(lambda: entries_of(Q, query, q_out)), Lazy(lambda: entries_of(K, key, k_out))),
        Lazy(lambda: measure_rotation(Q, K, frame.query, frame.key, *largest), None),
    )


def _offset(frame: Frame, key: CentredRows, K: Array) -> Lazy[float]:
    """Return the offset of the mean of the keys: known, but where they carry weights."""
    if frame.query_tilt is not None:
        side, largest = frame.key, key.largest
        return Lazy(lambda: mean_offset(K, side, frame.key_weights(K)[0], largest), 1.0)
    assert key.mean is not None
    away = (float(np.linalg.norm(key.mean)) + key.slack) * (1.0 + 2.0**-40)
    return Lazy.known_to_be(min(1.0, away / key.largest) if key.largest > 0.0 else 1.0)


def _worth_tilting(
    query: CentredRows, full: CentredRows, key: CentredRows, gain: float, exponent: int
) -> bool:
    """Return whether centring the queries pays: smaller largest norm, key weights in range."""
    reach = float(np.linalg.norm(query.side.centre)) * key.largest
    in_range = ldexp(reach * gain, exponent) <= WEIGHT_RANGE
    return bool(in_range and query.largest < 0.97 * full.largest)


def balancing_exponent(query_norm: float, key_norm: float) -> int:
    """Return b such that query_norm * 2**b and key_norm * 2**-b are within a factor 2."""
    smallest = 2.0**-900
    return round(math.log2(max(key_norm, smallest) / max(query_norm, smallest)) / 2.0)


def value_units(Vs: Sequence[Array]) -> list[tuple[np.ndarray, ...]]:
    """Return (in_scale, mid, radius, low, high) of the columns of each V of one shape.

    The radius is rounded up. Raises NotFiniteError.
    """
    ends = np.concatenate([rows_of(group[0]).column_ranges(group) for group in groups(Vs)])
    if not np.isfinite(ends).all():
        raise NotFiniteError
    return list(zip(*units_of(ends[:, 0], ends[:, 1]), strict=True))


def units_of(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return (in_scale, mid, radius, low, high) of columns with these ranges; radius rounded up."""
    size = np.maximum(abs(low), abs(high))
    in_scale = np.ldexp(1.0, -np.clip(np.frexp(size)[1], -1000, 1000))
    mid = (low * in_scale + high * in_scale) / 2.0
    radius = np.maximum(high * in_scale - mid, mid - low * in_scale) * (1.0 + 2.0**-51)
    return in_scale, mid, radius, low, high


def value_ratio(frame: Frame, dtype: str) -> float:
    """Return max over columns of (max|V_c| + smallest normal) / radius_c; 0 if all constant."""
    size = np.maximum(abs(frame.value_low), abs(frame.value_high))
    size = size + float(np.finfo(dtype).smallest_normal)
    moving = frame.value_radius > 0.0
    with np.errstate(over="ignore"):  # an infinite ratio is a true answer: it refuses
        ratio = size * frame.value_pre / np.where(moving, frame.value_radius, 1.0)
    return float(np.max(np.where(moving, ratio, 0.0)))
