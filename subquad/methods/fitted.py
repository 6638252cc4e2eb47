"""Attention through polynomials fitted to the data after the State is known; bounds row by row.

Theorem (ours, claim `fitted-majorant`): if m(x) >= |exp(x) - p(x)| on [-B, B], the computed weights
of a row err by at most E = sum_j w_j m(x_ij), a dot product of m's coefficients with the row's sums
by degree, which the State gives; then the output moves by at most 2E/D~ (claim `additive-sharp`),
positive weights or not. One State of an even degree; queries in groups by norm,
each with its own B and its own pair (p, m), chosen by a linear program on some of its rows. Rows
whose bound exceeds the tolerance are left to the exact method. Sibling: `polynomial`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import array_api_compat
import numpy as np

from subquad.arrays import OUTWARD, Array
from subquad.bounds.rounding import polynomial_sum_error, polynomial_underflow
from subquad.certificate import Term
from subquad.cost import Rates, Work
from subquad.engine import State, accumulate, contract
from subquad.exp_poly.fitted import FittedPair, fit_pair
from subquad.features import block_sizes, feature_dimension
from subquad.frame import balancing_exponent
from subquad.methods.exact import logit_error, sum_error
from subquad.methods.fitting import (
    DEGREES,
    LOGIT_BOUND_MAX,
    FittedParameters,
    predicted,
    reach,
)
from subquad.methods.method import (
    Proposal,
    Refusal,
    a_priori_terms,
    input_error,
    storage_term,
    widened,
)
from subquad.methods.polynomial import (
    PolynomialParameters,
    gammas_for,
    passes_bytes,
)
from subquad.partial import Partial, join_rows
from subquad.problem import Head
from subquad.stats import Stats

ROWS_FITTED = 48


class Fitted:
    """Polynomials and majorants fitted to the data, rows above tol exact."""

    name = "fitted"

    def fit(self, stats: Stats, tol: float, rates: Rates) -> Iterator[Proposal | Refusal]:
        """Yield the cheapest degree and dtype by predicted share of exact rows, or why not."""
        if stats.sample is None:
            yield Refusal(self, "", "needs a sample of rows: give data")
            return
        exact = FittedParameters(0, (), "float64", 0, 1.0, tol)
        least = _others(stats, exact)
        if not least < tol:
            yield Refusal(self, "", "rounding of the rows that go exact leaves no room", least)
            return
        offers = [self._proposal(stats, exact)]
        for degree in DEGREES:
            best = min(rates.seconds(o.work) for o in offers if o.bound <= tol)
            blank = FittedParameters(
                degree, (), "float32", feature_dimension(stats.d, degree), 0.0, tol
            )
            if rates.seconds(self.work(stats, blank)) >= best:
                break  # the features alone cost more, and more at every higher degree
            offers += [self._proposal(stats, p) for p in predicted(stats, degree, tol)]
        yield min((o for o in offers if o.bound <= tol), key=lambda o: rates.seconds(o.work))

    def _proposal(self, stats: Stats, p: FittedParameters) -> Proposal:
        return Proposal(self, p, self.certify(stats, p), self.work(stats, p), fallback=1.0)

    def certify(self, stats: Stats, parameters: FittedParameters) -> tuple[Term, ...]:
        """Return the Terms of a row at the level above which rows go exact; not proved before.

        What a row that goes exact can reach is proved, and infinite where it exceeds the level.
        """
        level, others = parameters.level, _others(stats, parameters)
        room = level - others if others < level else math.inf
        logits, sums, storage = _exact_terms(stats, parameters)
        while room < math.inf and room + logits.value + sums.value + storage.value > level:
            room = math.nextafter(room, 0.0)
        return Term("truncation", "output-bound", room), logits, sums, storage

    def work(self, stats: Stats, parameters: FittedParameters) -> Work:
        """Return r features of all queries and keys, and the pairs of the rows predicted exact."""
        elements = (2 * stats.n + stats.m) * (stats.d + stats.d_v)
        passes = PolynomialParameters(
            parameters.degree, LOGIT_BOUND_MAX, parameters.dtype, parameters.r
        )
        return Work(
            parameters.exact_share * float(stats.n) * stats.m,
            float(parameters.r) * (stats.n + stats.m), float(elements), stats.d, stats.d_v,
            parameters.dtype, passes_bytes(stats.d, stats.d_v, passes) if passes.degree else 0.0,
        )  # fmt: skip

    def run(self, head: Head, parameters: FittedParameters) -> Partial:
        """Return the sums over all keys; a row that no group takes has no finite bound."""
        norms, count = head.rows.query_norms, len(parameters.edges)
        group = np.searchsorted(np.asarray(parameters.edges), norms)  # the least edge >= norm
        # On other data than those of the plan the keys may be larger.
        group[norms * float(head.rows.key_norms.max()) > LOGIT_BOUND_MAX] = count
        members = [np.flatnonzero(group == i) for i in range(count)]
        members = [rows for rows in members if rows.size]
        if not members or parameters.degree == 0:
            return _nothing(head, norms.size)
        state, logit_bound = _state(head, parameters, max(norms[m].max() for m in members))
        pairs = _pairs(head, parameters, state, members)
        xp = array_api_compat.array_namespace(head.Q)
        parts = [
            (xp.asarray(rows), rows_partial(head, rows, state, pair, parameters.dtype, logit_bound))
            for rows, pair in zip(members, pairs, strict=True)
        ]
        beyond = np.flatnonzero(group == count)
        if beyond.size:
            parts.append((xp.asarray(beyond), _nothing(head, beyond.size)))
        return join_rows(parts)


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
    norms = xp.asarray(widened(head.rows.query_norms[rows] * 2.0**state.balance, dtype))
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
        numerator, by_degree @ xp.asarray(p),
        xp.full(rows.size, state.weight_shift, dtype=xp.int64),
        error=error * OUTWARD, ratio=one, rounding=lost(p), perturbation=perturbation * one,
    )  # fmt: skip


def _state(head: Head, parameters: FittedParameters, query_norm: float) -> tuple[State, float]:
    """Return the State of all keys, and the largest logit of queries up to `query_norm`."""
    frame, dtype, key_norm = head.frame, parameters.dtype, float(head.rows.key_norms.max())
    weights, shift = frame.key_weights(head.K)
    balance = balancing_exponent(float(query_norm), key_norm)
    state = accumulate(
        frame.keys(head.K, dtype, -balance), frame.values(head.V, weights, dtype),
        parameters.degree, key_centre=frame.key.centre, weight_shift=shift, balance=balance,
    )  # fmt: skip
    return state, reach(query_norm, key_norm, dtype)


def _pairs(
    head: Head, parameters: FittedParameters, state: State, members: list[np.ndarray]
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
    key_norm = float(head.rows.key_norms.max())
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


def _nothing(head: Head, n: int) -> Partial:
    """Return n rows without any sum: `finish` gives them no finite bound."""
    xp = array_api_compat.array_namespace(head.Q)
    return Partial.empty(n, head.V.shape[1], xp)


def _exact_terms(stats: Stats, parameters: FittedParameters) -> tuple[Term, ...]:
    """Return logits, sums and storage of a row that goes exact, in float64."""
    terms = a_priori_terms(
        stats, "float64", eps=0.0, perturbation=logit_error(stats, "float64"),
        sums=sum_error(stats.m, "float64"), floor=1.0,
    )  # fmt: skip
    return terms[1], terms[2], storage_term(stats, parameters.dtype)


def _others(stats: Stats, parameters: FittedParameters) -> float:
    """Return the bound of a row that goes exact."""
    return sum(float(term.value) for term in _exact_terms(stats, parameters))
