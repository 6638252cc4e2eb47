"""Attention by the Taylor monomials that a steep spectrum leaves worth keeping, O((n + m) r d_v).

Theorem (claim `box-taylor`): q.k = (qM).(kM^-T) for any invertible M. In a basis that balances the
second moments most coordinates have small products b_i = max|q'_i| max|k'_i|, and keeping a set S
of monomials leaves each weight within exp(sum b_i) - sum_S prod b_i^alpha_i / alpha_i! of the true
one. The sums may be of either sign, so the row moves by 2 E / D~ (claim `additive-sharp`), with E
that tail times the sum of the key weights. d = 32, B = 2, each coordinate half of the one before:
hundreds of monomials where the degree needs 435,897. Buckets of `multi_threshold` have no set of
their own: on 48 parts of 12 real heads (the eighth, quarter, half and all of rows and keys by norm,
own centres, tol 0.1) no set of 65,536 monomials closes, while in 9 a degree with fewer does.

Rounding: see `subquad.engine.lengths`; the sum of absolute values of a row is at most
exp(sum_i |x_i| max_j |y_ji|) times the sum of the key weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from subquad.arrays.arithmetic import OUTWARD, namespace
from subquad.bounds.certificate import Term
from subquad.bounds.partial import Partial
from subquad.bounds.softmax import additive_bound, logit_perturbation_bound
from subquad.cost.rates import Rates, Work
from subquad.cost.steps import Overhead
from subquad.engine.lengths import set_bytes
from subquad.engine.passes import accumulate_set, contract_set
from subquad.engine.threads import thread_count
from subquad.features.anisotropic import MONOMIALS_MAX, best_first, best_set, box_tail
from subquad.head.basis import rotated
from subquad.head.problem import Head
from subquad.head.stats import Stats
from subquad.methods.anisotropic.proof import (
    AnisotropicParameters,
    a_priori,
    box_of,
    exp_up,
    perturbation_of,
    rounding_of,
    tail_within,
)
from subquad.methods.method import (
    COMPUTE_DTYPES,
    Method,
    Proposal,
    Refusal,
    storage_term,
    stored_norm_bound,
)

FLAT = 0.75
"""Where more than this share of the coordinates matters, sets are not tried against a budget."""
BASIS_STEPS = 4000.0
"""What finding the basis on a sample costs in every run, in steps of the passes."""
AT_LEAST = 1024
"""Sets up to this size are tried even where exact would be faster."""


class Anisotropic(Method):
    """Taylor monomials chosen on the box of a balanced basis, one pass over each side."""

    name = "anisotropic"
    takes_budget = True
    search = 5e-3

    def fit(
        self, stats: Stats, tol: float, rates: Rates, budget: float = math.inf
    ) -> Iterator[Proposal | Refusal]:
        """Yield the smallest certified set in the cheaper dtype, or how many it would take."""
        if budget < math.inf and stats.sample is not None:
            matter = stats.sample.effective_dimension()
            if matter > FLAT * stats.d:
                reason = f"flat spectrum: about {matter:.3g} of {stats.d} coordinates matter"
                yield Refusal(self, "", reason)
                return
        if stats.rotation is None:
            known = (
                "the box is too large for any set"
                if stats.magnitudes_known
                else ("needs the largest entry of each coordinate: give data")
            )
            yield Refusal(self, "", known)
            return
        offers = [self._smallest(stats, tol, dtype, rates, budget) for dtype in COMPUTE_DTYPES]
        certified = [o for o in offers if isinstance(o, Proposal) and o.bound <= tol]
        if certified:
            yield min(certified, key=lambda p: rates.seconds(p.work))
            return
        yield next(o for o in reversed(offers) if isinstance(o, Refusal))

    def _smallest(
        self, stats: Stats, tol: float, dtype: str, rates: Rates, budget: float
    ) -> Proposal | Refusal:
        """Return the smallest set within tol, or why there is none."""
        box = box_of(stats, dtype)
        order, most = best_first(box), self._most(stats, dtype, rates, budget)
        spread, p = f"sum b {math.fsum(box):.3g}", self.parameters(stats, 1, dtype)
        for attempt in range(8):
            # Rounding depends on the set, and so does what it leaves to the tail.
            wanted = tail_within(stats, p, tol) * (1.0 - 2.0**-20)
            if not wanted > 0.0:
                break
            r = max(order.grow(wanted, most), p.r + 1 + p.r // 256 if attempt > 1 else 1)
            p = self.parameters(stats, min(r, order.taken, most), dtype)
            if self._bound(stats, p) <= tol:
                return Proposal(self, p, self.certify(stats, p), self.work(stats, p))
            if order.exhausted and p.r == order.taken:
                break
            if r > most:
                needed = max(order.at_least(wanted), most + 1)
                reason = f"needs at least {needed:,} monomials at {spread}, {most:,} allowed"
                return Refusal(self, str(p), reason, self._bound(stats, p))
        reason = f"rounding and storage leave no room at {spread}"
        return Refusal(self, str(p), reason, self._bound(stats, p))

    def _bound(self, stats: Stats, parameters: AnisotropicParameters) -> float:
        return sum(float(term.value) for term in self.certify(stats, parameters))

    def parameters(self, stats: Stats, r: int, dtype: str) -> AnisotropicParameters:
        """Return those of the r best monomials of a head."""
        box = box_of(stats, dtype)
        kept = best_set(box, r)
        return AnisotropicParameters(kept.r, kept.degree, dtype, box)

    def _most(self, stats: Stats, dtype: str, rates: Rates, budget: float) -> int:
        """Return how many monomials are still faster than exact and `budget`, within limits."""

        def seconds(pairs: float, tokens: float) -> float:
            return rates.seconds(Work(pairs, tokens, 0.0, stats.d, stats.d_v, dtype))

        tokens = float(stats.n + stats.m)
        each = seconds(0.0, tokens) - seconds(0.0, 0.0)
        exact = seconds(float(stats.n) * stats.m, 0.0) - seconds(0.0, 0.0)
        beats = exact / each if each > 0.0 else math.inf
        most = min(max(beats, AT_LEAST), MONOMIALS_MAX)
        if budget < math.inf and each > 0.0:
            most = min(most, max((budget - seconds(0.0, 0.0)) / each - stats.d, 1.0))
        return int(most)

    def certify(self, stats: Stats, parameters: AnisotropicParameters) -> tuple[Term, ...]:
        """Return the a priori Terms; infinite where no basis was found."""
        tail, sums, floor, perturbation = a_priori(stats, parameters)
        safe = floor - tail - 2.0 * sums  # the run divides by computed sum - rounding
        moved = float(additive_bound(tail / safe * OUTWARD**4)) if safe > 0.0 else math.inf
        rounded = sums * (1.0 + moved) / safe if safe > 0.0 else math.inf
        return (
            Term("truncation", "output-bound", moved),
            Term("logits", "logit-perturbation", float(logit_perturbation_bound(perturbation))),
            Term("sums", "rounding-sums", rounded * OUTWARD**4 + 2.0**-50),
            storage_term(stats, parameters.dtype),
        )

    def work(self, stats: Stats, parameters: AnisotropicParameters) -> Work:
        """Return r features of n queries and of m keys, and d more for the change of basis."""
        tokens = float(stats.n + stats.m)
        return Work(
            0.0,
            (parameters.r + stats.d) * tokens,
            tokens * (stats.d + stats.d_v),
            stats.d,
            stats.d_v,
            parameters.dtype,
            set_bytes(parameters.r, stats.d_v + 1, thread_count()),
            calls=Overhead(BASIS_STEPS),
        )

    def run(self, head: Head, parameters: AnisotropicParameters) -> Partial:
        """Return the sums over all keys."""
        frame, rotation, dtype = head.frame, head.rows.rotation, parameters.dtype
        assert rotation is not None  # `certify` refuses
        stats, kept = head.stats, parameters.kept
        weights, shift = frame.key_weights(head.K)
        X = rotated(head.Q, frame.query, rotation.query_basis, dtype)
        Y = rotated(head.K, frame.key, rotation.key_basis, dtype)
        moments = accumulate_set(Y, frame.values(head.V, weights, dtype), kept)
        sums = contract_set(X, moments, kept)
        whole = stats.m if weights is None else math.fsum(weights.tolist()) * OUTWARD
        xp = namespace(X)
        reach = xp.astype(xp.abs(X), xp.float64) @ xp.asarray(
            stored_norm_bound(rotation.key_reach, dtype)
        )
        relative, underflow = rounding_of(stats, parameters)
        one = xp.ones(stats.n, dtype=xp.float64)
        return Partial(
            sums[:, :-1],
            sums[:, -1],
            xp.full(stats.n, shift, dtype=xp.int64),
            error=box_tail(box_of(stats, dtype), kept) * whole * OUTWARD * one,
            ratio=one,
            rounding=whole * relative * exp_up(reach, stats.d) + underflow,
            perturbation=perturbation_of(stats, rotation, dtype) * one,
        )
