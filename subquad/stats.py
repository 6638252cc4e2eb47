"""Stats: what the planner knows of one head, numbers only, never an array of the input's size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import array_api_compat
import numpy as np

from subquad.arrays import Array, namespace, product_up
from subquad.engine.rotate import Rotation
from subquad.engine.threads import parallel_map
from subquad.frame import Frame, Measures

EXACT_RANKS = 64
RANK_RATIO = 1.05
SAMPLED_LARGEST, SAMPLED_SPREAD, SAMPLED_KEYS = 32, 96, 4096
SAMPLED_DEGREE = 8


@dataclass(frozen=True)
class OrderStatistics:
    """The largest magnitudes of a set of rows: ranks 0..63, then geometric, then the last.

    `values[i]` bounds the magnitude of every row but the `ranks[i]` largest.
    """

    count: int
    ranks: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, magnitudes: np.ndarray) -> OrderStatistics:
        """Return the order statistics of magnitudes (n,), all of which are kept if n <= 64."""
        count = magnitudes.size
        steps = np.arange(max(0.0, math.log(max(count, 1) / EXACT_RANKS) / math.log(RANK_RATIO)))
        spread = (EXACT_RANKS * RANK_RATIO**steps).astype(np.int64)
        ranks = np.unique(np.concatenate([np.arange(EXACT_RANKS), spread, [count - 1]]))
        ranks = ranks[ranks < count]
        return cls(count, ranks, np.sort(magnitudes)[::-1][ranks])

    @classmethod
    def constant(cls, count: int, value: float) -> OrderStatistics:
        """Return the statistics of `count` rows of which only the largest magnitude is known."""
        return cls(count, np.array([0]), np.array([value]))

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return float(self.values[0])

    def count_above(self, threshold: float) -> int:
        """Return an upper bound of the number of rows of magnitude above `threshold`."""
        place = int(np.searchsorted(-self.values, -threshold))  # first value <= threshold
        return int(self.ranks[place]) if place < self.ranks.size else self.count

    def lowered(self, threshold: float) -> float:
        """Return the least known threshold that leaves the same rows above it."""
        place = int(np.searchsorted(-self.values, -threshold))
        if place == self.ranks.size:
            return threshold
        known = place == 0 or self.ranks[place] == self.ranks[place - 1] + 1
        return float(self.values[place]) if known else threshold

    def sum_of_largest(self, count: int) -> float:
        """Return an upper bound of the sum of the `count` largest magnitudes."""
        ends = np.minimum(np.append(self.ranks[1:], self.count), count)
        return float(np.sum(self.values * np.maximum(ends - self.ranks, 0)))

    def scaled_to(self, count: int) -> OrderStatistics:
        """Return the statistics of `count` rows of the same distribution and the same largest."""
        ranks = np.round(self.ranks * (count / self.count)).astype(np.int64)
        return OrderStatistics(count, ranks, self.values)


@dataclass(frozen=True)
class Stats:
    """Sizes and proved magnitudes of one head, in the prepared units of its Frame.

    Attributes
    ----------
    n, m, d, d_v : int
        Queries, keys, head dimension, columns of V.
    dtype : str
        Of the input and of the output.
    query_norms, key_norms, query_entries, key_entries : OrderStatistics
        About the centres; a logit is at most the product of two norms, or d times that of two
        largest entries.
    full_query_norm : float
        Largest |scale * q|, about zero: bounds the logits of the exact path.
    key_offset : float
        |weighted mean of the keys| / largest key norm, at most 1.
    tilted : bool
        Whether queries are centred and the keys carry weights.
    value_ratio : float
        max|V| / value_radius over columns, the cost of storing the output.
    query_unit, key_unit : float
        What a magnitude of 1 in the units of the input is in prepared units.
    magnitudes_known : bool
        False where only the largest magnitudes are known.
    sample : callable, optional
        Returns the RowSample, made at the first call; None where there are no data.
    rotation : Rotation, optional
        A basis with the second moments and the largest entry of each coordinate in it.
    """

    n: int
    m: int
    d: int
    d_v: int
    dtype: str
    query_norms: OrderStatistics
    key_norms: OrderStatistics
    query_entries: OrderStatistics
    key_entries: OrderStatistics
    full_query_norm: float
    key_offset: float
    tilted: bool
    value_ratio: float
    query_unit: float = 1.0
    key_unit: float = 1.0
    magnitudes_known: bool = True
    sample: Callable[[], RowSample] | None = None
    rotation: Rotation | None = None

    @property
    def logit_bound(self) -> float:
        """The largest |logit| about the centres, by norms."""
        return product_up(self.query_norms.largest, self.key_norms.largest)

    @property
    def entry_logit_bound(self) -> float:
        """The largest |logit| about the centres, by entries: never the smaller bound by much."""
        return product_up(self.d, self.query_entries.largest, self.key_entries.largest)

    @property
    def full_logit_bound(self) -> float:
        """The largest |logit| of the exact path, which does not centre the queries."""
        return product_up(self.full_query_norm, self.key_norms.largest)

    def with_length(self, n: int) -> Stats:
        """Return the Stats of n queries and n * m / n keys of the same distribution and bounds."""
        m = max(1, round(self.m * (n / self.n)))
        return replace(
            self, n=n, m=m,
            query_norms=self.query_norms.scaled_to(n), key_norms=self.key_norms.scaled_to(m),
            query_entries=self.query_entries.scaled_to(n),
            key_entries=self.key_entries.scaled_to(m),
        )  # fmt: skip


def stats_of(frame: Frame, rows: Measures, dtype: str, d: int, d_v: int) -> Stats:
    """Return the Stats of one head from its Frame and row magnitudes."""
    query_norms, key_norms, query_entries, key_entries = parallel_map(
        OrderStatistics.of,
        (rows.query_norms, rows.key_norms, rows.query_entries, rows.key_entries),
    )
    return Stats(
        n=rows.query_norms.size, m=rows.key_norms.size, d=d, d_v=d_v, dtype=dtype,
        query_norms=query_norms, key_norms=key_norms,
        query_entries=query_entries, key_entries=key_entries,
        full_query_norm=float(rows.full_query_norms.max()),
        key_offset=rows.key_offset,
        tilted=frame.query_tilt is not None,
        value_ratio=frame.value_ratio(dtype),
        query_unit=frame.query.pre * frame.query.post,
        key_unit=frame.key.pre * frame.key.post,
        rotation=rows.rotation,
    )  # fmt: skip


def stats_without_data(
    n: int, m: int, d: int, d_v: int, logit_bound: float, dtype: str
) -> Stats:
    """Return the Stats of a head of which only the sizes and the logit bound are known.

    Values are taken as centred (max|V| = value_radius) and the keys as centred at any point.
    """
    root = math.sqrt(logit_bound) * (1.0 + 2.0**-52)
    queries, keys = OrderStatistics.constant(n, root), OrderStatistics.constant(m, root)
    return Stats(
        n=n, m=m, d=d, d_v=d_v, dtype=dtype,
        query_norms=queries, key_norms=keys, query_entries=queries, key_entries=keys,
        full_query_norm=root, key_offset=1.0, tilted=False, value_ratio=1.0,
        magnitudes_known=False,
    )  # fmt: skip


@dataclass(frozen=True)
class RowSample:
    """Some queries and their sums by degree over some keys: to predict with, never to prove.

    Attributes
    ----------
    norms : array (rows,)
        Of the queries, about the centre, decreasing.
    shares : array (rows,)
        Share of all queries that each stands for; they sum to 1.
    sums : array (rows, SAMPLED_DEGREE + 1)
        sum_j w_j x_j^k over sum_j w_j, x_j the logits about the centres.
    norm_moments : array (SAMPLED_DEGREE + 1,)
        sum_j w_j |k_j|^k over sum_j w_j.
    low_norm : float
        Nine queries in ten are at least that large.
    known : dict
        What was computed from this sample, for whoever computes it.
    """

    norms: np.ndarray
    shares: np.ndarray
    sums: np.ndarray
    norm_moments: np.ndarray
    low_norm: float
    known: dict = field(default_factory=dict, repr=False, compare=False)


class SampleOnce:
    """Calls `row_sample` when first called, keeps the answer and lets go of the arrays."""

    def __init__(self, Q: Array, K: Array, frame: Frame, rows: Measures) -> None:
        self._arguments: tuple | None = (Q, K, frame, rows)
        self._found: RowSample | None = None

    def __call__(self) -> RowSample:
        """Return the sample."""
        if self._found is None:
            assert self._arguments is not None
            self._found, self._arguments = row_sample(*self._arguments), None
        return self._found


def row_sample(Q: Array, K: Array, frame: Frame, rows: Measures) -> RowSample:
    """Return the sample: the largest queries, others spread over the norms, every so many keys.

    128 rows against 4,096 keys: some 20 ms at d = 64, whatever n and m.
    """
    xp = namespace(Q)
    order = np.argsort(-rows.query_norms)
    n = order.size
    spread = np.linspace(SAMPLED_LARGEST, n - 1, SAMPLED_SPREAD).astype(np.int64)
    largest = np.arange(min(SAMPLED_LARGEST, n))
    ranks = np.unique(np.concatenate([largest, np.minimum(spread, n - 1)]))
    ends = np.append((ranks[1:] + ranks[:-1] + 1) // 2, n)
    keys = xp.take(K, xp.arange(0, K.shape[0], -(-K.shape[0] // SAMPLED_KEYS)), axis=0)
    weights, _ = frame.key_weights(keys)
    q, k, w = (
        np.asarray(array_api_compat.to_device(x, "cpu")) for x in (
            frame.queries(xp.take(Q, xp.asarray(order[ranks]), axis=0), "float64"),
            frame.keys(keys, "float64"),
            xp.ones(keys.shape[0], dtype=xp.float64) if weights is None else weights,
        )
    )  # fmt: skip
    w = w / w.sum()
    sums, moments = (np.ones((x, SAMPLED_DEGREE + 1)) for x in (ranks.size, 1))
    with np.errstate(over="ignore", invalid="ignore"):
        logits, norms = q @ k.T, np.linalg.norm(k, axis=1)
        power, norm_power = np.ones_like(logits), np.ones_like(norms)
        for degree in range(1, SAMPLED_DEGREE + 1):
            power *= logits
            norm_power *= norms
            sums[:, degree], moments[0, degree] = power @ w, norm_power @ w
    return RowSample(
        rows.query_norms[order[ranks]], np.diff(np.append(0, ends)) / n, sums, moments[0],
        float(rows.query_norms[order[(9 * (n - 1)) // 10]]),
    )  # fmt: skip
