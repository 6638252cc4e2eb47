"""Attention with large rows and keys exact and the rest by polynomial: one threshold.

Theorem (Aliakbarpour, Braverman, Yin, Zhang 2025, single threshold; masks of rows and keys as
parts of disjoint support, claim `support-split`): the keys of a row fall into large ones, summed
exactly, and small ones, whose logits are at most B = threshold_q * threshold_k by norms (or d
times that by entries, the paper's criterion) and are summed by `polynomial`; large rows attend
exactly to all keys. The parts merge as Partials; no matrix of ones is subtracted. Cost
O((a m + n b) d + (n + m) r d_v) for a large rows and b large keys. Sibling: `exact`, `polynomial`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import array_api_compat
import numpy as np

from subquad.arguments import check_real
from subquad.arrays import product_up
from subquad.bounds.softmax import ratio_bound, ratio_bound_inverse
from subquad.certificate import Term
from subquad.cost import Rates, Work
from subquad.exp_poly import estimate_error
from subquad.features import feature_dimension
from subquad.methods.buckets import magnitudes
from subquad.methods.exact import exact_partial, logit_error, sum_error
from subquad.methods.method import (
    COMPUTE_DTYPES,
    Proposal,
    Refusal,
    a_priori_terms,
    beaten,
    cheapest_dtypes,
    input_error,
    widened,
)
from subquad.methods.polynomial import (
    LOGIT_BOUND_MAX,
    LOGIT_BOUND_MIN,
    PolynomialParameters,
    certify_part,
    least_rounding,
    parameters_for,
    passes_bytes,
    polynomial_partial,
    relative_sums,
    smallest_degree,
)
from subquad.partial import Partial, join_rows
from subquad.problem import Head
from subquad.stats import Stats

CRITERIA = ("norm", "entry")
ROOM = (1.0, 0.97, 0.85, 0.5)
"""Shares of the tolerance tried for truncation; the rest is left to rounding."""


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


class SupportBasis:
    """Single-threshold support basis.

    Parameters
    ----------
    criterion : {"norm", "entry"}, optional
        Magnitude of a row: its norm, or its largest entry as in the paper; None tries both.
    threshold : float, optional
        Rows of Q and K above it (about their centres, in the units of the input) are large;
        None lets the cost model choose, separately for queries and keys.
    """

    name = "support_basis"
    search = 2e-3

    def __init__(self, *, criterion: str | None = None, threshold: float | None = None) -> None:
        if criterion is not None and criterion not in CRITERIA:
            msg = f"`criterion` is {criterion!r}; the criteria are {', '.join(CRITERIA)}."
            raise ValueError(msg)
        if threshold is not None and not check_real("threshold", threshold) >= 0.0:
            msg = f"`threshold` is {threshold:g}; it must be a number of at least 0."
            raise ValueError(msg)
        self.criteria = CRITERIA if criterion is None else (criterion,)
        self.threshold = threshold

    def fit(
        self, stats: Stats, tol: float, rates: Rates, budget: float = math.inf
    ) -> Iterator[Proposal | Refusal]:
        """Yield, for each criterion, the cheapest certified split or why there is none."""
        for criterion in self.criteria:
            if not stats.magnitudes_known:
                yield Refusal(self, f"by {criterion}", "needs the rows' magnitudes: give data")
            elif criterion == "entry" and "norm" in self.criteria and budget < math.inf:
                # The thresholds times sqrt(d) bound norms: no more rows, the same logits.
                yield Refusal(self, "by entry", "costs at least as much as by norm")
            else:
                yield self._best(stats, tol, criterion, rates, budget)

    def _best(
        self, stats: Stats, tol: float, criterion: str, rates: Rates, budget: float
    ) -> Proposal | Refusal:
        """Return the cheapest certified split by one criterion, or why there is none."""
        if budget < math.inf and self.threshold is None:
            least = self._least(stats, tol, criterion, rates)
            if least >= budget:
                return beaten(self, f"by {criterion}", least, budget)
        best_bound = math.inf
        for p in self._by_cost(stats, tol, criterion, rates):
            if not _plausible(stats, p, tol):
                continue
            proposal = Proposal(self, p, self.certify(stats, p), self.work(stats, p))
            best_bound = min(best_bound, proposal.bound)
            if proposal.bound <= tol:
                return proposal
        return Refusal(self, f"by {criterion}", self._why(stats, criterion), best_bound)

    def _least(self, stats: Stats, tol: float, criterion: str, rates: Rates) -> float:
        """Return the seconds of the cheapest split were rounding nothing, by estimates."""
        eps = ratio_bound_inverse(tol)
        return min(
            (rates.seconds(self.work(stats, p)) for dtype in cheapest_dtypes(rates)
             for p in _cheapest_splits(stats, eps, criterion, dtype, rates)), default=math.inf
        )  # fmt: skip

    def _why(self, stats: Stats, criterion: str) -> str:
        """Return why no split certifies."""
        if self.threshold is None:
            return "no threshold certifies: rounding of the exact part leaves no room"
        left = _small_logit_bound(stats, _fixed_split(stats, criterion, self.threshold))
        return f"the given threshold leaves logits up to {left:.3g} to the polynomial"

    def _by_cost(
        self, stats: Stats, tol: float, criterion: str, rates: Rates
    ) -> list[SplitParameters]:
        """Return the splits worth proving, the cheapest first."""
        splits = []
        for dtype in COMPUTE_DTYPES:
            if self.threshold is not None:
                splits += list(_fixed(stats, tol, criterion, dtype, self.threshold))
                continue
            for room in ROOM:
                eps = ratio_bound_inverse(room * tol)
                splits += list(_cheapest_splits(stats, eps, criterion, dtype, rates))
            splits.append(_all_exact(stats, criterion, dtype))
        return sorted(splits, key=lambda p: rates.seconds(self.work(stats, p)))

    def certify(self, stats: Stats, parameters: SplitParameters) -> tuple[Term, ...]:
        """Return the Terms of the polynomial part and of the exact part, the larger of each."""
        # Counted anew: a plan may be certified for data other than those it was made for.
        queries, magnitudes_k, _ = magnitudes(stats, parameters.criterion)
        large_queries = queries.count_above(parameters.query_threshold)
        large_keys = magnitudes_k.count_above(parameters.key_threshold)
        parameters = replace(parameters, large_queries=large_queries, large_keys=large_keys)
        small, keys = parameters.small, max(0, stats.m - large_keys)
        exact_sums = sum_error(stats.m, small.dtype)
        logits = logit_error(stats, small.dtype)
        if keys == 0 or large_queries >= stats.n:
            return a_priori_terms(
                stats, small.dtype, eps=0.0, perturbation=logits, sums=exact_sums, floor=1.0
            )
        logit_bound = _small_logit_bound(stats, parameters)
        offset = _small_offset(stats, parameters, keys)
        terms = certify_part(stats, small, logit_bound, stats.m, offset)
        if not terms[0].value < math.inf:
            return terms
        sums, floor = relative_sums(stats, small, stats.m, offset)
        prepared = input_error(small.logit_bound, stats.d, small.dtype, stats.tilted)
        return terms[:1] + a_priori_terms(
            stats, small.dtype, eps=0.0, perturbation=max(logits, prepared),
            sums=max(sums, exact_sums * floor), floor=floor,
        )[1:]  # fmt: skip

    def work(self, stats: Stats, parameters: SplitParameters) -> Work:
        """Return a m + (n - a) b pairs and r features of the small rows and keys."""
        a, b = parameters.large_queries, parameters.large_keys
        r = parameters.small.r if a < stats.n and b < stats.m else 0
        # The rows of the two parts are gathered and prepared apart.
        elements = (2 * stats.n + 2 * stats.m) * (stats.d + stats.d_v)
        return Work(
            float(a) * stats.m + float(stats.n - a) * b,
            float(r) * (stats.n - a + stats.m - b), float(elements), stats.d, stats.d_v,
            parameters.small.dtype,
            passes_bytes(stats.d, stats.d_v, parameters.small) if r else 0.0,
        )  # fmt: skip

    def run(self, head: Head, parameters: SplitParameters) -> Partial:
        """Return the sums over all keys, the rows of both parts in their places."""
        by_norm, dtype = parameters.criterion == "norm", parameters.small.dtype
        rows, frame = head.rows, head.frame
        queries = rows.query_norms if by_norm else rows.query_entries
        keys = rows.key_norms if by_norm else rows.key_entries
        small_q, large_q = _split(queries, parameters.query_threshold)
        small_k, large_k = _split(keys, parameters.key_threshold)
        xp = array_api_compat.array_namespace(head.Q)

        def take(x, index):
            return xp.take(x, xp.asarray(index), axis=0)

        def exactly(q_index: np.ndarray, K, V) -> Partial:
            return exact_partial(
                frame.full_queries(take(head.Q, q_index), dtype), frame.full_keys(K, dtype),
                frame.values(V, None, dtype), rows.full_query_norms[q_index],
                float(rows.key_norms.max()),
            )  # fmt: skip

        small = polynomial_partial(
            head, (take(head.Q, small_q), rows.query_norms[small_q]),
            (take(head.K, small_k), rows.key_norms[small_k]), take(head.V, small_k),
            parameters.small,
        ).merge(exactly(small_q, take(head.K, large_k), take(head.V, large_k)))  # fmt: skip
        if large_q.size == 0:
            return small
        large = exactly(large_q, head.K, head.V)
        return join_rows([(xp.asarray(small_q), small), (xp.asarray(large_q), large)])


def _plausible(stats: Stats, p: SplitParameters, tol: float) -> bool:
    """Return False where a proof is hopeless by estimates, without computing the polynomial."""
    b = p.small.logit_bound
    if b <= LOGIT_BOUND_MIN:
        return True
    truncation = float(ratio_bound(min(0.9 * estimate_error(p.small.degree, b), 1.0)))
    return truncation + least_rounding(b, p.small.dtype) <= tol


def _split(magnitudes: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    large = magnitudes > threshold
    return np.flatnonzero(~large), np.flatnonzero(large)


def _small_logit_bound(stats: Stats, p: SplitParameters) -> float:
    """Return the largest logit of a small row and a small key."""
    queries, keys, factor = magnitudes(stats, p.criterion)
    return product_up(
        factor, min(p.query_threshold, queries.largest), min(p.key_threshold, keys.largest)
    )


def _small_offset(stats: Stats, p: SplitParameters, keys: int) -> float:
    """Return |mean of the small keys| over their largest norm, rounded up, at most 1."""
    if stats.tilted:
        return 1.0
    radius = p.key_threshold * (1.0 if p.criterion == "norm" else math.sqrt(stats.d))
    radius = min(radius, stats.key_norms.largest)
    moved = stats.m * stats.key_offset * stats.key_norms.largest
    moved += stats.key_norms.sum_of_largest(p.large_keys)
    return min(1.0, moved / (keys * radius) * (1.0 + 2.0**-40)) if radius > 0.0 else 1.0


def _cheapest_splits(
    stats: Stats, eps: float, criterion: str, dtype: str, rates: Rates
) -> Iterator[SplitParameters]:
    """Yield, degree by degree, the pair of thresholds of least predicted cost."""
    queries, keys, factor = magnitudes(stats, criterion)
    for degree in range(1, 40):
        r = feature_dimension(stats.d, degree)
        if r > stats.n + stats.m:  # dearer than exact whatever the thresholds
            return
        reach = _largest_logit(degree, eps) / (factor * (1.0 + 2.0**-18))
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
            stats, criterion, dtype, degree,
            float(queries.values[possible][best]), float(keys.values[place[best]]),
            int(a[best]), int(b[best]),
        )  # fmt: skip


def _parameters(
    stats: Stats, criterion: str, dtype: str, degree: int, t_q: float, t_k: float, a: int, b: int
) -> SplitParameters:
    blank = parameters_for(degree, LOGIT_BOUND_MIN, dtype, stats.d)
    split = SplitParameters(criterion, t_q, t_k, a, b, blank)
    logit_bound = max(widened(_small_logit_bound(stats, split), dtype), LOGIT_BOUND_MIN)
    return replace(split, small=replace(blank, logit_bound=logit_bound))


def _all_exact(stats: Stats, criterion: str, dtype: str) -> SplitParameters:
    """Return the split in which every row is large: it certifies wherever `exact` does."""
    small = parameters_for(0, LOGIT_BOUND_MIN, dtype, stats.d)
    return SplitParameters(criterion, -1.0, -1.0, stats.n, stats.m, small)


def _fixed_split(
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
        _all_exact(stats, criterion, dtype), query_threshold=t_q, key_threshold=t_k,
        large_queries=a, large_keys=b,
    )  # fmt: skip


def _fixed(
    stats: Stats, tol: float, criterion: str, dtype: str, threshold: float
) -> Iterator[SplitParameters]:
    """Yield the splits at the caller's threshold, of the degrees that may do."""
    split = _fixed_split(stats, criterion, threshold, dtype)
    if split.large_queries == stats.n or split.large_keys == stats.m:
        yield split
    elif split.small.logit_bound <= LOGIT_BOUND_MAX:
        start = smallest_degree(split.small.logit_bound, ratio_bound_inverse(tol))
        for degree in range(start, start + 4):
            yield _fixed_split(stats, criterion, threshold, dtype, degree)


def _largest_logit(degree: int, eps: float) -> float:
    """Return the largest B whose estimated minimax error is at most eps, by bisection on log B."""
    low, high = math.log(LOGIT_BOUND_MIN), math.log(LOGIT_BOUND_MAX)
    for _ in range(12):
        middle = (low + high) / 2.0
        if estimate_error(degree, math.exp(middle)) <= eps:
            low = middle
        else:
            high = middle
    return math.exp(low)
