"""What the statistical statements rest on: intervals, tails, exact moments, independent entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import sympy

from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, proved, zero


def _psi_2(x: np.ndarray) -> float:
    from subquad.empirical.hypotheses import psi_2  # with scipy.stats: a second of import time

    return psi_2(x)


def _moments(y: np.ndarray) -> tuple[float, float]:
    from subquad.empirical.hypotheses import permutation_moments

    return permutation_moments(y)


def surely_below(count: int, confidence: float) -> float:
    """Return the share of cases, at least, that a run of `count` out of `count` shows."""
    return (1.0 - confidence) ** (1.0 / count)


def _coverage(n: int, nominal: float, wanted: Fraction) -> Finding:
    """Return whether the interval contains p with probability >= wanted, for every p.

    Between ends of intervals the counts whose interval contains p are a run a..b, and
    P(a <= X <= b) rises, then falls: so its least value is at an end, from either side.
    """
    from scipy import stats

    ends = []
    for k in range(n + 1):
        found = stats.binomtest(k, n).proportion_ci(nominal)
        ends.append((Fraction(float(found.low)), Fraction(float(found.high))))
    least = Fraction(1)
    points = sorted({x for pair in ends for x in pair})
    for left, right in zip(points, points[1:], strict=False):
        inside = [k for k, (a, b) in enumerate(ends) if a <= left and b >= right]
        for p in (left, right):
            share = sum((math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in inside), Fraction(0))
            if share < wanted:
                return refuted(
                    f"n = {n}, nominal {nominal}: coverage {float(share):.6f} at p = {float(p):.6f}"
                )
            least = min(least, share)
    return holds(f"n = {n}: least coverage over all p {float(least):.6f}")


def _clopper_pearson(nominal: float) -> Finding:
    # The interval's ends are floats: 1e-9 covers their rounding.
    wanted = Fraction(95, 100) - Fraction(1, 10**9)
    return both(*(_coverage(n, nominal, wanted) for n in (5, 12, 20)))


def _permutations(moments: Callable[[np.ndarray], tuple[float, float]]) -> Finding:
    """Return whether mean and variance of sum <y_i, y_(i+1)> are those over all n! orders."""
    rng = np.random.default_rng(2)
    for n, d in ((4, 1), (5, 2), (6, 3)):
        y = rng.integers(-4, 5, (n, d)).astype(float)
        y -= y.mean(axis=0)
        gram = [
            [
                sum((Fraction(a) * Fraction(b) for a, b in zip(u, v, strict=True)), Fraction(0))
                for v in y
            ]
            for u in y
        ]
        values = [
            sum((gram[a][b] for a, b in zip(order, order[1:], strict=False)), Fraction(0))
            for order in permutations(range(n))
        ]
        mean = sum(values, Fraction(0)) / len(values)
        variance = sum((v * v for v in values), Fraction(0)) / len(values) - mean**2
        for name, ours, true in zip(
            ("mean", "variance"), moments(y), (mean, variance), strict=True
        ):
            if abs(Fraction(ours) - true) > abs(true) / 10**10:
                shown = f"n = {n}, d = {d}: {name} {ours!r}"
                return refuted(f"{shown}, over all orders {float(true)!r}")
    return holds("all orders of 4, 5 and 6 rows, exact, to 1e-10")


def _markov(norm: Callable[[np.ndarray], float]) -> Finding:
    """Return whether, on samples of every tail, a share <= 2 exp(-t^2/s^2) exceeds t >= 0."""
    x, t = sympy.symbols("x t", nonnegative=True)
    steps = proved(
        {
            "(t+x)^2 - t^2 >= 0: an entry above t counts >= exp(t^2/s^2) in the mean of 2": bool(
                ((t + x) ** 2 - t**2).expand().is_nonnegative
            )
        }
    )
    rng = np.random.default_rng(3)
    samples = {
        "normal": rng.standard_normal(4000),
        "t2": rng.standard_t(2, 4000),
        "one outlier": np.append(np.full(999, 0.01), 50.0),
        "constant": np.full(7, 3.0),
        "signs": rng.choice([-1.0, 1.0], 50),
    }
    for name, sample in samples.items():
        s = norm(sample)
        sizes = np.sort(np.abs(sample))
        share = (sizes.size - np.arange(sizes.size)) / sizes.size  # of entries >= sizes[i]
        allowed = 2 * np.exp(-((sizes / s) ** 2)) * (1 + 1e-9)
        if np.any(share > allowed):
            i = int(np.argmax(share / allowed))
            return refuted(
                f"{name}: {share[i]:.4g} of the entries reach {sizes[i]:.4g}, "
                f"2 exp(-t^2/s^2) = {allowed[i]:.4g}"
            )
    return both(steps, holds(f"every threshold of {len(samples)} samples"))


def _large_rows(share: float) -> Finding:
    """Return whether the predicted number of large rows is never below the counted one."""
    from subquad.empirical.entries import entry_statistics

    rng = np.random.default_rng(4)
    worst = 0.0
    for draw in (rng.standard_normal, partial(rng.standard_t, 2)):
        Q, K = (np.asarray(draw(size=(256, 8))) for _ in range(2))
        found = entry_statistics(Q, K, K, resamples=2)
        for threshold in np.linspace(0.0, 12.0, 49):
            for rows in found.large_rows(float(threshold)):
                if rows.counted > rows.predicted * share * (1 + 1e-9):
                    return refuted(
                        f"T = {threshold:g}: {rows.counted} rows of {rows.rows}, "
                        f"predicted {rows.predicted * share:.4g}"
                    )
                if rows.predicted:
                    worst = max(worst, rows.counted / rows.predicted)
    return both(
        _markov(_psi_2),
        holds("A row above T has an entry above T, and there are n d entries"),
        holds(f"196 counts of Gaussian and t2 rows, up to {worst:.3f} of the prediction"),
    )


def _gaussian_psi(square: sympy.Rational) -> Finding:
    x = sympy.symbols("x", real=True)
    density = sympy.exp(-(x**2) / 2) / sympy.sqrt(2 * sympy.pi)
    integrand = sympy.exp(sympy.expand(x**2 / square - x**2 / 2)) / sympy.sqrt(2 * sympy.pi)
    mean = sympy.integrate(integrand, (x, -sympy.oo, sympy.oo))
    whole = sympy.integrate(density, (x, -sympy.oo, sympy.oo))
    if zero(mean - 2) and zero(whole - 1):
        return holds("E exp(x^2/s^2) = 2 at s^2 = 8/3")
    return refuted(f"at s^2 = {square} E exp(x^2/s^2) = {sympy.N(mean, 8)}, 2 is needed")


def _off(moments: Callable[[Any], tuple[float, float]], y: np.ndarray) -> tuple[float, float]:
    mean, variance = moments(y)
    return mean, 0.99 * variance


LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="clopper-pearson",
        statement="The Clopper-Pearson interval of level 0.95 contains p with probability >= 0.95 "
        "for every p.",
        source="Clopper and Pearson 1934",
        provenance="recalled",
        evidence="exact",
        check=partial(_clopper_pearson, 0.95),
        twin=Twin("so does that of level 0.90", partial(_clopper_pearson, 0.90)),
    ),
    Claim(
        id="psi2-markov",
        statement="On every sample the share of entries of magnitude >= t is at most "
        "2 exp(-t^2/psi_2^2).",
        source="Vershynin, High-Dimensional Probability, section 2.5",
        provenance="recalled",
        evidence="symbolic",
        check=partial(_markov, _psi_2),
        twin=Twin("psi_2 may be 30 % smaller", partial(_markov, lambda x: 0.7 * _psi_2(x))),
    ),
    Claim(
        id="psi2-gaussian",
        statement="psi_2 of N(0, 1) is sqrt(8/3).",
        source="Vershynin, High-Dimensional Probability, section 2.5",
        provenance="recalled",
        evidence="symbolic",
        check=partial(_gaussian_psi, sympy.Rational(8, 3)),
        twin=Twin(
            "it is 1 % smaller in the square",
            partial(_gaussian_psi, sympy.Rational(8, 3) * sympy.Rational(99, 100)),
        ),
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="permutation-moments",
        statement="Mean and variance of sum_i <y_i, y_(i+1)> over all orders of the rows are what "
        "permutation_moments returns without forming any order.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(_permutations, _moments),
        twin=Twin("the variance is 1 % smaller", partial(_permutations, partial(_off, _moments))),
    ),
    Claim(
        id="large-rows-union",
        statement="With sigma^2 = psi_2^2/2 of the entries, at most 2 n d exp(-T^2/(2 sigma^2)) "
        "rows have an entry above T, on the sample always.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_large_rows, 1.0),
        twin=Twin("at most a hundredth of that", partial(_large_rows, 0.01)),
        depends=("psi2-markov",),
    ),
)
