"""Checks of the gadget of Haverbeck et al., which turns near pairs into large outputs.

n keys b_j and queries a_i in {0,1}^d of weight d/2; the keys are rho sqrt(beta) (b_j, -mu 1, 0) and
n more of zero, the queries rho sqrt(beta) (a_i, 1, 0); the value is 1 at the keys b_j, 0 at the
others; logits are divided by D, rho^2 = D/(2d), beta = 12 d ln n/(eps t),
mu = 1/2 - (1/2 + eps/3) t/d.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, combinations_with_replacement, product

import flint
import numpy as np

from proofs_checks.claim import Finding, holds, refuted, undecided
from subquad.exp_poly.balls import ball, precision


def balanced(d: int) -> list[tuple[int, ...]]:
    """Return all vectors of {0,1}^d of weight d/2."""
    ones = combinations(range(d), d // 2)
    return [tuple(int(i in chosen) for i in range(d)) for chosen in ones]


def logit_over_log_n(inner: int, d: int, t: int, eps: Fraction) -> Fraction:
    """Return the gadget's logit, in units of ln n, of a query and a key with that inner product."""
    mu = Fraction(1, 2) - (Fraction(1, 2) + eps / 3) * t / d
    return 12 * d / (eps * t) * (inner - mu * d) / (2 * d)


def _instances() -> Iterator[tuple[int, int, int, Fraction]]:
    """Yield (n, d, t, eps): every integer far distance (1 + eps) t <= d, and one between two."""
    for n, d in product((2, 3, 4), (2, 4, 6, 8)):
        for t in range(1, d):
            for far in range(2 * t + 1, 2 * d + 1):
                yield n, d, t, Fraction(far - 2 * t, 2 * t)


def gadget(factor: Fraction) -> Finding:
    """Return whether y >= n/(n+1) with a key within t, y <= factor/(n+1) with none within (1+eps)t.

    Every query and all n keys are taken, up to what the logits depend on: the distances, by the
    first loop. y is enclosed in balls, or exact where the exponents of n are integers.
    """
    for d in (2, 4, 6, 8):
        vectors = np.array(balanced(d))
        distances = np.abs(vectors[:, None] - vectors).sum(axis=2)
        if not np.array_equal(2 * (vectors @ vectors.T), d - distances):
            return refuted(f"d = {d}: <a, b> is not (d - dist)/2")
    count = 0
    with precision(120):
        for n, d, t, eps in _instances():
            logits = {s: logit_over_log_n((d - s) // 2, d, t, eps) for s in range(0, d + 1, 2)}
            for keys in combinations_with_replacement(logits, n):
                near = min(keys) <= t
                if not near and min(keys) < (1 + eps) * t:
                    continue  # outside the promise
                y = _output([logits[s] for s in keys], n)
                where = f"n = {n}, d = {d}, t = {t}, eps = {eps}, distances {keys}: y = {y}"
                bound = flint.fmpq(n, n + 1) if near else _exact(factor / (n + 1))
                if y < bound if near else y > bound:
                    return refuted(f"{where}, bound {bound}")
                if not (y >= bound if near else y <= bound):
                    return undecided(where)
                count += 1
    return holds(f"{count:,} instances: n = 2, 3, 4, d = 2..8, all t, eps and distances")


def _output(exponents: list[Fraction], n: int) -> flint.fmpq | flint.arb:
    if all(e.denominator == 1 for e in exponents):
        exact = sum((flint.fmpq(n) ** int(e) for e in exponents), flint.fmpq(0))
        return exact / (exact + n)
    mass = sum((ball(n) ** ball(e) for e in exponents), flint.arb(0))
    return mass / (mass + n)


def _exact(value: Fraction) -> flint.fmpq:
    return flint.fmpq(value.numerator, value.denominator)


def entry_bound(factor: Fraction) -> Finding:
    """Return whether rho^2 beta <= factor 6 C_d/(eps c) log N for t >= c log N, D = C_d log N.

    ln n <= log N, as N = 2n.
    """
    import sympy as sp

    d, t, eps, c, C_d, log_n = sp.symbols("d t eps c C_d l", positive=True)
    more = sp.Symbol("s", nonnegative=True)
    log_N = log_n + more
    size = (C_d * log_N / (2 * d)) * (12 * d * log_n / (eps * t))
    largest = size.subs(t, c * log_N)
    margin = sp.factor(6 * C_d / (eps * c) * log_N * sp.Rational(factor) - largest)
    decreasing = sp.simplify(sp.diff(size, t) + size / t) == 0
    if decreasing and sp.expand(margin * eps * c / (6 * C_d)).is_nonnegative:
        return holds(f"largest at t = c log N; margin there {margin}")
    at_equality = margin.subs(more, 0)
    if at_equality.is_negative:
        return refuted(f"log N = ln n, t = c log N: margin {at_equality}")
    return undecided(f"margin {margin}")
