"""Softmax attention as a sum of polynomial attentions, measured: the bridge between the two.

exp restricted to the logits of one bucket of queries with one bucket of keys, both by norm, is
nearly a polynomial of low degree, and each power of it is a polynomial attention (q.k)^k over those
rows and keys. Beside the sum stands one polynomial attention ((q.k + t)^p, p even, normalised), as
good as the best p and t make it, and the uniform answer. Everything here is measured on the full
matrix of weights, O(n m), and proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from subquad.arrays.arguments import check_size
from subquad.empirical.bridge_fits import Approximation, Measure, buckets_of, power_of, sum_of
from subquad.head.problem import Problem

POWERS = (2, 4, 8)
DEGREE_MAX = 64
ENTRIES_MAX = 2**24
LOGIT_MAX = 2.0**1022
"""Largest |logit|: float64 holds the difference of any two."""


@dataclass(frozen=True)
class Bridge:
    """What `softmax_as_polynomials` found.

    Attributes
    ----------
    by_degree : tuple of Approximation
        The sum over the bucket pairs of polynomials of degree 0, 1, ... up to the one asked for.
    powers : tuple of Approximation
        One polynomial attention with p = 2, 4, 8, plain and with its best shift t.
    uniform : Approximation
        The null model: every weight 1/m.
    logit_bounds : array (buckets, buckets)
        Largest |logit| of each pair of buckets, keys centred at their mean.
    """

    by_degree: tuple[Approximation, ...]
    powers: tuple[Approximation, ...]
    uniform: Approximation
    logit_bounds: np.ndarray

    @property
    def best_power(self) -> Approximation:
        """The one polynomial attention of smallest l2 error of the weights."""
        return min(self.powers, key=lambda found: found.weights["2"])


def softmax_as_polynomials(
    Q: Any, K: Any, V: Any, /, *, buckets: int, degree: int, scale: float | None = None
) -> Bridge:
    """Return how well a sum of polynomial attentions stands for softmax attention; measured.

    Parameters
    ----------
    Q, K, V : array (n, d), (m, d), (m, d_v)
        One head, n m at most 2**24: the full matrix of weights is formed, in float64.
    buckets : int
        At most so many of queries and of keys, by norm, thresholds in geometric progression.
    degree : int
        Highest degree on each pair of buckets, 1 to 64.
    scale : float, optional
        Positive; 1/sqrt(d) by default.

    Returns
    -------
    Bridge
        Errors in l_p of weights and output against the number of terms, bucket pairs times
        (degree + 1); of one polynomial attention as good as can be; of the uniform answer.

    Raises
    ------
    TypeError, ValueError
        For bad input, as `attention` does; ValueError if a logit exceeds 2**1022.
    """
    problem = Problem(Q, K, V, scale=scale)
    check_size("buckets", buckets)
    if check_size("degree", degree) > DEGREE_MAX:
        msg = f"`degree` is {degree}; it must be at most {DEGREE_MAX}."
        raise ValueError(msg)
    lead, n, m, _, _ = problem.sizes
    if lead != ():
        msg = f"`Q`, `K`, `V` have leading dimensions {lead}; pass one head, (n, d)."
        raise ValueError(msg)
    if n * m > ENTRIES_MAX:
        msg = f"`Q` and `K` have n m = {n * m:,} logits, all of which are formed: 2**24 at most."
        raise ValueError(msg)
    q, k, v = (np.asarray(x, dtype=np.float64) for x in (Q, K, V))
    q, k, logits = _centred(q, k, problem.scale)
    measure = Measure(logits, v)
    rows, columns = buckets_of(q, buckets), buckets_of(k, buckets)
    return Bridge(
        tuple(sum_of(measure, rows, columns, g) for g in range(degree + 1)),
        tuple(power_of(measure, p, shifted) for p in POWERS for shifted in (False, True)),
        measure.of("uniform, mean(V)", 0, np.ones_like(measure.logits)),
        np.array([[abs(measure.logits[np.ix_(a, b)]).max() for b in columns] for a in rows]),
    )


def _centred(
    q: np.ndarray, k: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scale * q, k less its mean, and the logits; ValueError where one is too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        rows = q * scale
        # Divided first, by 2**25: the sum of 2**24 keys at most does not overflow.
        columns = k - np.ldexp(np.ldexp(k, -25).mean(axis=0), 25)
        logits = rows @ columns.T
    if not np.abs(logits).max() <= LOGIT_MAX:
        msg = (
            f"`Q` and `K` have entries up to {np.abs(q).max():.3g} and {np.abs(k).max():.3g}: "
            f"at `scale` {scale:.3g} a logit exceeds {LOGIT_MAX:.3g}, the most that is taken; "
            "scale them down."
        )
        raise ValueError(msg)
    return rows, columns, logits
