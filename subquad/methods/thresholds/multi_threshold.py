"""Attention with keys in buckets by magnitude, each row at its own degree or exact per bucket.

Theorem (Aliakbarpour et al. 2025, several thresholds; masks of rows and keys as parts of disjoint
support, claim `support-split-parts`; degrees by row and the certificate ours, claim
`output-bound`): within a bucket of keys and a cell of queries the logits are at most the product
of the two largest norms (or d times that of the two largest entries), so one polynomial of that
cell is within eps. Parts merge as Partials; the largest eps bounds the output. Nothing is supposed
of the distribution: at the worst every pair is exact. O(sum over buckets of r d_v (keys + rows of
its cells) + d pairs left exact) time. By norm, a bucket may have its own centre c_b: |k - c_b| is
then the smaller one, and the rows of its Partial are multiplied by exp(q . (c_b - c)); the query
centre and the key weights stay those of the head's Frame, one for all buckets. On 12 real heads at
1M rows, tol 0.1, that costs up to 1.25 times less, where several buckets pay at all; on rows
without a direction (Gaussian, Student t, outliers) nothing, nor do clusters of keys in place of
shells (within 3 %). Where float32 does, only logits too large for it are exact in float64.
Siblings: `polynomial`, `support_basis`, both in its search space.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce

import array_api_compat

from subquad.arrays.arguments import check_limit
from subquad.bounds.certificate import Term
from subquad.bounds.partial import Partial, join_rows
from subquad.bounds.softmax import ratio_bound_inverse
from subquad.cost.rates import Rates, Work
from subquad.head.problem import Head
from subquad.head.shells import TABLE_ROWS
from subquad.head.stats import Stats
from subquad.methods.exact import sum_error
from subquad.methods.method import (
    COMPUTE_DTYPES,
    Method,
    Proposal,
    Refusal,
    a_priori_terms,
    bound_of,
    cheapest_dtypes,
    input_error,
    over_budget,
)
from subquad.methods.polynomial.method import Polynomial
from subquad.methods.polynomial.sums import LOGIT_BOUND_MAX
from subquad.methods.thresholds.accounts import (
    count_work,
    exact_error,
    parts_of,
    sums_over_normaliser,
)
from subquad.methods.thresholds.division import (
    BucketParameters,
    all_exact,
    check_criterion,
    magnitudes,
    single,
    widened_bucket,
)
from subquad.methods.thresholds.search import cheapest_cuts
from subquad.methods.thresholds.sums import SortedRows, bucket_partial, centre_error
from subquad.methods.thresholds.support_basis import SupportBasis
from subquad.methods.thresholds.tables import sum_limit

ROOM = (0.999, 0.97, 0.85, 0.5)
"""Shares of the tolerance tried for truncation; the rest is left to rounding."""


PATIENCE = 10.0
"""Own centres are looked for where the best division without takes so many times the search."""


class MultiThreshold(Method):
    """Support basis with several thresholds.

    Parameters
    ----------
    criterion : {"norm", "entry"}, optional
        Magnitude of a row: its norm, or its largest entry as in the paper, which is never the
        sharper one.
    buckets : int, optional
        The most buckets of keys that may have a polynomial: 0 leaves every pair exact, 1 is one
        threshold with a degree for each row. None lets the cost model choose.
    """

    name = "multi_threshold"
    takes_budget = True
    search = 1.5e-2

    def __init__(self, *, criterion: str = "norm", buckets: int | None = None) -> None:
        self.criterion = check_criterion(criterion)
        self.buckets = check_limit("buckets", buckets)

    def fit(
        self, stats: Stats, tol: float, rates: Rates, budget: float = math.inf
    ) -> Iterator[Proposal | Refusal]:
        """Yield the cheapest certified division into buckets, or why there is none."""
        if not stats.magnitudes_known:
            reason = "needs the rows' magnitudes: give data"
            yield Refusal(self, f"by {self.criterion}", reason)
            return
        if budget < PATIENCE * _table_seconds(stats, rates):  # no own centres are looked for
            least = self._least(stats, tol, rates)
            if least >= budget:
                yield over_budget(self, f"by {self.criterion}", least, budget)
                return
        best_bound = math.inf
        divisions = self._divisions(stats, tol, rates)
        for p in sorted(divisions, key=lambda p: rates.seconds(self.work(stats, p))):
            proposal = Proposal(self, p, self.certify(stats, p), self.work(stats, p))
            best_bound = min(best_bound, proposal.bound)
            if proposal.bound <= tol:
                yield proposal
                return
        reason = "no division certifies: rounding of the exact part leaves no room"
        yield Refusal(self, f"by {self.criterion}", reason, best_bound)

    def _least(self, stats: Stats, tol: float, rates: Rates) -> float:
        """Return the seconds of the cheapest division were rounding nothing, by estimates."""
        eps = ratio_bound_inverse(tol)
        divisions = [
            cheapest_cuts(stats, self.criterion, dtype, rates, eps, LOGIT_BOUND_MAX, self.buckets)
            for dtype in cheapest_dtypes(rates)
        ]
        return min(rates.seconds(self.work(stats, p)) for p in divisions)

    def _divisions(self, stats: Stats, tol: float, rates: Rates) -> Iterator[BucketParameters]:
        """Yield the divisions worth proving, the single-threshold ones among them."""
        found = [
            self._cuts(stats, tol, rates, dtype, room, own=False)
            for dtype in COMPUTE_DTYPES
            for room in ROOM
        ]
        yield from found
        for dtype in COMPUTE_DTYPES:
            yield all_exact(stats, self.criterion, dtype)
        if self.buckets == 0:
            return
        least = min(rates.seconds(self.work(stats, p)) for p in found)
        if self.criterion == "norm" and least >= PATIENCE * _table_seconds(stats, rates):
            for dtype in COMPUTE_DTYPES:
                for room in ROOM:
                    yield self._cuts(stats, tol, rates, dtype, room, own=True)
        for offer in SupportBasis(criterion=self.criterion).fit(stats, tol, rates):
            if isinstance(offer, Proposal) and offer.work.feature_tokens > 0.0:
                p = offer.parameters
                large = p.large_queries, p.large_keys
                yield single(
                    stats, self.criterion, p.query_threshold, p.key_threshold, large, p.small
                )
        for offer in Polynomial().fit(stats, tol, rates):
            if isinstance(offer, Proposal) and self.criterion == "norm":
                yield single(stats, self.criterion, math.inf, math.inf, (0, 0), offer.parameters)

    def _cuts(
        self, stats: Stats, tol: float, rates: Rates, dtype: str, room: float, own: bool
    ) -> BucketParameters:
        """Return the best cuts with a share `room` of tol left to truncation."""
        eps, rest = ratio_bound_inverse(room * tol), (1.0 - room) * tol
        return cheapest_cuts(
            stats,
            self.criterion,
            dtype,
            rates,
            eps,
            sum_limit(rest, dtype),
            self.buckets,
            own,
            slack=rest / 2.0,
            tol=tol,
        )

    def certify(self, stats: Stats, parameters: BucketParameters) -> tuple[Term, ...]:
        """Return the Terms: the largest eps and logit error of a part, the sums of a worst row.

        Or those of the rows that are exact throughout, where they are more.
        """
        inner, p = self._inner(stats, parameters), parameters
        if not p.reach < magnitudes(stats, p.criterion)[0].largest:
            return inner
        assert p.outer is not None
        error = exact_error(stats, p.criterion, math.inf, p.outer)
        sums = sum_error(stats.m, p.outer) + 2.0**-51 * (2 * len(p.buckets) - 1)
        outer = a_priori_terms(stats, p.dtype, eps=0.0, perturbation=error, sums=sums, floor=1.0)
        # By the sum: a row has the Terms of its own parts. NaN is the larger, whosever it is.
        return max((inner, outer), key=lambda terms: (math.isnan(bound_of(terms)), bound_of(terms)))

    def _inner(self, stats: Stats, parameters: BucketParameters) -> tuple[Term, ...]:
        """Return the Terms of the rows up to the reach of some cell."""
        dtype, parts = parameters.dtype, list(parts_of(stats, parameters))
        largest = min(magnitudes(stats, parameters.criterion)[0].largest, parameters.reach)
        exact = [(b, parameters.exact_dtype(b)) for b in parameters.buckets if b.reach < largest]
        sums = max((sum_error(stats.m, wide) for _, wide in exact), default=0.0)
        errors = [
            input_error(p.reach, stats.d, dtype, stats.keys_weighted)
            + (0.0 if p.moved is None else float(centre_error(p.moved, stats.d)))
            for p in parts
        ]
        errors += [
            exact_error(stats, parameters.criterion, b.largest, x, parameters.reach)
            for b, x in exact
        ]
        if parts:
            error = max(errors)
            grown = math.exp(error) if error < 700.0 else math.inf
            sums += sums_over_normaliser(stats, parts) * grown
        return a_priori_terms(
            stats,
            dtype,
            eps=max((p.eps for p in parts), default=0.0),
            perturbation=max(errors, default=0.0),
            sums=sums + 2.0**-51 * (2 * len(parameters.buckets) - 1),
            floor=1.0,
        )

    def widened(self, stats: Stats, parameters: BucketParameters) -> BucketParameters:
        """Return the parameters for the logits of each cell in `stats`."""
        p = parameters
        buckets = tuple(widened_bucket(stats, p.criterion, bucket) for bucket in p.buckets)
        return replace(p, buckets=buckets)

    def work(self, stats: Stats, parameters: BucketParameters) -> Work:
        """Return the pairs and features of all buckets."""
        return count_work(stats, parameters)

    def run(self, head: Head, parameters: BucketParameters) -> Partial:
        """Return the sums over all keys, bucket by bucket, the rows back in their places."""
        sides = SortedRows.of(head, *head.rows.by(parameters.criterion))
        xp = array_api_compat.array_namespace(head.Q)
        outer = parameters.outer or ""
        parts = (
            bucket_partial(head, sides, b, (parameters.exact_dtype(b), outer), parameters.reach)
            for b in parameters.buckets
        )
        return join_rows([(xp.asarray(sides.query_order), reduce(Partial.merge, parts))])


def _table_seconds(stats: Stats, rates: Rates) -> float:
    """Return about how long it takes to measure the shells of keys, infinity where it cannot be."""
    if stats.shells is None or not stats.shells.at_hand:
        return math.inf
    return 0.1 + TABLE_ROWS * stats.m * stats.d / rates.float64.elements
