"""Attention through one polynomial of exp, O((n + m) r d_v) time with r = C(d + g, g) features.

Theorem (Alman and Song 2023; Aggarwal and Alman 2022; constants ours, claim `output-bound`):
if |logits| <= B and |p(x) exp(-x) - 1| <= eps < 1 on [-B, B], every computed weight is positive
and within eps of the true one, and the output moves by at most 2(1 - sqrt(1 - eps^2))/eps, about
eps, in units of value_radius. The degree is the smallest whose proved eps leaves room for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from subquad.bounds.certificate import Term
from subquad.bounds.partial import Partial
from subquad.bounds.softmax import ratio_bound_inverse
from subquad.cost.rates import Rates, Work
from subquad.cost.steps import both_passes
from subquad.engine import OPERANDS
from subquad.exp_poly.degree import estimated_degree
from subquad.head.problem import Head
from subquad.head.stats import Stats
from subquad.methods.method import (
    DEGREES_OF,
    Method,
    Proposal,
    Refusal,
    compute_dtypes,
    over_budget,
    stored_norm_bound,
)
from subquad.methods.on_shards import shards_of
from subquad.methods.polynomial.on_shards import polynomial_on_shards
from subquad.methods.polynomial.sums import (
    LOGIT_BOUND_MAX,
    LOGIT_BOUND_MIN,
    PolynomialParameters,
    certify_part,
    least_rounding,
    parameters_for,
    passes_bytes,
    polynomial_partial,
    widened,
)

ROOM = (1.125, 1.0625, 1.03125)
"""Times the largest logit that a polynomial of the fused passes may be for. At degree 2 the first
adds 42 % to the truncation."""
LITTLE_ROOM = (1.0 + 2.0**-10,)
"""The same of the other passes: enough for the same rows in another order, whose centres differ."""
DEGREES_TRIED = 16
"""From the degree whose truncation alone would do; each step divides it by at least 2."""


class Polynomial(Method):
    """One polynomial for all logits, one State."""

    name = "polynomial"
    takes_budget = True

    def fit(
        self, stats: Stats, tol: float, rates: Rates, budget: float = math.inf
    ) -> Iterator[Proposal | Refusal]:
        """Yield the cheapest certified degree and dtype, or why there is none."""
        limit = stored_norm_bound(stats.logit_bound, "float32")
        if not limit <= LOGIT_BOUND_MAX:
            digits = 3 if limit > 65.0 else 8
            reason = f"logit bound {limit:.{digits}g} exceeds {LOGIT_BOUND_MAX:g}"
            yield Refusal(self, "", reason)
            return
        proposals: list[Proposal] = []
        too_dear: list[tuple[float, PolynomialParameters]] = []
        for dtype in compute_dtypes(stats, rates):
            start = self._start(stats, tol, dtype)
            if start is None:
                continue
            seconds = rates.seconds(self.work(stats, start))
            if seconds >= budget:
                too_dear.append((seconds, start))
                continue
            proposals.append(self._with_room(stats, tol, self._smallest(stats, tol, start)))
            if proposals[-1].bound <= tol:
                budget = min(budget, rates.seconds(proposals[-1].work))
        if too_dear and not any(p.bound <= tol for p in proposals):
            seconds, start = min(too_dear, key=lambda pair: pair[0])
            yield over_budget(self, str(start), seconds, budget)
            return
        if not proposals:
            reason = f"rounding leaves no room at logit bound {stats.logit_bound:.3g}"
            yield Refusal(self, "", reason)
            return
        certified = [p for p in proposals if p.bound <= tol]
        if certified:
            yield min(certified, key=lambda p: rates.seconds(p.work))
            return
        best = min(proposals, key=lambda p: (not p.bound < math.inf, p.bound))
        reason = f"rounding and storage leave no room at logit bound {stats.logit_bound:.3g}"
        yield Refusal(self, str(best.parameters), reason, best.bound)

    def _start(self, stats: Stats, tol: float, dtype: str) -> PolynomialParameters | None:
        """Return the least degree that may do, by estimates; None where none of the dtype can."""
        logit_bound = max(stored_norm_bound(stats.logit_bound, dtype), LOGIT_BOUND_MIN)
        if least_rounding(logit_bound, dtype) > tol:
            return None
        degree = estimated_degree(logit_bound, ratio_bound_inverse(tol))
        degree = max(degree, DEGREES_OF[dtype].start)
        if degree not in DEGREES_OF[dtype]:
            return None
        return parameters_for(degree, logit_bound, dtype, stats.d)

    def _smallest(self, stats: Stats, tol: float, start: PolynomialParameters) -> Proposal:
        """Return the Proposal of the smallest degree within tol, or the best one met."""
        best = None
        end = min(start.degree + DEGREES_TRIED, DEGREES_OF[start.dtype].stop)
        for degree in range(start.degree, end):
            p = parameters_for(degree, start.logit_bound, start.dtype, stats.d)
            proposal = Proposal(self, p, self.certify(stats, p), self.work(stats, p))
            if best is None or proposal.bound < best.bound:
                best = proposal
            # Once truncation is a small part, a higher degree cannot help.
            if proposal.bound <= tol or proposal.terms[0].value <= 1e-3 * tol:
                break
        assert best is not None
        return best

    def _with_room(self, stats: Stats, tol: float, smallest: Proposal) -> Proposal:
        """Return the Proposal for logits larger than these, where that is within tol as well.

        What the fused passes run again on new data they check with norms rounded up
        (`subquad.planning.rerun`), and the largest norm of new data is now above, now below these.
        """
        if not smallest.bound <= tol:
            return smallest
        for room in ROOM if smallest.parameters.dtype in OPERANDS else LITTLE_ROOM:
            logit_bound = min(room * smallest.parameters.logit_bound, LOGIT_BOUND_MAX)
            p = replace(smallest.parameters, logit_bound=logit_bound)
            proposal = Proposal(self, p, self.certify(stats, p), smallest.work)
            if proposal.bound <= tol:
                return proposal
        return smallest

    def certify(self, stats: Stats, parameters: PolynomialParameters) -> tuple[Term, ...]:
        """Return the Terms; infinite where a logit may lie outside the polynomial's interval."""
        return certify_part(stats, parameters, stats.logit_bound, stats.m, stats.key_offset)

    def work(self, stats: Stats, parameters: PolynomialParameters) -> Work:
        """Return r features of n queries and of m keys."""
        elements = (stats.n + stats.m) * (stats.d + stats.d_v)
        return Work(
            0.0,
            float(parameters.r) * (stats.n + stats.m),
            float(elements),
            stats.d,
            stats.d_v,
            parameters.dtype,
            passes_bytes(stats.d, stats.d_v, parameters),
            calls=both_passes(stats.m, stats.n, stats.d, stats.d_v, parameters.degree),
        )

    def run(self, head: Head, parameters: PolynomialParameters) -> Partial:
        """Return the sums over all keys."""
        rows = head.rows
        return polynomial_partial(
            head, (head.Q, rows.query_norms), (head.K, rows.key_norms), head.V, parameters
        )

    def run_on_shards(self, head: Head, parameters: PolynomialParameters) -> list[Partial]:
        """Return the sums of each shard's queries over the keys of all."""
        return polynomial_on_shards(
            head,
            (shards_of(head.Q), head.rows.query_norms),
            (shards_of(head.K), head.rows.key_norms),
            shards_of(head.V),
            parameters,
        )

    def widened(self, stats: Stats, parameters: PolynomialParameters) -> PolynomialParameters:
        """Return the parameters for the logits of `stats`."""
        return widened(parameters, stats.logit_bound)

    def rerunnable(self, parameters: PolynomialParameters) -> bool:
        """Return whether the fused passes made the sums: they run again without a survey."""
        return parameters.dtype in OPERANDS
