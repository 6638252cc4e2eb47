"""What a method may refuse: for drawn Data, whether its own theorem cannot reach the tolerance."""

import math

import numpy as np

import subquad
from subquad.bounds.softmax import ratio_bound, ratio_bound_inverse
from subquad.exp_poly.degree import estimated_degree
from subquad.head.problem import Problem
from subquad.methods.anisotropic.method import AT_LEAST
from subquad.methods.exact import ExactParameters
from subquad.methods.method import stored_norm_bound
from subquad.methods.polynomial.sums import (
    LOGIT_BOUND_MAX,
    LOGIT_BOUND_MIN,
    parameters_for,
    passes_bytes,
)

EXACT, POLYNOMIAL = subquad.METHODS["exact"], subquad.METHODS["polynomial"]
ANISOTROPIC = subquad.METHODS["anisotropic"]
COMPUTE = ("float32", "float64")
ANYWHERE = 2**30
"""Bytes of passes that any machine of the tests has room for."""


def heads_of(data):
    return Problem(data.Q, data.K, data.V, scale=data.scale, key_mask=data.key_mask).heads


def stats_of(data):
    return [head.stats for head in heads_of(data)]


def exact_bound(stats):
    """Return the a priori bound of the exact method in float64."""
    return sum(float(term.value) for term in EXACT.certify(stats, ExactParameters("float64")))


def exact_cannot(data) -> bool:
    """Return whether the exact method's own bound exceeds tol in some head."""
    return any(not exact_bound(stats) <= data.tol for stats in stats_of(data))


def polynomial_cannot(data) -> bool:
    """Return whether in some head no degree, in either dtype, has a bound within tol."""
    return any(not _some_degree_can(stats, data.tol) for stats in stats_of(data))


def _some_degree_can(stats, tol) -> bool:
    if not stored_norm_bound(stats.logit_bound, "float32") <= LOGIT_BOUND_MAX:
        return False
    for dtype in COMPUTE:
        logit_bound = max(stored_norm_bound(stats.logit_bound, dtype), LOGIT_BOUND_MIN)
        start = estimated_degree(logit_bound, ratio_bound_inverse(tol))
        for degree in range(max(0, start - 2), start + 8):
            p = parameters_for(degree, logit_bound, dtype, stats.d)
            if passes_bytes(stats.d, stats.d_v, p) > ANYWHERE:
                return False  # a plan may say that it needs more memory than there is
            if sum(float(t.value) for t in POLYNOMIAL.certify(stats, p)) <= tol:
                return True
    return False


def anisotropic_cannot(data) -> bool:
    """Return whether in some head no set that is always tried, in either dtype, is within tol."""
    return any(not _some_set_can(stats, data.tol) for stats in stats_of(data))


def _some_set_can(stats, tol) -> bool:
    tried = (
        [
            ANISOTROPIC.parameters(stats, r, dtype)
            for dtype in COMPUTE
            for r in (1, 8, 64, 256, AT_LEAST)
        ]
        if stats.rotation
        else []
    )
    return any(sum(float(t.value) for t in ANISOTROPIC.certify(stats, p)) <= tol for p in tried)


def line_cannot(data) -> bool:
    """Return whether in some head the best line, and rounding, are off by more than tol.

    The error (a + b x) exp(-x) - 1 is least where it is -E at both ends of [-B, B] and E between,
    at x = 1 - B coth B: then (1 + E) / (1 - E) = exp(B coth B - 1) sinh(B) / B.
    """
    return any(not _line_bound(stats) <= data.tol for stats in stats_of(data))


def _line_bound(stats) -> float:
    B = max(stats.logit_bound, 1e-4)  # below, cancellation; the error there is 3e-9
    if not B < 7.9:  # there the error is within 1e-5 of 1 and its bound of 2
        return math.inf
    log_ratio = B / math.tanh(B) - 1.0 + math.log(math.sinh(B) / B)
    truncation = float(ratio_bound(math.tanh(log_ratio / 2.0)))
    return 1.001 * truncation + exact_bound(stats) + 1e-11 * math.exp(2.0 * B)


def fitted_cannot(data) -> bool:
    """Return whether exact rows cannot, or nine queries in ten reach past what any degree is for.

    Up to a 32nd of the keys, and those nearly as small, may be left to the exact part.
    """
    for head in heads_of(data):
        queries, keys = (np.sort(x)[::-1] for x in (head.rows.query_norms, head.rows.key_norms))
        low, large = queries[int(0.9 * (queries.size - 1))], keys[keys.size // 32]
        if low * large > 14.5:
            return True
    return exact_cannot(data)
