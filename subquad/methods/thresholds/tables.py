"""What the search for cuts reads: degrees and their reach, places for cuts, counts, prices.

One target eps holds for all cells (the ratio of a merge is the largest), so the queries that
degree g reaches in a bucket are those with |q| |k| <= B_g, B_g the largest logit bound within eps
and k the bucket's largest key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from subquad.arrays.formats import FORMATS
from subquad.cost.rates import Rates, Work
from subquad.cost.steps import NONE, Overhead, more_passes
from subquad.engine import KEY_TILE
from subquad.exp_poly.degree import reachable_logit_bound
from subquad.features import feature_dimension
from subquad.head.sides import OrderStatistics
from subquad.head.stats import Stats
from subquad.methods.polynomial.sums import LOGIT_BOUND_MIN
from subquad.methods.thresholds.accounts import merge_elements
from subquad.methods.thresholds.division import magnitudes

CUTS = 64
"""Most places at which the search may cut the keys."""
OWN_CENTRE = 0.97
"""Share of the common radius that a bucket's own must be below to be worth a centre of its own."""


def sum_limit(share: float, dtype: str) -> float:
    """Return the logit bound past which the rounding of sums alone exceeds `share` of 1."""
    room = share / (4.0 * KEY_TILE * FORMATS[dtype].u)
    return math.log(room) if room > 1.0 else 0.0


@dataclass(frozen=True)
class DegreeLadder:
    """Degrees worth trying, their features, and the largest logit that each may see."""

    degrees: np.ndarray
    r: np.ndarray
    reach: np.ndarray

    @classmethod
    def of(cls, stats: Stats, eps: float, limit: float) -> DegreeLadder:
        """Return the degrees up to the first that reaches `limit` or costs more than exact."""
        steps = list(_steps(stats, eps, limit))
        degrees, r, reach = zip(*steps, strict=True) if steps else ((), (), ())
        return cls(np.array(degrees, dtype=int), np.array(r, dtype=float), np.array(reach))


def _steps(stats: Stats, eps: float, limit: float) -> Iterator[tuple[int, int, float]]:
    for degree in range(40):
        r = feature_dimension(stats.d, degree)
        if r > stats.n + stats.m:  # dearer than exact whatever the cuts
            return
        b = reachable_logit_bound(degree, eps, LOGIT_BOUND_MIN)
        if b > LOGIT_BOUND_MIN:
            yield degree, r, min(b, limit)
        if b >= limit:
            return


@dataclass(frozen=True)
class CutPlaces:
    """Where keys may be cut, largest first: bucket (i, j) holds those of places i to j.

    `edges[i]` is the largest magnitude from place i on, `starts[i]` the number of keys before;
    `heights[i, j]` bounds the magnitude within the bucket, about its own centre where `own`;
    both have one column where j makes no difference.
    """

    edges: np.ndarray
    starts: np.ndarray
    heights: np.ndarray
    own: np.ndarray

    @classmethod
    def of(cls, stats: Stats, criterion: str) -> CutPlaces:
        """Return places spread over the known ranks, one centre for all."""
        keys = magnitudes(stats, criterion)[1]
        at = np.unique(np.linspace(0, keys.ranks.size - 1, CUTS).astype(int))
        edges = keys.values[at]
        none = np.zeros((at.size, 1), dtype=bool)
        return cls(edges, keys.ranks[at].astype(float), edges[:, None], none)

    @classmethod
    def shells(cls, stats: Stats) -> CutPlaces:
        """Return the places of the table of shells, own centres where they are of use."""
        assert stats.shells is not None
        table = stats.shells()
        edges = np.array(table.edges[:-1])
        edges[0] = stats.key_norms.largest
        starts = [0.0, *(float(stats.key_norms.count_above(e)) for e in edges[1:])]
        size = edges.size
        heights, own = np.ones((size, size)), np.zeros((size, size), dtype=bool)
        for i, j in zip(*np.triu_indices(size), strict=True):
            radius = table.shells[table.edges[j + 1], table.edges[i]].radius
            own[i, j] = radius < OWN_CENTRE * edges[i]
            heights[i, j] = radius if own[i, j] else edges[i]
        return cls(edges, np.array(starts), heights, own)


def counts_above(queries: OrderStatistics, reach: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return an upper bound of how many queries times `heights` exceed `reach`, elementwise."""
    wanted = reach / np.maximum(heights, 1e-300)
    place = np.searchsorted(-queries.values, -wanted)
    return np.append(queries.ranks, queries.count)[place].astype(float)


def prices_of(stats: Stats, dtype: str, rates: Rates) -> tuple[float, float, float]:
    """Return the seconds of a pair, of a feature of a token, and of one bucket more.

    A bucket more is a merge, and three passes: its State, a cell, the exact rows.
    """

    def seconds(pairs: float, tokens: float, elements: float, calls: Overhead) -> float:
        return rates.seconds(Work(pairs, tokens, elements, stats.d, stats.d_v, dtype, calls=calls))

    zero = seconds(0.0, 0.0, 0.0, NONE)
    return (
        (seconds(1e9, 0.0, 0.0, NONE) - zero) * 1e-9,
        (seconds(0.0, 1e9, 0.0, NONE) - zero) * 1e-9,
        seconds(0.0, 0.0, merge_elements(stats), more_passes(3)) - zero,
    )


def cell_seconds(stats: Stats, dtype: str, rates: Rates) -> float:
    """Return the seconds of one cell more: a pass."""
    work = Work(0.0, 0.0, 0.0, stats.d, stats.d_v, dtype)
    return rates.seconds(replace(work, calls=more_passes(1))) - rates.seconds(work)
