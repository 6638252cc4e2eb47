"""Splits of rows and keys at a threshold each: what one is, and which are worth proving.

Estimates only: what a split certifies is found by `support_basis`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from subquad.arrays.arithmetic import product_up
from subquad.bounds.softmax import ratio_bound, ratio_bound_inverse
from subquad.cost.rates import Rates, Work
from subquad.exp_poly import estimate_error
from subquad.exp_poly.degree import estimated_degree, reachable_logit_bound
from subquad.features import feature_dimension
from subquad.head.stats import Stats
from subquad.methods.method import COMPUTE_DTYPES, DEGREES_OF, stored_norm_bound
from subquad.methods.polynomial.sums import (
    LOGIT_BOUND_MAX,
    LOGIT_BOUND_MIN,
    PolynomialParameters,
    least_rounding,
    parameters_for,
)
from subquad.methods.thresholds.division import magnitudes


@dataclass(frozen=True)
class SplitParameters:
    """Thresholds on the magnitudes of prepared rows, the counts above them, the polynomial."""

    criterion: str
    query_threshold: float
    key_threshold: float
    large_queries: int
    large_keys: int
    small: PolynomialParameters

    def __str__(self) -> str:
        if self.small.degree == 0 and self.small.logit_bound == LOGIT_BOUND_MIN:
            return f"by {self.criterion}, every pair exact, {self.small.dtype}"
        large = f"{self.large_queries:,} rows and {self.large_keys:,} keys exact"
        return f"by {self.criterion}, {large}, {self.small}"


def plausible(p: SplitParameters, tol: float) -> bool:
    """Return False where a proof is hopeless by estimates, without computing the polynomial."""
    b = p.small.logit_bound
    if b <= LOGIT_BOUND_MIN:
        return True
    truncation = float(ratio_bound(min(0.9 * estimate_error(p.small.degree, b), 1.0)))
    return truncation + least_rounding(b, p.small.dtype) <= tol


def small_logit_bound(stats: Stats, p: SplitParameters) -> float:
    """Return the largest logit of a small row and a small key."""
    queries, keys, factor = magnitudes(stats, p.criterion)
    return product_up(
        factor, min(p.query_threshold, queries.largest), min(p.key_threshold, keys.largest)
    )


def small_offset(stats: Stats, p: SplitParameters, keys: int) -> float:
    """Return |mean of the small keys| over their largest norm, rounded up, at most 1."""
    if stats.keys_weighted:
        return 1.0
    radius = p.key_threshold * (1.0 if p.criterion == "norm" else math.sqrt(stats.d))
    radius = min(radius, stats.key_norms.largest)
    moved = stats.m * stats.key_offset * stats.key_norms.largest
    moved += stats.key_norms.sum_of_largest(p.large_keys)
    return min(1.0, moved / (keys * radius) * (1.0 + 2.0**-40)) if radius > 0.0 else 1.0


def cheapest_splits(
    stats: Stats, eps: float, criterion: str, dtype: str, rates: Rates
) -> Iterator[SplitParameters]:
    """Yield, degree by degree, the pair of thresholds of least predicted cost."""
    queries, keys, factor = magnitudes(stats, criterion)
    for degree in (k for k in range(1, 40) if k in DEGREES_OF[dtype]):
        r = feature_dimension(stats.d, degree)
        if r > stats.n + stats.m:  # dearer than exact whatever the thresholds
            return
        reach = reachable_logit_bound(degree, eps, LOGIT_BOUND_MIN) / (factor * (1.0 + 2.0**-18))
        wanted = reach / np.maximum(queries.values, 1e-300)
        place = np.searchsorted(-keys.values, -wanted)  # first key magnitude <= wanted
        possible = place < keys.values.size
        if not possible.any():
            continue
        a, place = queries.ranks[possible], place[possible]
        b = keys.ranks[place]
        zero = rates.seconds(Work(0.0, 0.0, 0.0, stats.d, stats.d_v, dtype))
        pair = rates.seconds(Work(1e9, 0.0, 0.0, stats.d, stats.d_v, dtype)) - zero
        token = rates.seconds(Work(0.0, 1e9, 0.0, stats.d, stats.d_v, dtype)) - zero
        cost = pair * (a * float(stats.m) + (stats.n - a) * b)
        best = int(np.argmin(cost + token * r * (stats.n - a + stats.m - b)))
        yield _parameters(
            stats,
            criterion,
            dtype,
            degree,
            float(queries.values[possible][best]),
            float(keys.values[place[best]]),
            int(a[best]),
            int(b[best]),
        )


def _parameters(
    stats: Stats, criterion: str, dtype: str, degree: int, t_q: float, t_k: float, a: int, b: int
) -> SplitParameters:
    blank = parameters_for(degree, LOGIT_BOUND_MIN, dtype, stats.d)
    split = SplitParameters(criterion, t_q, t_k, a, b, blank)
    logit_bound = max(stored_norm_bound(small_logit_bound(stats, split), dtype), LOGIT_BOUND_MIN)
    return replace(split, small=replace(blank, logit_bound=logit_bound))


def all_exact(stats: Stats, criterion: str, dtype: str) -> SplitParameters:
    """Return the split in which every row is large: it certifies wherever `exact` does."""
    small = parameters_for(0, LOGIT_BOUND_MIN, dtype, stats.d)
    return SplitParameters(criterion, -1.0, -1.0, stats.n, stats.m, small)


def fixed_split(
    stats: Stats, criterion: str, threshold: float, dtype: str = "float64", degree: int = 0
) -> SplitParameters:
    """Return the split at the caller's threshold."""
    queries, keys, _ = magnitudes(stats, criterion)
    t_q = queries.lowered(threshold * stats.query_unit)
    t_k = keys.lowered(threshold * stats.key_unit)
    a, b = queries.count_above(t_q), keys.count_above(t_k)
    if a < stats.n and b < stats.m:
        return _parameters(stats, criterion, dtype, degree, t_q, t_k, a, b)
    return replace(
        all_exact(stats, criterion, dtype),
        query_threshold=t_q,
        key_threshold=t_k,
        large_queries=a,
        large_keys=b,
    )


def fixed_splits(
    stats: Stats, tol: float, criterion: str, dtype: str, threshold: float
) -> Iterator[SplitParameters]:
    """Yield the splits at the caller's threshold, of the degrees that may do."""
    split = fixed_split(stats, criterion, threshold, dtype)
    if split.large_queries == stats.n or split.large_keys == stats.m:
        if dtype in COMPUTE_DTYPES:  # no operand is made where every pair is exact
            yield split
    elif split.small.logit_bound <= LOGIT_BOUND_MAX:
        start = estimated_degree(split.small.logit_bound, ratio_bound_inverse(tol))
        for degree in (k for k in range(start, start + 4) if k in DEGREES_OF[dtype]):
            yield fixed_split(stats, criterion, threshold, dtype, degree)
