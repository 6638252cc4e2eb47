"""Attention with keys in buckets by magnitude, each row at its own degree or exact per bucket.

Theorem (Aliakbarpour et al. 2025, several thresholds; masks of rows and keys as parts of disjoint
support, claim `support-split-parts`; degrees by row and the certificate ours, claim
`output-bound`): within a bucket of keys and a cell of queries the logits are at most the product
of the two largest norms (or d times that of the two largest entries), so one polynomial of that
cell is within eps. Parts merge as Partials; the largest eps bounds the output. Nothing is supposed
of the distribution: at the worst every pair is exact. O(sum over buckets of r d_v (keys + rows of
its cells) + d pairs left exact) time. All buckets share the centre of the head's Frame: a centre
for each would multiply the rows of its Partial by exp(q . (c_b - c)). Siblings: `polynomial`,
`support_basis`, both in its search space.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from dataclasses import dataclass

import array_api_compat
import numpy as np

from subquad.arrays import Array
from subquad.bounds.softmax import ratio_bound_inverse
from subquad.certificate import Term
from subquad.cost import Rates, Work
from subquad.engine import UNSHIFTED_LOGITS
from subquad.methods.buckets import (
    Bucket,
    BucketParameters,
    all_exact,
    count_work,
    magnitudes,
    parts_of,
    polynomial_sums,
    single,
)
from subquad.methods.cuts import cheapest_cuts, sum_limit
from subquad.methods.exact import exact_partial, logit_error, sum_error
from subquad.methods.method import (
    COMPUTE_DTYPES,
    Proposal,
    Refusal,
    a_priori_terms,
    input_error,
)
from subquad.methods.polynomial import (
    Polynomial,
    accumulate_keys,
    contract_queries,
)
from subquad.methods.support_basis import CRITERIA, SupportBasis
from subquad.partial import Partial, join_rows
from subquad.problem import Head
from subquad.stats import Stats

ROOM = (0.999, 0.97, 0.85, 0.5)
"""Shares of the tolerance tried for truncation; the rest is left to rounding."""


class MultiThreshold:
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

    def __init__(self, *, criterion: str = "norm", buckets: int | None = None) -> None:
        if criterion not in CRITERIA:
            msg = f"`criterion` is {criterion!r}; the criteria are {', '.join(CRITERIA)}."
            raise ValueError(msg)
        if buckets is not None and (
            isinstance(buckets, bool) or not isinstance(buckets, numbers.Integral) or buckets < 0
        ):
            msg = f"`buckets` is {buckets!r}; pass an integer of at least 0, or None."
            raise ValueError(msg)
        self.criterion, self.buckets = criterion, buckets

    def fit(self, stats: Stats, tol: float, rates: Rates) -> Iterator[Proposal | Refusal]:
        """Yield the cheapest certified division into buckets, or why there is none."""
        if not stats.magnitudes_known:
            reason = "needs the rows' magnitudes: give data"
            yield Refusal(self, f"by {self.criterion}", reason)
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

    def _divisions(
        self, stats: Stats, tol: float, rates: Rates
    ) -> Iterator[BucketParameters]:
        """Yield the divisions worth proving, the single-threshold ones among them."""
        for dtype in COMPUTE_DTYPES:
            for room in ROOM:
                eps = ratio_bound_inverse(room * tol)
                limit = sum_limit((1.0 - room) * tol, dtype)
                yield cheapest_cuts(
                    stats, self.criterion, dtype, rates, eps, limit, self.buckets
                )
            yield all_exact(stats, self.criterion, dtype)
        if self.buckets == 0:
            return
        for offer in SupportBasis(criterion=self.criterion).fit(stats, tol, rates):
            if isinstance(offer, Proposal) and offer.work.feature_tokens > 0.0:
                p = offer.parameters
                large = p.large_queries, p.large_keys
                yield single(
                    stats, self.criterion, p.query_threshold, p.key_threshold, large, p.small
                )
        for offer in Polynomial().fit(stats, tol, rates):
            if isinstance(offer, Proposal) and self.criterion == "norm":
                yield single(
                    stats, self.criterion, math.inf, math.inf, (0, 0), offer.parameters
                )

    def certify(self, stats: Stats, parameters: BucketParameters) -> tuple[Term, ...]:
        """Return the Terms: the largest eps and logit error of a part, the sums of a worst row."""
        dtype, parts = parameters.dtype, list(parts_of(stats, parameters))
        reached = min((b.reach for b in parameters.buckets), default=-math.inf)
        exact = reached < magnitudes(stats, parameters.criterion)[0].largest
        sums = sum_error(stats.m, dtype) if exact else 0.0
        errors = [input_error(p.reach, stats.d, dtype, stats.tilted) for p in parts]
        if exact:
            errors.append(logit_error(stats, dtype))
        sums += polynomial_sums(stats, parts) * math.exp(max(errors))
        return a_priori_terms(
            stats, dtype, eps=max((p.eps for p in parts), default=0.0), perturbation=max(errors),
            sums=sums + 2.0**-51 * (len(parameters.buckets) - 1), floor=1.0,
        )  # fmt: skip

    def work(self, stats: Stats, parameters: BucketParameters) -> Work:
        """Return the pairs and features of all buckets."""
        return count_work(stats, parameters)

    def run(self, head: Head, parameters: BucketParameters) -> Partial:
        """Return the sums over all keys, bucket by bucket, the rows back in their places."""
        rows = head.rows
        by_norm = parameters.criterion == "norm"
        sides = _Sorted.of(
            head, rows.query_norms if by_norm else rows.query_entries,
            rows.key_norms if by_norm else rows.key_entries,
        )  # fmt: skip
        xp = array_api_compat.array_namespace(head.Q)
        total = Partial.empty(head.Q.shape[0], head.V.shape[1], xp)
        for bucket in parameters.buckets:
            total = total.merge(_bucket_partial(head, sides, bucket, parameters.dtype))
        return join_rows([(xp.asarray(sides.query_order), total)])


@dataclass(frozen=True)
class _Sorted:
    """Rows of a head in ascending order of magnitude."""

    query_order: np.ndarray
    query_sizes: np.ndarray
    key_order: np.ndarray
    key_sizes: np.ndarray
    Q: Array

    @classmethod
    def of(cls, head: Head, queries: np.ndarray, keys: np.ndarray) -> _Sorted:
        xp = array_api_compat.array_namespace(head.Q)
        q, k = np.argsort(queries, kind="stable"), np.argsort(keys, kind="stable")
        return cls(q, queries[q], k, keys[k], xp.take(head.Q, xp.asarray(q), axis=0))


def _bucket_partial(head: Head, sides: _Sorted, bucket: Bucket, dtype: str) -> Partial:
    """Return the sums of all queries, in ascending order, over the keys of one bucket."""
    xp = array_api_compat.array_namespace(head.Q)
    low, high = np.searchsorted(sides.key_sizes, (bucket.smallest, bucket.largest), side="right")
    index, n = sides.key_order[low:high], sides.query_order.size
    if index.size == 0:
        return Partial.empty(n, head.V.shape[1], xp)
    K, V = (xp.take(x, xp.asarray(index), axis=0) for x in (head.K, head.V))
    key_norms, query_norms = head.rows.key_norms[index], head.rows.query_norms[sides.query_order]
    ends = [int(np.searchsorted(sides.query_sizes, c.largest, side="right")) for c in bucket.cells]
    small, start, parts = max(ends, default=0), 0, []
    if small > 0:
        largest = float(query_norms[:small].max())
        sums = accumulate_keys(head, largest, (K, key_norms), V, bucket.shared)
        for end, cell in zip(ends, bucket.cells, strict=True):
            if end > start:
                queries = sides.Q[start:end], query_norms[start:end]
                part = contract_queries(head, queries, sums, cell.polynomial)
                parts.append((xp.arange(start, end), part))
                start = end
    for rows in _exact_runs(head, sides, small, float(key_norms.max())):
        frame, full_norms = head.frame, head.rows.full_query_norms[sides.query_order[rows]]
        part = exact_partial(
            frame.full_queries(sides.Q[rows], dtype), frame.full_keys(K, dtype),
            frame.values(V, None, dtype), full_norms, float(key_norms.max()),
        )  # fmt: skip
        parts.append((xp.arange(rows.start, rows.stop), part))
    return join_rows(parts)


def _exact_runs(head: Head, sides: _Sorted, start: int, key_norm: float) -> Iterator[slice]:
    """Yield the rows from `start` on, first those whose logits the exact path need not shift."""
    norms = head.rows.full_query_norms[sides.query_order[start:]]
    low = np.maximum.accumulate(norms) * key_norm < 0.99 * UNSHIFTED_LOGITS
    middle, n = start + int(low.sum()), sides.query_order.size
    for run in (slice(start, middle), slice(middle, n)):
        if run.stop > run.start:
            yield run
