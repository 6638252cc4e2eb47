"""What a sample of rows tells of fitted polynomials before the State is made: predicted, unproved.

The same groups of queries and the same linear program as in `fitted`, on the sampled rows alone:
the share of rows whose bound will exceed the tolerance, and must go exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from subquad.arrays import OUTWARD
from subquad.bounds.rounding import polynomial_sum_error
from subquad.bounds.softmax import logit_perturbation_bound
from subquad.exp_poly.fitted import FittedPair, fit_pair
from subquad.features import feature_dimension
from subquad.methods.method import COMPUTE_DTYPES, input_error, storage_term, widened
from subquad.methods.polynomial import LOGIT_BOUND_MIN, gammas_for
from subquad.stats import RowSample, Stats

DEGREES = (2, 4, 6, 8)
GROUPS = 8
LOGIT_BOUND_MAX = 16.0
"""Queries that may reach further go exact: no degree of DEGREES is of use there."""


@dataclass(frozen=True)
class FittedParameters:
    """Degree of the State (0: none, every row exact), largest norm of each group of queries.

    `exact_share` is the predicted share of rows that go exact, `level` the bound above which they
    do; `run` needs neither.
    """

    degree: int
    edges: tuple[float, ...]
    dtype: str
    r: int
    exact_share: float
    level: float

    def __str__(self) -> str:
        if self.degree == 0:
            return f"every row exact, {self.dtype}"
        share = f"about {100.0 * self.exact_share:.2g} % of rows exact"
        groups = f"{len(self.edges)} group{'s' if len(self.edges) > 1 else ''} of rows"
        return f"degree {self.degree}, r {self.r:,}, {groups}, {share}, {self.dtype}"


def predicted(stats: Stats, degree: int, tol: float) -> Iterator[FittedParameters]:
    """Yield the parameters of a degree in each dtype, the share of exact rows predicted."""
    assert stats.sample is not None
    sample, key_norm = stats.sample(), stats.key_norms.largest
    edges = group_edges(sample.norms[0], sample.low_norm, key_norm)
    if not edges:
        return
    group = np.searchsorted(np.asarray(edges), sample.norms)
    found = sample.known.get((degree, edges))
    if found is None:
        found = sample.known[degree, edges] = _trial_pairs(sample, degree, edges, group, key_norm)
    for dtype in COMPUTE_DTYPES:
        share = float(sample.shares[group == len(edges)].sum())
        for i, pair in found.items():
            bounds = _trial_bounds(stats, sample, group == i, pair, dtype)
            share += float(sample.shares[group == i][~(bounds <= tol)].sum())
        r = feature_dimension(stats.d, degree)
        yield FittedParameters(degree, edges, dtype, r, min(share, 1.0), tol)


def group_edges(largest: float, low: float, key_norm: float) -> tuple[float, ...]:
    """Return the largest norm of each group, increasing: from `low` up, in equal ratios.

    None beyond what LOGIT_BOUND_MAX allows; empty where hardly a query is within.
    """
    most = LOGIT_BOUND_MAX / (key_norm * (1.0 + 2.0**-16)) if key_norm > 0.0 else math.inf
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
            degree, reach(edges[i], key_norm, "float32"), sample.sums[group == i, : degree + 1],
            rounds=1,
        )
        for i in np.unique(group[group < len(edges)])
    }  # fmt: skip


def _trial_bounds(
    stats: Stats, sample: RowSample, rows: np.ndarray, pair: FittedPair, dtype: str
) -> np.ndarray:
    """Return the bounds predicted for some sampled rows, all Terms together."""
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
    perturbation = input_error(b, stats.d, dtype, stats.tilted)
    bounds = (2.0 * (sums @ pair.majorant + extra / 2.0) + rho) / safe
    bounds += float(logit_perturbation_bound(perturbation))
    return bounds + float(storage_term(stats, dtype).value)


def reach(query_norm: float, key_norm: float, dtype: str) -> float:
    """Return an upper bound of the logits of prepared rows, at least LOGIT_BOUND_MIN."""
    return max(float(widened(query_norm * key_norm * OUTWARD, dtype)), LOGIT_BOUND_MIN)
