"""One polynomial on a head in shards: States are summed over ranks, queries stay where they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.bounds.partial import Partial
from subquad.engine import OPERANDS, stored_dtype
from subquad.engine.shards import rows as shards_rows
from subquad.engine.shards.fleet import Sharded
from subquad.head.frame import balancing_exponent
from subquad.head.problem import Head
from subquad.methods.on_shards import empty_partial
from subquad.methods.polynomial.sums import KeySums, PolynomialParameters, contract_queries


def polynomial_on_shards(
    head: Head,
    queries: tuple[Sharded, np.ndarray],
    keys: tuple[Sharded, np.ndarray],
    V: Sharded,
    parameters: PolynomialParameters,
) -> list[Partial]:
    """Return the sums of some queries over some keys by polynomial; norms are of all ranks."""
    (Q, query_norms), (K, key_norms) = queries, keys
    if query_norms.size == 0 or key_norms.size == 0:
        return Q.map(empty_partial, V.parts)
    sums = _key_sums(head, float(query_norms.max()), (K, float(key_norms.max())), V, parameters)

    def own(q: Array, norms: np.ndarray, of_keys: KeySums, v: Array) -> Partial:
        if q.shape[0] == 0:
            return empty_partial(q, v)
        return contract_queries(head, (q, norms), of_keys, parameters)

    return Q.map(own, Q.own(query_norms), sums, V.parts)


def _key_sums(
    head: Head,
    query_norm: float,
    keys: tuple[Sharded, float],
    V: Sharded,
    parameters: PolynomialParameters,
) -> list[KeySums]:
    """Return the KeySums of the keys of all ranks, on each device."""
    (K, key_norm), frame, dtype = keys, head.frame, stored_dtype(parameters.dtype)
    weights, shift = frame.key_weights(K)
    used = [None] * len(K.parts) if weights is None else weights.parts
    balance = balancing_exponent(query_norm, key_norm)
    prepared = replace(K, parts=tuple(K.map(lambda k: frame.keys(k, dtype, -balance))))
    W = V.map(lambda v, w: frame.values(v, w, dtype), used)
    about: dict[str, Any] = dict(
        key_centre=frame.key.centre,
        weight_shift=shift,
        balance=balance,
        operands=parameters.dtype if parameters.dtype in OPERANDS else None,
    )
    states = shards_rows.accumulate(prepared, W, parameters.degree, **about)
    return [KeySums(state, key_norm, parameters) for state in states]
