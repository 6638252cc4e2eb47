"""The methods on a head in shards: States are summed, large keys gathered, Partials merged.

The theorems are those of `exact`, `polynomial` and `support_basis`; every rank has the sums of its
own queries in the end. What is added over ranks is rounded once, which the bounds of one device
leave room for: `gammas_for` counts eight tiles more than there are, `a_priori_terms` 2^-50.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.bounds.partial import Partial, join_rows
from subquad.engine import OPERANDS, stored_dtype
from subquad.engine.shards import rows as shards_rows
from subquad.engine.shards.fleet import Fleet, Sharded
from subquad.head.frame import balancing_exponent
from subquad.head.problem import Head
from subquad.head.sharded import merge_over
from subquad.methods.exact import Exact, ExactParameters, exact_sums
from subquad.methods.method import Method
from subquad.methods.polynomial.method import Polynomial
from subquad.methods.polynomial.sums import KeySums, PolynomialParameters, contract_queries
from subquad.methods.thresholds.support_basis import SplitParameters, SupportBasis

Norms = Sequence[np.ndarray]
"""Host arrays of the rows of each local shard."""


def runs_on_shards(method: Method) -> bool:
    """Return whether a method runs on several devices."""
    return isinstance(method, tuple(_RUNS))


def partials_on_shards(head: Head, method: Method, parameters: Any) -> list[Partial]:
    """Return the Partial over all keys of the queries of each local shard of a head.

    Time is that of one device over the number of ranks, besides what is exchanged: States,
    O(ranks r d_v), large rows and keys, and for `exact` all keys.
    """
    run = next(run for kind, run in _RUNS.items() if isinstance(method, kind))
    return run(head, parameters)


def finished(
    head: Head, partials: Sequence[Partial], finish: Callable[[Partial], tuple[Array, list[Array]]]
) -> tuple[Array, list[Array]]:
    """Return what `finish` makes of each shard, (output, rows of each Term), joined at home."""
    Q: Any = head.Q
    outputs, terms = zip(*Q.fleet.map(finish, partials), strict=True)
    columns = zip(*terms, strict=True)
    return Q.fleet.home(outputs, Q.home), [Q.fleet.home(column, Q.home) for column in columns]


def _run_exact(head: Head, parameters: ExactParameters) -> list[Partial]:
    """Every key and value comes to every rank, which attends with its own queries."""
    K, V = _shards(head.K), _shards(head.V)
    return _exactly(
        head,
        _shards(head.Q).parts,
        _shards(head.Q).own(head.rows.full_query_norms),
        K.joined(),
        V.joined(),
        parameters.dtype,
    )


def _exactly(
    head: Head, Q: Sequence[Array], norms: Norms, K: Sequence[Array], V: Sequence[Array], dtype: str
) -> list[Partial]:
    """Return the exact sums of some queries over some keys of each rank, rows as they are."""
    key_norm = float(head.rows.key_norms.max())

    def own(q: Array, q_norms: np.ndarray, k: Array, v: Array) -> Partial:
        if q.shape[0] == 0 or k.shape[0] == 0:
            return _nothing(q, v)
        return exact_sums(head, (q, q_norms), (k, key_norm), v, dtype)

    return _fleet(head).map(own, Q, norms, K, V)


def _run_polynomial(head: Head, parameters: PolynomialParameters) -> list[Partial]:
    rows = head.rows
    return _by_polynomial(
        head,
        (_shards(head.Q), rows.query_norms),
        (_shards(head.K), rows.key_norms),
        _shards(head.V),
        parameters,
    )


def _by_polynomial(
    head: Head,
    queries: tuple[Sharded, np.ndarray],
    keys: tuple[Sharded, np.ndarray],
    V: Sharded,
    parameters: PolynomialParameters,
) -> list[Partial]:
    """Return the sums of some queries over some keys by polynomial; norms are of all ranks."""
    (Q, query_norms), (K, key_norms) = queries, keys
    if query_norms.size == 0 or key_norms.size == 0:
        return Q.map(_nothing, V.parts)
    sums = _key_sums(head, float(query_norms.max()), (K, float(key_norms.max())), V, parameters)

    def own(q: Array, norms: np.ndarray, of_keys: KeySums, v: Array) -> Partial:
        if q.shape[0] == 0:
            return _nothing(q, v)
        return contract_queries(head, (q, norms), of_keys, parameters)

    return Q.map(own, Q.own(query_norms), sums, V.parts)


def _key_sums(
    head: Head,
    query_norm: float,
    keys: tuple[Sharded, float],
    V: Sharded,
    parameters: PolynomialParameters,
) -> list[KeySums]:
    """Return what `accumulate_keys` does, of the keys of all ranks, on each device."""
    (K, key_norm), frame, dtype = keys, head.frame, stored_dtype(parameters.dtype)
    weights, shift = frame.key_weights(K)
    used = [None] * len(K.parts) if weights is None else weights.parts
    balance = balancing_exponent(query_norm, key_norm)
    prepared = K.map(lambda k: frame.keys(k, dtype, -balance))
    states = shards_rows.accumulate(
        Sharded(K.fleet, tuple(prepared), K.starts, K.home),
        V.map(lambda v, w: frame.values(v, w, dtype), used),
        parameters.degree,
        key_centre=frame.key.centre,
        weight_shift=shift,
        balance=balance,
        operands=parameters.dtype if parameters.dtype in OPERANDS else None,
    )
    return [KeySums(state, key_norm, weights is not None, parameters) for state in states]


def _run_support_basis(head: Head, parameters: SplitParameters) -> list[Partial]:
    """Large keys come to every rank, for its small queries; large queries attend to all keys."""
    rows = head.rows
    queries, keys = rows.by(parameters.criterion)
    few_q, few_k = queries > parameters.query_threshold, keys > parameters.key_threshold
    Q, K, V = _shards(head.Q), _shards(head.K), _shards(head.V)
    small_q, small_k = _places(Q, ~few_q), _places(K, ~few_k)
    large_q, large_k = _places(Q, few_q), _places(K, few_k)
    dtype, full = stored_dtype(parameters.small.dtype), rows.full_query_norms
    Q_small = Q.take(small_q)
    small = _fleet(head).map(
        Partial.merge,
        _by_polynomial(
            head,
            (Q_small, rows.query_norms[~few_q]),
            (K.take(small_k), rows.key_norms[~few_k]),
            V.take(small_k),
            parameters.small,
        ),
        _exactly(
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
        _fleet(head), _exactly(head, Q_large.joined(), every, K.parts, V.parts, dtype)
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


def _places(x: Sharded, chosen: np.ndarray) -> list[np.ndarray]:
    """Return which rows of each local shard are chosen, by their numbers in it."""
    return [np.flatnonzero(own) for own in x.own(chosen)]


def _nothing(Q: Array, V: Array) -> Partial:
    return Partial.empty(Q.shape[0], V.shape[1], array_api_compat.array_namespace(Q))


def _shards(x: Any) -> Sharded:
    assert isinstance(x, Sharded)
    return x


def _fleet(head: Head) -> Fleet:
    return _shards(head.Q).fleet


_RUNS: dict[type, Callable[[Head, Any], list[Partial]]] = {
    Exact: _run_exact,
    Polynomial: _run_polynomial,
    SupportBasis: _run_support_basis,
}
