"""Attention by blocked online softmax, O(n m d) time and O(n) memory: the oracle and the fallback.

No theorem but rounding: logits within `exact_logit_error`, sums within `exact_sum_error`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp

import array_api_compat
import numpy as np

from subquad.arrays import Array
from subquad.bounds.rounding import exact_logit_error, exact_sum_error
from subquad.certificate import Term
from subquad.cost import Rates, Work
from subquad.engine import EXACT_KEY_BLOCK, UNSHIFTED_LOGITS, exact_block
from subquad.engine.calls import exact_calls, exact_work
from subquad.engine.threads import side_by_side
from subquad.methods.method import (
    COMPUTE_DTYPES,
    Proposal,
    Refusal,
    a_priori_terms,
    widened,
)
from subquad.partial import Partial
from subquad.problem import Head
from subquad.stats import Stats


@dataclass(frozen=True)
class ExactParameters:
    """The compute dtype."""

    dtype: str

    def __str__(self) -> str:
        return self.dtype


class Exact:
    """Exact attention; certified in float32 while rounding allows, else in float64."""

    name = "exact"

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
        reason = (f"rounding in {COMPUTE_DTYPES[-1]} at logits up to "
                  f"{stats.full_logit_bound:.3g}, stored as {stats.dtype}")
        yield Refusal(self, "", reason, best)

    def certify(self, stats: Stats, parameters: ExactParameters) -> tuple[Term, ...]:
        """Return the rounding Terms: logits, sums, storage."""
        dtype = parameters.dtype
        return a_priori_terms(
            stats, dtype, eps=0.0,
            perturbation=logit_error(stats, dtype), sums=sum_error(stats.m, dtype), floor=1.0,
        )  # fmt: skip

    def work(self, stats: Stats, parameters: ExactParameters) -> Work:
        """Return n m pairs."""
        elements = (stats.n + stats.m) * (stats.d + stats.d_v)
        pairs = float(stats.n) * stats.m
        return Work(pairs, 0.0, float(elements), stats.d, stats.d_v, parameters.dtype,
                    calls=exact_calls(stats.n, stats.m, stats.d, stats.d_v))  # fmt: skip

    def run(self, head: Head, parameters: ExactParameters) -> Partial:
        """Return the sums over all keys."""
        prepared = _prepared(head, parameters.dtype)
        return exact_partial(*prepared, head.rows.full_query_norms, head.rows.largest[1])


def _prepared(head: Head, dtype: str) -> tuple[Array, Array, Array]:
    """Return the queries, the keys and [V, 1] as the exact path takes them."""
    frame = head.frame
    return (frame.full_queries(head.Q, dtype), frame.full_keys(head.K, dtype),
            frame.values(head.V, None, dtype))  # fmt: skip


def exact_partial(
    Q: Array, K: Array, W: Array, query_norms: Array, key_norm: float
) -> Partial:
    """Return the exact sums of prepared Q (n, d) over prepared K (m, d), W = [V, 1]."""
    xp = array_api_compat.array_namespace(Q)
    if K.shape[0] == 0:
        return Partial.empty(Q.shape[0], W.shape[1] - 1, xp)
    return _with_errors(exact_block(Q, K, W), query_norms * key_norm, K.shape, str(Q.dtype))


def exact_together(heads: Sequence[Head], dtype: str) -> Partial:
    """Return the exact sums (heads, n, ...) of heads of one shape: side by side, NumPy.

    Each in one thread, with the bits that it would have alone.
    """
    (n, d), (m, d_v) = heads[0].Q.shape, heads[0].V.shape
    sums = (np.empty((len(heads), n, d_v)), np.empty((len(heads), n)),
            np.empty((len(heads), n), np.int64))  # fmt: skip

    def one(i: int) -> None:
        for whole, own in zip(sums, exact_block(*_prepared(heads[i], dtype)), strict=True):
            whole[i] = own

    side_by_side(one, range(len(heads)), len(heads) * exact_work(n, m, d, d_v + 1))
    logits = np.array([head.rows.full_query_norms * head.rows.largest[1] for head in heads])
    return _with_errors(sums, logits, (m, d), dtype)


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
        numerator, normaliser, log_shift, error=none, ratio=none,
        rounding=exact_sum_error(normaliser, m, EXACT_KEY_BLOCK, -(-m // EXACT_KEY_BLOCK), dtype),
        perturbation=exact_logit_error(xp.asarray(widened(logits, dtype)), d, dtype),
    )  # fmt: skip


def exact_rows(head: Head, rows: Array) -> Partial:
    """Return the exact sums of the queries `rows` over all keys, in float64."""
    xp = array_api_compat.array_namespace(head.Q)
    frame = head.frame
    index = np.asarray(array_api_compat.to_device(rows, "cpu"))
    return exact_partial(
        frame.full_queries(xp.take(head.Q, rows, axis=0), "float64"),
        frame.full_keys(head.K, "float64"), frame.values(head.V, None, "float64"),
        head.rows.full_query_norms[index], float(head.rows.key_norms.max()),
    )  # fmt: skip


def logit_error(stats: Stats, dtype: str) -> float:
    """Return the largest perturbation of a logit of the exact path, a priori."""
    return float(exact_logit_error(widened(stats.full_logit_bound, dtype), stats.d, dtype))


@lru_cache(maxsize=1024)
def sum_error(keys: int, dtype: str) -> float:
    """Return `exact_sum_error` relative to a normaliser, a priori, over `keys` keys."""
    blocks = -(-keys // EXACT_KEY_BLOCK)
    # A largest weight above 1/2, or one of e^-40 that needed no shift: what underflows is relative
    # to that.
    least = exp(-UNSHIFTED_LOGITS - 1.0)
    return float(exact_sum_error(least, keys, EXACT_KEY_BLOCK, blocks, dtype)) / least
