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
from dataclasses import replace

import array_api_compat
import numpy as np

from subquad.arrays.arguments import check_real
from subquad.bounds.certificate import Term
from subquad.bounds.partial import Partial, join_rows
from subquad.bounds.softmax import ratio_bound_inverse
from subquad.cost.rates import Rates, Work
from subquad.cost.steps import GATHERED, NONE, both_passes, exact_calls
from subquad.engine import stored_dtype
from subquad.head.problem import Head
from subquad.head.stats import Stats
from subquad.methods.exact import exact_sums, logit_error, sum_error
from subquad.methods.method import (
    COMPUTE_DTYPES,
    Method,
    Proposal,
    Refusal,
    a_priori_terms,
    cheapest_dtypes,
    compute_dtypes,
    input_error,
    over_budget,
)
from subquad.methods.polynomial.sums import (
    certify_part,
    passes_bytes,
    polynomial_partial,
    relative_sums,
)
from subquad.methods.thresholds.division import CRITERIA, check_criterion, magnitudes
from subquad.methods.thresholds.on_shards import split_on_shards
from subquad.methods.thresholds.splits import (
    SplitParameters,
    all_exact,
    cheapest_splits,
    fixed_split,
    fixed_splits,
    plausible,
    small_logit_bound,
    small_offset,
)

BOTH = "both"
ROOM = (1.0, 0.97, 0.85, 0.5)
"""Shares of the tolerance tried for truncation; the rest is left to rounding."""


class SupportBasis(Method):
    """Single-threshold support basis.

    Parameters
    ----------
    criterion : {"both", "norm", "entry"}, optional
        Magnitude of a row: its norm, or its largest entry as in the paper; "both" tries each.
    threshold : float, optional
        Rows of Q and K above it (about their centres, in the units of the input) are large;
        None lets the cost model choose, separately for queries and keys.
    """

    name = "support_basis"
    takes_budget = True
    search = 2e-3

    def __init__(self, *, criterion: str = BOTH, threshold: float | None = None) -> None:
        found = check_criterion(criterion, (BOTH, *CRITERIA))
        self.criteria = CRITERIA if found == BOTH else (found,)
        if threshold is not None and not check_real("threshold", threshold) >= 0.0:
            msg = f"`threshold` is {threshold:g}; it must be a number of at least 0."
            raise ValueError(msg)
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
            if least == math.inf:
                return Refusal(self, f"by {criterion}", _out_of_reach(stats))
            if least >= budget:
                return over_budget(self, f"by {criterion}", least, budget)
        best_bound = math.inf
        splits = self._by_cost(stats, tol, criterion, rates)
        for p in (p for p in splits if plausible(p, tol)):
            proposal = Proposal(self, p, self.certify(stats, p), self.work(stats, p))
            best_bound = min(best_bound, proposal.bound)
            if proposal.bound <= tol:
                return proposal
        return Refusal(self, f"by {criterion}", self._why(stats, criterion), best_bound)

    def _least(self, stats: Stats, tol: float, criterion: str, rates: Rates) -> float:
        """Return the seconds of the cheapest split if rounding were free, by estimates.

        Infinity where no polynomial with at most n + m features reaches the logits of any split.
        """
        eps = ratio_bound_inverse(tol)
        dtypes = compute_dtypes(stats, rates, cheapest_dtypes(rates))
        return min(
            (
                rates.seconds(self.work(stats, p))
                for dtype in dtypes
                for p in cheapest_splits(stats, eps, criterion, dtype, rates)
            ),
            default=math.inf,
        )

    def _why(self, stats: Stats, criterion: str) -> str:
        """Return why no split certifies."""
        if self.threshold is None:
            return "no threshold certifies: rounding of the exact part leaves no room"
        left = small_logit_bound(stats, fixed_split(stats, criterion, self.threshold))
        return f"the given threshold leaves logits up to {left:.3g} to the polynomial"

    def _by_cost(
        self, stats: Stats, tol: float, criterion: str, rates: Rates
    ) -> list[SplitParameters]:
        """Return the splits worth proving, the cheapest first."""
        splits = []
        for dtype in compute_dtypes(stats, rates):
            if self.threshold is not None:
                splits += list(fixed_splits(stats, tol, criterion, dtype, self.threshold))
                continue
            for room in ROOM:
                eps = ratio_bound_inverse(room * tol)
                splits += list(cheapest_splits(stats, eps, criterion, dtype, rates))
            if dtype in COMPUTE_DTYPES:
                splits.append(all_exact(stats, criterion, dtype))
        return sorted(splits, key=lambda p: rates.seconds(self.work(stats, p)))

    def certify(self, stats: Stats, parameters: SplitParameters) -> tuple[Term, ...]:
        """Return the Terms of the polynomial part and of the exact part, the larger of each."""
        # Counted anew: a plan may be certified for data other than those it was made for.
        queries, magnitudes_k, _ = magnitudes(stats, parameters.criterion)
        large_queries = queries.count_above(parameters.query_threshold)
        large_keys = magnitudes_k.count_above(parameters.key_threshold)
        parameters = replace(parameters, large_queries=large_queries, large_keys=large_keys)
        small, keys = parameters.small, max(0, stats.m - large_keys)
        exact_sums = sum_error(stats.m, stored_dtype(small.dtype))
        logits = logit_error(stats, stored_dtype(small.dtype))
        if keys == 0 or large_queries >= stats.n:
            return a_priori_terms(
                stats, small.dtype, eps=0.0, perturbation=logits, sums=exact_sums, floor=1.0
            )
        logit_bound = small_logit_bound(stats, parameters)
        offset = small_offset(stats, parameters, keys)
        terms = certify_part(stats, small, logit_bound, stats.m, offset)
        if not terms[0].value < math.inf:
            return terms
        sums, floor = relative_sums(stats, small, stats.m, offset)
        prepared = input_error(small.logit_bound, stats.d, small.dtype, stats.keys_weighted)
        return (
            terms[:1]
            + a_priori_terms(
                stats,
                small.dtype,
                eps=0.0,
                perturbation=max(logits, prepared),
                sums=max(sums, exact_sums * floor),
                floor=floor,
            )[1:]
        )

    def work(self, stats: Stats, parameters: SplitParameters) -> Work:
        """Return a m + (n - a) b pairs and r features of the small rows and keys."""
        a, b = parameters.large_queries, parameters.large_keys
        r = parameters.small.r if a < stats.n and b < stats.m else 0
        # Where both parts have rows, those of the exact one are prepared besides.
        passes = 1.0 + GATHERED + (0.5 if max(a, b) > 0 and r else 0.0)
        elements = passes * (stats.n + stats.m) * (stats.d + stats.d_v)
        return Work(
            float(a) * stats.m + float(stats.n - a) * b,
            float(r) * (stats.n - a + stats.m - b),
            float(elements),
            stats.d,
            stats.d_v,
            parameters.small.dtype,
            passes_bytes(stats.d, stats.d_v, parameters.small) if r else 0.0,
            calls=exact_calls(a, stats.m, stats.d, stats.d_v)
            + exact_calls(stats.n - a, b, stats.d, stats.d_v)
            + (
                both_passes(stats.m - b, stats.n - a, stats.d, stats.d_v, parameters.small.degree)
                if r
                else NONE
            ),
        )

    def run(self, head: Head, parameters: SplitParameters) -> Partial:
        """Return the sums over all keys, the rows of both parts in their places."""
        rows, dtype = head.rows, stored_dtype(parameters.small.dtype)
        queries, keys = rows.by(parameters.criterion)
        small_q, large_q = _split(queries, parameters.query_threshold)
        small_k, large_k = _split(keys, parameters.key_threshold)
        xp = array_api_compat.array_namespace(head.Q)

        def take(x, index):
            return xp.take(x, xp.asarray(index), axis=0)

        def exactly(q_index: np.ndarray, K, V) -> Partial:
            own = take(head.Q, q_index), rows.full_query_norms[q_index]
            return exact_sums(head, own, (K, float(rows.key_norms.max())), V, dtype)

        small = polynomial_partial(
            head,
            (take(head.Q, small_q), rows.query_norms[small_q]),
            (take(head.K, small_k), rows.key_norms[small_k]),
            take(head.V, small_k),
            parameters.small,
        ).merge(exactly(small_q, take(head.K, large_k), take(head.V, large_k)))
        if large_q.size == 0:
            return small
        large = exactly(large_q, head.K, head.V)
        return join_rows([(xp.asarray(small_q), small), (xp.asarray(large_q), large)])

    def run_on_shards(self, head: Head, parameters: SplitParameters) -> list[Partial]:
        """Return the sums of each shard's queries over the keys of all."""
        return split_on_shards(head, parameters)


def _out_of_reach(stats: Stats) -> str:
    """Return that no split has a polynomial, and why one of more features is not tried."""
    return (
        f"no threshold leaves logits within reach of {stats.n + stats.m:,} features (n + m); "
        "with more, exact costs less"
    )


def _split(magnitudes: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    large = magnitudes > threshold
    return np.flatnonzero(~large), np.flatnonzero(large)
