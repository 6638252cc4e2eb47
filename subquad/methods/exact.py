"""Attention by blocked online softmax, O(n m d) time and O(n) memory: the oracle and the fallback.

No theorem but rounding: logits within `exact_logit_error`, sums within `exact_sum_error`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp

import array_api_compat
import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.bounds.certificate import Term
from subquad.bounds.partial import Partial
from subquad.bounds.rounding import exact_logit_error, exact_sum_error
from subquad.cost.rates import Rates, Work
from subquad.cost.steps import exact_calls
from subquad.engine import EXACT_KEY_BLOCK, UNSHIFTED_LOGITS, exact_block
from subquad.engine.lengths import exact_work
from subquad.engine.threads import THREAD_WORK, parallel_map
from subquad.head.frame import Frame
from subquad.head.problem import Head
from subquad.head.stats import Stats
from subquad.methods.method import (
    COMPUTE_DTYPES,
    Method,
    Proposal,
    Refusal,
    a_priori_terms,
    bound_of,
    stored_norm_bound,
)
from subquad.methods.on_shards import Norms, empty_partial, fleet_of_head, shards_of

FAR = 4.0
"""Values larger than so many times value_radius lie off zero: about it they are at most twice."""


@dataclass(frozen=True)
class ExactParameters:
    """The compute dtype."""

    dtype: str

    def __str__(self) -> str:
        return self.dtype


class Exact(Method):
    """Exact attention; certified in float32 while rounding allows, else in float64."""

    name = "exact"
    is_oracle = True

    def fit(self, stats: Stats, tol: float, rates: Rates) -> Iterator[Proposal | Refusal]:
        """Yield float32 where its rounding is within tol, else float64, else the reason."""
        proposals = [
            Proposal(self, p, self.certify(stats, p), self.work(stats, p))
            for p in map(ExactParameters, COMPUTE_DTYPES)
        ]
        certified = [p for p in proposals if p.bound <= tol]
        if certified:
            yield min(certified, key=lambda p: rates.seconds(p.work))
            return
        best = min(p.bound for p in proposals)
        _, *rounded = proposals[-1].terms
        largest = max(rounded, key=lambda term: np.nan_to_num(term.value, nan=np.inf))
        widest = COMPUTE_DTYPES[-1]
        reasons = {
            "logits": f"rounding in {widest} at logits up to {stats.full_logit_bound:.3g}",
            "sums": f"rounding in {widest} of sums over {stats.m:,} keys",
            "storage": self._stored(stats, tol),
        }
        yield Refusal(self, "", reasons[largest.name], best)

    def _stored(self, stats: Stats, tol: float) -> str:
        """Return why values and output in the input's dtype are too coarse, and what would do."""
        reason = (
            f"rounding to {stats.dtype} of values {stats.value_ratio:.3g} times value_radius in "
            "size"
        )
        if stats.value_ratio > FAR:
            reason += " (a far offset, or subnormal numbers)"
        wide = COMPUTE_DTYPES[-1]
        there = self.certify(replace(stats, dtype=wide), ExactParameters(wide))
        if stats.dtype != wide and bound_of(there) <= tol:
            reason += f"; {wide} input would do"
        return reason

    def certify(self, stats: Stats, parameters: ExactParameters) -> tuple[Term, ...]:
        """Return the rounding Terms: logits, sums, storage."""
        dtype = parameters.dtype
        return a_priori_terms(
            stats,
            dtype,
            eps=0.0,
            perturbation=logit_error(stats, dtype),
            sums=sum_error(stats.m, dtype),
            floor=1.0,
        )

    def work(self, stats: Stats, parameters: ExactParameters) -> Work:
        """Return n m pairs."""
        elements = (stats.n + stats.m) * (stats.d + stats.d_v)
        pairs = float(stats.n) * stats.m
        return Work(
            pairs,
            0.0,
            float(elements),
            stats.d,
            stats.d_v,
            parameters.dtype,
            calls=exact_calls(stats.n, stats.m, stats.d, stats.d_v),
        )

    def run(self, head: Head, parameters: ExactParameters) -> Partial:
        """Return the sums over all keys."""
        rows = head.rows
        return exact_sums(
            head,
            (head.Q, rows.full_query_norms),
            (head.K, rows.largest[1]),
            head.V,
            parameters.dtype,
        )

    def run_on_shards(self, head: Head, parameters: ExactParameters) -> list[Partial]:
        """Return the sums of each shard's queries: every key and value comes to every rank."""
        Q, K, V = map(shards_of, (head.Q, head.K, head.V))
        norms = Q.own(head.rows.full_query_norms)
        return exact_on_shards(head, Q.parts, norms, K.joined(), V.joined(), parameters.dtype)

    def batch_key(self, head: Head, proposal: Proposal) -> Hashable:
        """Return the shapes of a small head of NumPy's; larger ones would feed a second thread."""
        small = proposal.work.flops < THREAD_WORK
        inherited = type(self).run is Exact.run  # a method that runs otherwise runs alone
        if not (small and inherited and array_api_compat.is_numpy_array(head.Q)):
            return None
        return (proposal.parameters, head.Q.shape, head.K.shape, head.V.shape)

    def run_together(self, heads: Sequence[Head], parameters: ExactParameters) -> Partial:
        """Return the sums (heads, n, ...) of heads of one shape: side by side, each in a thread."""
        dtype = parameters.dtype
        (n, d), (m, d_v) = heads[0].Q.shape, heads[0].V.shape
        sums = (
            np.empty((len(heads), n, d_v)),
            np.empty((len(heads), n)),
            np.empty((len(heads), n), np.int64),
        )

        def one(i: int) -> None:
            prepared = _prepared(heads[i].frame, heads[i].Q, heads[i].K, heads[i].V, dtype)
            for whole, own in zip(sums, exact_block(*prepared), strict=True):
                whole[i] = own

        parallel_map(one, range(len(heads)), len(heads) * exact_work(n, m, d, d_v + 1), alone=True)
        logits = np.array([head.rows.full_query_norms * head.rows.largest[1] for head in heads])
        return _with_errors(sums, logits, (m, d), dtype)


def exact_sums(
    head: Head, queries: tuple[Array, np.ndarray], keys: tuple[Array, float], V: Array, dtype: str
) -> Partial:
    """Return the exact sums of some queries over some keys of a head, O(n m (d + d_v)).

    `queries` are rows (n, d) of the input and their norms about zero, `keys` rows (m, d) and at
    least their largest norm, V (m, d_v) the values of the keys.
    """
    (Q, query_norms), (K, key_norm) = queries, keys
    if K.shape[0] == 0:
        return Partial.empty(Q.shape[0], V.shape[1], array_api_compat.array_namespace(Q))
    sums = exact_block(*_prepared(head.frame, Q, K, V, dtype))
    return _with_errors(sums, query_norms * key_norm, K.shape, dtype)


def _prepared(frame: Frame, Q: Array, K: Array, V: Array, dtype: str) -> tuple[Array, Array, Array]:
    """Return the queries, the keys and [V, 1] as the exact path takes them."""
    return frame.full_queries(Q, dtype), frame.full_keys(K, dtype), frame.values(V, None, dtype)


def exact_on_shards(
    head: Head, Q: Sequence[Array], norms: Norms, K: Sequence[Array], V: Sequence[Array], dtype: str
) -> list[Partial]:
    """Return the exact sums of some queries over some keys of each rank, rows as they are."""
    key_norm = float(head.rows.key_norms.max())

    def own(q: Array, q_norms: np.ndarray, k: Array, v: Array) -> Partial:
        if q.shape[0] == 0 or k.shape[0] == 0:
            return empty_partial(q, v)
        return exact_sums(head, (q, q_norms), (k, key_norm), v, dtype)

    return fleet_of_head(head).map(own, Q, norms, K, V)


def _with_errors(
    sums: tuple[Array, Array, Array], logits: np.ndarray, keys: tuple[int, ...], dtype: str
) -> Partial:
    """Return (numerator, normaliser, log_shift) over keys (m, d), logits within `logits` (..., n).

    As a Partial: with what rounding may have done to them.
    """
    numerator, normaliser, log_shift = sums
    xp, (m, d) = array_api_compat.array_namespace(normaliser), keys
    none = xp.zeros_like(normaliser)
    return Partial(
        numerator,
        normaliser,
        log_shift,
        error=none,
        ratio=none,
        rounding=exact_sum_error(normaliser, m, EXACT_KEY_BLOCK, -(-m // EXACT_KEY_BLOCK), dtype),
        perturbation=exact_logit_error(xp.asarray(stored_norm_bound(logits, dtype)), d, dtype),
    )


def exact_rows(head: Head, rows: Array) -> Partial:
    """Return the exact sums of the queries `rows` over all keys, in float64."""
    xp = array_api_compat.array_namespace(head.Q)
    index = np.asarray(array_api_compat.to_device(rows, "cpu"))
    queries = xp.take(head.Q, rows, axis=0), head.rows.full_query_norms[index]
    return exact_sums(head, queries, (head.K, float(head.rows.key_norms.max())), head.V, "float64")


def logit_error(stats: Stats, dtype: str) -> float:
    """Return the largest perturbation of a logit of the exact path, a priori."""
    return float(
        exact_logit_error(stored_norm_bound(stats.full_logit_bound, dtype), stats.d, dtype)
    )


@lru_cache(maxsize=1024)
def sum_error(keys: int, dtype: str) -> float:
    """Return `exact_sum_error` relative to a normaliser, a priori, over `keys` keys."""
    blocks = -(-keys // EXACT_KEY_BLOCK)
    # A largest weight above 1/2, or one of e^-40 that needed no shift: what underflows is relative
    # to that.
    least = exp(-UNSHIFTED_LOGITS - 1.0)
    return float(exact_sum_error(least, keys, EXACT_KEY_BLOCK, blocks, dtype)) / least
