"""The sums of fitted polynomials: groups of queries, a pair for each, the keys small and large."""

from __future__ import annotations

import array_api_compat
import numpy as np

from subquad.arrays.arithmetic import OUTWARD, Array
from subquad.bounds.partial import Partial, stack_rows
from subquad.bounds.rounding import polynomial_sum_error, polynomial_underflow
from subquad.engine import State, contract
from subquad.exp_poly.majorant import FittedPair, fit_pair
from subquad.features import block_sizes
from subquad.head.problem import Head
from subquad.methods.exact import exact_sums
from subquad.methods.fitted.choice import FITTED_LOGIT_BOUND_MAX, FittedParameters, reach
from subquad.methods.method import input_error, stored_norm_bound
from subquad.methods.polynomial.sums import gammas_for, key_state

ROWS_FITTED = 48


def grouped(norms: np.ndarray, edges: tuple[float, ...], key_norm: float) -> list[np.ndarray]:
    """Return the rows of each group that has any: queries in (edge before, edge], within reach."""
    group = np.searchsorted(np.asarray(edges), norms)  # the least edge >= norm
    # On other data than those of the plan the keys may be larger.
    group[norms * key_norm > FITTED_LOGIT_BOUND_MAX] = len(edges)
    return [rows for i in range(len(edges)) if (rows := np.flatnonzero(group == i)).size]


def small_keys(
    head: Head, parameters: FittedParameters, groups: list[np.ndarray], keys: np.ndarray
) -> Partial:
    """Return the sums of the queries of all groups, in their order, over `keys` by polynomial."""
    key_norm = float(head.rows.key_norms[keys].max())
    query_norm = max(float(head.rows.query_norms[rows].max()) for rows in groups)
    state, logit_bound = small_key_state(head, parameters, query_norm, keys, key_norm)
    pairs = _pairs(head, parameters, state, groups, key_norm)
    return stack_rows(
        [
            rows_partial(head, rows, state, pair, parameters.dtype, logit_bound)
            for rows, pair in zip(groups, pairs, strict=True)
        ]
    )


def rows_partial(
    head: Head, rows: np.ndarray, state: State, pair: FittedPair, dtype: str, logit_bound: float
) -> Partial:
    """Return the sums of the queries `rows` by a pair that is proved for their logits.

    `logit_bound` bounds those of all queries that the State was balanced for.
    """
    Q = head.Q
    xp = array_api_compat.array_namespace(Q)
    p, m = pair.polynomial, pair.majorant
    queries = head.frame.queries(xp.take(Q, xp.asarray(rows), axis=0), dtype, state.balance)
    numerator, by_degree = contract(queries, state, p)
    norms = xp.asarray(stored_norm_bound(head.rows.query_norms[rows] * 2.0**state.balance, dtype))
    gammas = gammas_for(state.d, state.count, pair.degree, dtype)
    sizes = block_sizes(state.d, pair.degree)

    def lost(c: np.ndarray) -> Array:
        rho = polynomial_sum_error(c, norms, state.norm_moments, gammas)
        return rho + polynomial_underflow(c, sizes, state.count, state.d, logit_bound, dtype)

    # Half of `lost` is of the numerator: the majorant is summed in the normaliser alone.
    error = xp.clip(by_degree @ xp.asarray(m), 0.0, None) + lost(m) / 2.0
    one = xp.ones(rows.size, dtype=xp.float64)
    perturbation = input_error(logit_bound, state.d, dtype, head.frame.query_tilt is not None)
    return Partial(
        numerator,
        by_degree @ xp.asarray(p),
        xp.full(rows.size, state.weight_shift, dtype=xp.int64),
        error=error * OUTWARD,
        ratio=one,
        rounding=lost(p),
        perturbation=perturbation * one,
    )


def small_key_state(
    head: Head, parameters: FittedParameters, query_norm: float, keys: np.ndarray, key_norm: float
) -> tuple[State, float]:
    """Return the State of `keys`, of norm up to `key_norm`, and their largest logit."""
    xp = array_api_compat.array_namespace(head.K)
    K, V, p = head.K, head.V, parameters
    if keys.size < K.shape[0]:
        K, V = (xp.take(x, xp.asarray(keys), axis=0) for x in (K, V))
    state = key_state(head, query_norm, (K, key_norm), V, p.degree, p.dtype)
    return state, reach(query_norm, key_norm, p.dtype)


def large_keys(head: Head, rows: np.ndarray, keys: np.ndarray, dtype: str) -> Partial:
    """Return the exact sums of the queries `rows` over `keys`."""
    xp = array_api_compat.array_namespace(head.Q)
    K, V = (xp.take(x, xp.asarray(keys), axis=0) for x in (head.K, head.V))
    queries = xp.take(head.Q, xp.asarray(rows), axis=0), head.rows.full_query_norms[rows]
    return exact_sums(head, queries, (K, float(head.rows.key_norms[keys].max())), V, dtype)


def _pairs(
    head: Head,
    parameters: FittedParameters,
    state: State,
    members: list[np.ndarray],
    key_norm: float,
) -> list[FittedPair]:
    """Return the pair of each group, fitted to the sums of some of its rows."""
    xp = array_api_compat.array_namespace(head.Q)
    norms, dtype = head.rows.query_norms, parameters.dtype
    chosen = [rows[_spread(norms[rows])] for rows in members]
    taken = xp.take(head.Q, xp.asarray(np.concatenate(chosen)), axis=0)
    ones = np.ones(parameters.degree + 1)
    _, by_degree = contract(head.frame.queries(taken, dtype, state.balance), state, ones)
    sums = np.asarray(array_api_compat.to_device(by_degree, "cpu"))
    parts = np.split(sums, np.cumsum([rows.size for rows in chosen])[:-1])
    return [
        fit_pair(parameters.degree, reach(float(norms[rows].max()), key_norm, dtype), part)
        for rows, part in zip(members, parts, strict=True)
    ]


def _spread(norms: np.ndarray) -> np.ndarray:
    """Return the indices of a third by largest norm and of others spread over the norms."""
    order = np.argsort(-norms)
    top = ROWS_FITTED // 3
    rest = np.linspace(0, order.size - 1, ROWS_FITTED - top).astype(np.int64)
    return order[np.union1d(np.arange(min(top, order.size)), rest)]


def nothing(head: Head, n: int) -> Partial:
    """Return n rows without any sum: `finish` gives them no finite bound."""
    xp = array_api_compat.array_namespace(head.Q)
    return Partial.empty(n, head.V.shape[1], xp)
