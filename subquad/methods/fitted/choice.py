"""What a sample of rows tells of fitted polynomials before the State is made: predicted, unproved.

The same groups of queries and the same linear program as in `fitted`, on the sampled rows alone:
the share of rows whose bound will exceed the tolerance, and must go exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np

from subquad.arrays.arithmetic import OUTWARD
from subquad.bounds.rounding import polynomial_sum_error
from subquad.bounds.softmax import logit_perturbation_bound
from subquad.exp_poly.majorant import FittedPair, fit_pair
from subquad.features import feature_dimension
from subquad.head.sample import RowSample
from subquad.head.sides import OrderStatistics
from subquad.head.stats import Stats
from subquad.methods.exact import logit_error, sum_error
from subquad.methods.method import COMPUTE_DTYPES, input_error, storage_term, stored_norm_bound
from subquad.methods.polynomial.sums import LOGIT_BOUND_MIN, gammas_for

DEGREES = (2, 4, 6, 8)
GROUPS = 8
FITTED_LOGIT_BOUND_MAX = 16.0
"""Queries that may reach further go exact: no degree of DEGREES is of use there."""
LARGE_SHARES = (2.0**-10, 2.0**-7, 2.0**-5)
"""About which shares of the keys, the largest, may be left to the exact part."""
NEARLY = 1.1
"""Keys this many times smaller, or less, are as large as any."""

Pairs = dict[int, FittedPair]
_TRIED: WeakKeyDictionary[RowSample, dict[tuple[int, tuple[float, ...]], Pairs]]
_TRIED = WeakKeyDictionary()
"""By sample, degree and groups, pairs that were fitted before: each tolerance asks again."""


@dataclass(frozen=True)
class FittedParameters:
    """Degree of the State, largest norm of each group of queries.

    Keys of norm above `key_cut`, `large_keys` of them, are exact. `exact_share` is the predicted
    share of rows that go exact, `level` the bound above which they do; `run` needs neither.
    """

    degree: int
    edges: tuple[float, ...]
    dtype: str
    r: int
    exact_share: float
    level: float
    key_cut: float = math.inf
    large_keys: int = 0

    def __str__(self) -> str:
        groups = f"{len(self.edges)} group{'s' if len(self.edges) > 1 else ''} of rows"
        share = (
            "every row exact"
            if self.exact_share >= 1.0
            else (f"about {100.0 * self.exact_share:.2g} % of rows exact")
        )
        large = f"{self.large_keys:,} keys exact, " if self.large_keys else ""
        return f"degree {self.degree}, r {self.r:,}, {groups}, {large}{share}, {self.dtype}"


def key_cuts(keys: OrderStatistics) -> list[tuple[float, int]]:
    """Return (largest norm left to the polynomial, keys above it): none above, then more.

    A cut is moved up over keys of nearly the same norm, so it lies under a gap where there is one.
    """
    cuts = [(math.inf, 0)]
    for share in LARGE_SHARES:
        place = min(int(np.searchsorted(keys.ranks, share * keys.count)), keys.ranks.size - 1)
        place = int(np.searchsorted(-keys.values, -NEARLY * keys.values[place]))
        cut = float(keys.values[place]), int(keys.ranks[place])
        if cut[1] > cuts[-1][1]:
            cuts.append(cut)
    return cuts


def blank_parameters(
    stats: Stats, degree: int, tol: float, cut: tuple[float, int]
) -> FittedParameters:
    """Return the parameters of a degree and a cut, every row gone exact, in float64."""
    ranks, values = stats.query_norms.ranks, stats.query_norms.values
    low = min(int(np.searchsorted(ranks, 0.9 * (stats.n - 1))), ranks.size - 1)
    edges = group_edges(
        stats.query_norms.largest, float(values[low]), min(cut[0], stats.key_norms.largest)
    )
    r = feature_dimension(stats.d, degree)
    return FittedParameters(degree, edges, "float64", r, 1.0, tol, *cut)


def predicted(
    stats: Stats, degree: int, tol: float, cut: tuple[float, int] = (math.inf, 0)
) -> Iterator[FittedParameters]:
    """Yield the parameters of a degree in each dtype, the share of exact rows predicted."""
    assert stats.sample is not None
    blank = blank_parameters(stats, degree, tol, cut)
    if not blank.edges:
        return
    sample, key_norm = stats.sample(cut[0]), min(cut[0], stats.key_norms.largest)
    group = np.searchsorted(np.asarray(blank.edges), sample.norms)
    known = _TRIED.setdefault(sample, {})
    if (degree, blank.edges) not in known:
        known[degree, blank.edges] = _trial_pairs(sample, degree, blank.edges, group, key_norm)
    found = known[degree, blank.edges]
    for dtype in COMPUTE_DTYPES:
        kept = 0.0
        beside = (logit_error(stats, dtype), sum_error(stats.m, dtype)) if cut[1] else (0.0, 0.0)
        for i, pair in found.items():
            bounds = _trial_bounds(stats, sample, group == i, pair, dtype, beside)
            kept += float(sample.shares[group == i][bounds <= tol].sum())
        yield replace(blank, dtype=dtype, exact_share=max(0.0, 1.0 - kept))


def group_edges(largest: float, low: float, key_norm: float) -> tuple[float, ...]:
    """Return the largest norm of each group, increasing: from `low` up, in equal ratios.

    None beyond what FITTED_LOGIT_BOUND_MAX allows; empty where hardly a query is within.
    """
    most = FITTED_LOGIT_BOUND_MAX / (key_norm * (1.0 + 2.0**-16)) if key_norm > 0.0 else math.inf
    top = min(largest, most)
    if not low <= most:
        return ()
    if not low < top * (1.0 - 2.0**-10):
        return (float(top),)
    edges = np.geomspace(max(low, top / 64.0), top, GROUPS)
    edges[-1] = top
    return tuple(float(edge) for edge in edges)


def _trial_pairs(
    sample: RowSample, degree: int, edges: tuple[float, ...], group: np.ndarray, key_norm: float
) -> dict[int, FittedPair]:
    """Return a pair for each group that has sampled rows, fitted to them."""
    return {
        int(i): fit_pair(
            degree,
            reach(edges[i], key_norm, "float32"),
            sample.sums[group == i, : degree + 1],
            rounds=1,
        )
        for i in np.unique(group[group < len(edges)])
    }


def _trial_bounds(
    stats: Stats,
    sample: RowSample,
    rows: np.ndarray,
    pair: FittedPair,
    dtype: str,
    beside: tuple[float, float],
) -> np.ndarray:
    """Return the bounds predicted for some sampled rows, all Terms together.

    What the large keys add to the normaliser is left out; `beside` is what they add to the error
    of a logit and, relative to the normaliser, of the sums.
    """
    size, b = pair.degree + 1, pair.logit_bound
    sums, moments = sample.sums[rows, :size], sample.norm_moments[:size]
    gammas = gammas_for(stats.d, stats.m, pair.degree, dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # not a number: the row goes exact
        rho, extra = (
            polynomial_sum_error(c, sample.norms[rows], moments, gammas)
            for c in (pair.polynomial, pair.majorant)
        )
    normaliser = sums @ pair.polynomial
    safe = np.where(normaliser > rho, normaliser - rho, np.nan)
    perturbation = max(input_error(b, stats.d, dtype, stats.keys_weighted), beside[0])
    bounds = (2.0 * (sums @ pair.majorant + extra / 2.0) + rho) / safe + beside[1]
    bounds += float(logit_perturbation_bound(perturbation))
    return bounds + float(storage_term(stats, dtype).value)


def reach(query_norm: float, key_norm: float, dtype: str) -> float:
    """Return an upper bound of the logits of prepared rows, at least LOGIT_BOUND_MIN."""
    return max(float(stored_norm_bound(query_norm * key_norm * OUTWARD, dtype)), LOGIT_BOUND_MIN)
