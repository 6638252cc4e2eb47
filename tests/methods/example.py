"""Attention by one straight line: exp(x) is near a + b x, so the features are 1 and the keys.

Theorem (claim `output-bound`): on [-B, B] the best line is within eps exp(x) of exp(x), eps about
B^2 / 4 and proved by `minimax`. Then each computed weight is within eps of the true one, and the
output moves by at most 2(1 - sqrt(1 - eps^2))/eps, about eps, in units of value_radius. Costs
O((n + m) d d_v).
"""

from dataclasses import dataclass

import numpy as np

from subquad.arrays.arithmetic import namespace
from subquad.bounds.partial import Partial
from subquad.bounds.rounding import polynomial_sum_error, polynomial_underflow
from subquad.bounds.softmax import normaliser_lower_bound
from subquad.cost.rates import Work
from subquad.cost.steps import both_passes
from subquad.engine import accumulate, contract
from subquad.exp_poly import minimax
from subquad.features import block_sizes
from subquad.methods import method
from subquad.methods.polynomial.sums import gammas_for

SMALLEST, LARGEST = 2.0**-40, 8.0  # logit bounds of a line; at 8 eps is within 1e-5 of 1


@dataclass(frozen=True)
class LineParameters:
    """The logit bound B that the line is for: `run` is told nothing else."""

    logit_bound: float

    def __str__(self):
        return f"a + b x for logits to {self.logit_bound:.3g}"

    @property
    def line(self):
        return minimax(1, self.logit_bound)

    def rounding(self, d, keys, query_norms, norm_moments):
        """Return a bound of |numerator error| + |normaliser error|, key weights of sum >= 1/2."""
        c, gammas = self.line.scaled(), gammas_for(d, keys, 1, "float64")
        lost = polynomial_underflow(c, block_sizes(d, 1), keys, d, self.logit_bound, "float64")
        return polynomial_sum_error(c, query_norms, norm_moments, gammas) + 2.0 * lost


class Line(method.Method):
    """One line for all logits."""

    name = "line"

    def fit(self, stats, tol, rates):
        B = max(method.stored_norm_bound(stats.logit_bound, "float64"), SMALLEST)
        if not B <= LARGEST:  # written so that NaN is refused
            yield method.Refusal(self, "", f"logit bound {B:.3g} exceeds {LARGEST:g}")
            return
        p = LineParameters(B)
        offer = method.Proposal(self, p, self.certify(stats, p), self.work(stats, p))
        reason = f"a line is off by {p.line.upper:.2g} at logit bound {B:.3g}"
        yield offer if offer.bound <= tol else method.Refusal(self, str(p), reason, offer.bound)

    def certify(self, stats, parameters):
        B, eps = parameters.logit_bound, parameters.line.upper
        inside = method.stored_norm_bound(stats.logit_bound, "float64") <= B
        # Per unit of key weight |q|^k M_k is at most B^k.
        sums = parameters.rounding(stats.d, stats.m, np.asarray(B), np.ones(2))
        return method.a_priori_terms(
            stats,
            "float64",
            eps=eps if inside else np.inf,
            perturbation=method.input_error(B, stats.d, "float64", stats.keys_weighted),
            sums=float(sums),
            floor=float(normaliser_lower_bound(1.0, B, stats.key_offset)) / (1.0 + eps),
        )

    def work(self, stats, parameters):
        n, m, d, d_v = stats.n, stats.m, stats.d, stats.d_v
        features, entries = (d + 1.0) * (n + m), float(n + m) * (d + d_v)
        state, calls = 24.0 * (d + 1) * (d_v + 8), both_passes(m, n, d, d_v, 1)
        return Work(0.0, features, entries, d, d_v, "float64", state_bytes=state, calls=calls)

    def run(self, head, parameters):
        frame, rows, xp = head.frame, head.rows, namespace(head.Q)
        B, eps, c = parameters.logit_bound, parameters.line.upper, parameters.line.scaled()
        weights, shift = frame.key_weights(head.K)
        keys, values = frame.keys(head.K, "float64"), frame.values(head.V, weights, "float64")
        state = accumulate(keys, values, 1, key_centre=frame.key.centre, weight_shift=shift)
        numerator, by_degree = contract(frame.queries(head.Q, "float64"), state, c)
        normaliser = by_degree @ xp.asarray(c)
        norms = xp.asarray(method.stored_norm_bound(rows.query_norms, "float64"))
        rounding = parameters.rounding(state.d, state.count, norms, state.norm_moments)
        inside = norms * method.stored_norm_bound(float(rows.key_norms.max()), "float64") <= B
        perturbation = method.input_error(B, state.d, "float64", weights is not None)
        one = xp.ones_like(normaliser)
        return Partial(
            numerator,
            normaliser,
            xp.full(normaliser.shape, shift, dtype=xp.int64),
            error=xp.where(inside, eps * (normaliser + rounding), xp.inf),
            ratio=xp.where(inside, eps * one, one),
            rounding=rounding,
            perturbation=perturbation * one,
        )
