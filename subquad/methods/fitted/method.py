"""Attention through polynomials fitted to the data after the State is known; bounds row by row.

Theorem (ours, claim `fitted-majorant`): if m(x) >= |exp(x) - p(x)| on [-B, B], the computed weights
of a row err by at most E = sum_j w_j m(x_ij), a dot product of m's coefficients with the row's sums
by degree, which the State gives; then the output moves by at most 2E/D~ (claim `additive-sharp`),
positive weights or not. One State of an even degree; queries in groups by norm,
each with its own B and its own pair (p, m), chosen by a linear program on some of its rows. The
largest keys, where they are few and far out, are summed exactly beside, and E and B are over the
others. Rows whose bound exceeds the tolerance are left to the exact method. Sibling: `polynomial`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import array_api_compat
import numpy as np

from subquad.bounds.certificate import Term
from subquad.bounds.partial import Partial, join_rows
from subquad.cost.rates import Rates, Work
from subquad.cost.steps import (
    GATHERED,
    NONE,
    Overhead,
    accumulate_calls,
    contract_calls,
    exact_calls,
)
from subquad.features import feature_dimension
from subquad.head.problem import Head
from subquad.head.stats import Stats
from subquad.methods.exact import logit_error, sum_error
from subquad.methods.fitted.choice import (
    DEGREES,
    FITTED_LOGIT_BOUND_MAX,
    FittedParameters,
    blank_parameters,
    key_cuts,
    predicted,
)
from subquad.methods.fitted.sums import grouped, large_keys, nothing, small_keys
from subquad.methods.method import (
    COMPUTE_DTYPES,
    Method,
    Proposal,
    Refusal,
    a_priori_terms,
    over_budget,
    storage_term,
)
from subquad.methods.polynomial.sums import PolynomialParameters, passes_bytes

REACH = f"nine queries in ten may reach logits past {FITTED_LOGIT_BOUND_MAX:g}"
OUT_OF_REACH = f"{REACH}: every row would go exact"
PROGRAM_STEPS = 2500.0
"""What the linear program of a group costs, and the proof of its pair, in steps of the passes."""


class Fitted(Method):
    """Polynomials and majorants fitted to the data, rows above tol exact."""

    name = "fitted"
    takes_budget = True
    search = 1e-2

    def fit(
        self, stats: Stats, tol: float, rates: Rates, budget: float = math.inf
    ) -> Iterator[Proposal | Refusal]:
        """Yield the cheapest degree, dtype and cut by predicted share of exact rows, or why not.

        Where the sample promises no saving and nobody else has an offer, that every row goes
        exact: dearer than `exact`, certified all the same.
        """
        if stats.sample is None:
            yield Refusal(self, "", "needs a sample of rows: give data")
            return
        cuts = key_cuts(stats.key_norms)
        blanks = [p for p in (blank_parameters(stats, DEGREES[0], tol, c) for c in cuts) if p.edges]
        if not blanks:
            yield Refusal(self, "", OUT_OF_REACH)
            return
        least = _others(stats, blanks[0])
        if not least < tol:
            yield Refusal(self, "", "rounding of the rows that go exact leaves no room", least)
            return
        yield self._best(stats, tol, rates, budget, blanks)

    def _best(
        self, stats: Stats, tol: float, rates: Rates, budget: float, blanks: list[FittedParameters]
    ) -> Proposal | Refusal:
        """Return the cheapest offer, or that none can be had within the budget."""
        faster = (replace(p, dtype=COMPUTE_DTYPES[0]) for p in blanks)  # blanks are of float64
        alone = min(self._seconds(stats, p, rates, 0.0) for p in faster)
        if alone >= budget:
            return over_budget(self, f"degree {DEGREES[0]}", alone, budget)
        offers = [
            Proposal(self, p, self.certify(stats, p), self.work(stats, p), fallback=1.0)
            for p in self._offers(stats, tol, rates, budget, blanks)
        ]
        best = min((o for o in offers if o.bound <= tol), key=lambda o: rates.seconds(o.work))
        if budget < math.inf and best.parameters.exact_share >= 1.0:
            return Refusal(self, "", "no degree saves: every row would go exact")
        return best

    def _offers(
        self, stats: Stats, tol: float, rates: Rates, budget: float, blanks: list[FittedParameters]
    ) -> Iterator[FittedParameters]:
        """Yield what is worth comparing, the shares predicted; first, that every row goes exact."""
        yield blanks[0]
        best = min(
            budget,
            rates.seconds(
                Work(
                    0.0,
                    0.0,
                    0.0,
                    stats.d,
                    stats.d_v,
                    "float64",
                    wide_pairs=float(stats.n) * stats.m,
                )
            ),
        )
        for degree in DEGREES:
            for p in blanks:
                r = feature_dimension(stats.d, degree)
                p = replace(p, degree=degree, r=r, dtype=COMPUTE_DTYPES[0])
                if self._seconds(stats, p, rates, 0.0) >= best:
                    continue  # its features and its large keys alone cost more
                for offer in predicted(stats, degree, tol, (p.key_cut, p.large_keys)):
                    best = min(best, self._seconds(stats, offer, rates, offer.exact_share))
                    yield offer

    def _seconds(self, stats: Stats, p: FittedParameters, rates: Rates, share: float) -> float:
        """Return the predicted seconds with a share of the rows gone exact."""
        return rates.seconds(self.work(stats, replace(p, exact_share=share)))

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
        """Return r features of queries and small keys, the pairs of large keys and exact rows."""
        p, large = parameters, parameters.large_keys
        # Queries are gathered by group and put back; beside large keys, so are the others.
        passes = 1.0 + GATHERED + (0.5 if large else 0.0)
        memory = PolynomialParameters(p.degree, FITTED_LOGIT_BOUND_MAX, p.dtype, p.r)
        return Work(
            float(stats.n) * large,
            float(p.r) * (stats.n + stats.m - large),
            passes * (stats.n + stats.m) * (stats.d + stats.d_v),
            stats.d,
            stats.d_v,
            p.dtype,
            passes_bytes(stats.d, stats.d_v, memory),
            wide_pairs=p.exact_share * float(stats.n) * stats.m,
            calls=self._calls(stats, p),
        )

    def _calls(self, stats: Stats, p: FittedParameters) -> Overhead:
        """Return the Calls: one State, a contraction and a linear program for each group."""
        d, d_v, groups = stats.d, stats.d_v, len(p.edges)
        each = contract_calls(-(-stats.n // max(groups, 1)), d, d_v, p.degree)
        program = Overhead(PROGRAM_STEPS)
        calls = sum(groups * (each, program), NONE)
        calls += accumulate_calls(stats.m - p.large_keys, d, d_v, p.degree)
        calls += exact_calls(stats.n, p.large_keys, d, d_v)
        return calls + exact_calls(math.ceil(p.exact_share * stats.n), stats.m, d, d_v)

    def run(self, head: Head, parameters: FittedParameters) -> Partial:
        """Return the sums over all keys; a row that no group takes has no finite bound."""
        norms, sizes = head.rows.query_norms, head.rows.key_norms
        small, large = (
            np.flatnonzero(x) for x in (sizes <= parameters.key_cut, sizes > parameters.key_cut)
        )
        groups = grouped(norms, parameters.edges, float(sizes[small].max(initial=0.0)))
        if small.size == 0 or not groups:
            return nothing(head, norms.size)
        xp = array_api_compat.array_namespace(head.Q)
        taken = np.concatenate(groups)
        parts = [(xp.asarray(taken), small_keys(head, parameters, groups, small))]
        if large.size:
            beside = large_keys(head, taken, large, parameters.dtype)
            parts = [(xp.asarray(taken), parts[0][1].merge(beside))]
        left = np.ones(norms.size, dtype=bool)
        left[taken] = False
        beyond = np.flatnonzero(left)
        if beyond.size:
            parts.append((xp.asarray(beyond), nothing(head, beyond.size)))
        return join_rows(parts)


def _exact_terms(stats: Stats, parameters: FittedParameters) -> tuple[Term, ...]:
    """Return logits, sums and storage of a row that goes exact, in float64."""
    terms = a_priori_terms(
        stats,
        "float64",
        eps=0.0,
        perturbation=logit_error(stats, "float64"),
        sums=sum_error(stats.m, "float64"),
        floor=1.0,
    )
    return terms[1], terms[2], storage_term(stats, parameters.dtype)


def _others(stats: Stats, parameters: FittedParameters) -> float:
    """Return the bound of a row that goes exact."""
    return sum(float(term.value) for term in _exact_terms(stats, parameters))
