"""The support-basis split on a head in shards: small rows by summed States, large ones exactly."""

from __future__ import annotations

import array_api_compat
import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.bounds.partial import Partial, join_rows
from subquad.engine import stored_dtype
from subquad.head.problem import Head
from subquad.methods.exact import exact_on_shards
from subquad.methods.on_shards import fleet_of_head, merge_over, rows_chosen, shards_of
from subquad.methods.polynomial.on_shards import polynomial_on_shards
from subquad.methods.thresholds.splits import SplitParameters


def split_on_shards(head: Head, parameters: SplitParameters) -> list[Partial]:
    """Return the sums of each shard's queries over the keys of all.

    Large keys come to every rank, for its small queries; large queries attend to all keys.
    """
    rows = head.rows
    queries, keys = rows.by(parameters.criterion)
    few_q, few_k = queries > parameters.query_threshold, keys > parameters.key_threshold
    Q, K, V = shards_of(head.Q), shards_of(head.K), shards_of(head.V)
    small_q, small_k = rows_chosen(Q, ~few_q), rows_chosen(K, ~few_k)
    large_q, large_k = rows_chosen(Q, few_q), rows_chosen(K, few_k)
    dtype, full = stored_dtype(parameters.small.dtype), rows.full_query_norms
    Q_small = Q.take(small_q)
    small = fleet_of_head(head).map(
        Partial.merge,
        polynomial_on_shards(
            head,
            (Q_small, rows.query_norms[~few_q]),
            (K.take(small_k), rows.key_norms[~few_k]),
            V.take(small_k),
            parameters.small,
        ),
        exact_on_shards(
            head,
            Q_small.parts,
            Q_small.own(full[~few_q]),
            K.take(large_k).joined(),
            V.take(large_k).joined(),
            dtype,
        ),
    )
    if not few_q.any():
        return small
    Q_large = Q.take(large_q)
    every = [full[few_q]] * len(Q.parts)
    large = merge_over(
        fleet_of_head(head), exact_on_shards(head, Q_large.joined(), every, K.parts, V.parts, dtype)
    )
    return Q_large.map(
        _in_place, Q_large.own(np.arange(Q_large.shape[0])), small, large, small_q, large_q
    )


def _in_place(
    Q: Array,
    own: np.ndarray,
    small: Partial,
    large: Partial,
    small_q: np.ndarray,
    large_q: np.ndarray,
) -> Partial:
    """Return the rows of a shard from its small ones and, among those of all ranks, its large."""
    if own.size == 0:
        return small
    xp = array_api_compat.array_namespace(Q)
    mine = large.rows(xp.asarray(own))
    if small_q.size == 0:
        return mine
    return join_rows([(xp.asarray(small_q), small), (xp.asarray(large_q), mine)])
