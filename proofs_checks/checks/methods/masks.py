"""How many rows a threshold selects when entries are Gaussian: closed form, bound, and draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial

import flint
import numpy as np
import sympy

from proofs_checks.checks.methods.reference_code import REPOSITORY
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, proved, zero
from subquad.exp_poly.balls import ball, precision

N, D, SIGMA = 4096, 64, Fraction(1, 10)
FRACTIONS = {
    "0.15": ".9999",
    "0.20": ".949",
    "0.25": ".551",
    "0.30": ".159",
    "0.35": ".029",
    "0.40": ".004",
}


def _row_share(threshold: Fraction) -> flint.arb:
    """Return P(a row has an entry above the threshold), a ball: 1 - erf(T/(sigma sqrt 2))^d."""
    t = ball(threshold / SIGMA) / ball(2).sqrt()
    return 1 - t.erf() ** D


def _masks(table: Mapping[str, str]) -> Finding:
    """Return whether the shares of masked rows are those of the table, rounded."""
    with precision(128):
        for threshold, printed in table.items():
            share = float(_row_share(Fraction(threshold)))
            digits = len(printed) - 1
            if abs(share - float(printed)) > 0.5000001 * 10**-digits:
                return refuted(f"T = {threshold}: share {share:.6f}, printed {printed}")
    return both(holds(f"closed form in balls at {len(table)} thresholds"), _measured())


def _measured() -> Finding:
    """Return whether drawn rows agree: all six counts in Clopper-Pearson intervals of 0.9999."""
    from scipy import stats

    rows = np.random.default_rng(6).standard_normal((5 * N, D)) * float(SIGMA)
    largest = np.max(np.abs(rows), axis=1)
    with precision(128):
        for threshold in FRACTIONS:
            count = int(np.sum(largest > float(threshold)))
            interval = stats.binomtest(count, largest.size).proportion_ci(0.9999)
            share = float(_row_share(Fraction(threshold)))
            if not interval.low <= share <= interval.high:
                return refuted(f"T = {threshold}: counted {count} of {largest.size}, share {share}")
    return holds(f"and in the 0.9999 intervals of {largest.size} drawn rows")


def _union(factor: int) -> Finding:
    """Return whether E|R| <= factor n exp(-T^2/(2 sigma^2)), for every T >= 0."""
    t, p = sympy.symbols("t p", positive=True)
    tail = sympy.erfc(t / sympy.sqrt(2))
    bound = sympy.exp(-(t**2) / 2)
    slope = sympy.diff(bound - tail, t)
    d = sympy.symbols("d", integer=True, positive=True)
    steps = proved(
        {
            "bound - tail has slope (sqrt(2/pi) - t) exp(-t^2/2): from 0 up, then down to 0": zero(
                slope - (sympy.sqrt(2 / sympy.pi) - t) * sympy.exp(-(t**2) / 2)
            ),
            "1 - (1-p)^d <= d p: equal at 0, slope of the gap d(1 - (1-p)^d/(1-p)) >= 0": zero(
                sympy.diff(d * p - 1 + (1 - p) ** d, p) - d * (1 - (1 - p) ** d / (1 - p))
            ),
        }
    )
    with precision(128):
        for threshold in (Fraction(k, 40) for k in range(41)):
            share = _row_share(threshold)
            allowed = factor * (-(ball(threshold / SIGMA) ** 2) / 2).exp()
            if not share <= allowed:
                return refuted(f"T = {threshold}: share {float(share):.4g} > {float(allowed):.4g}")
    return steps


def _expected_work(of: Callable[[float, float], float]) -> Finding:
    """Return whether drawn exact work agrees with n E|R| + (n - E|R|) E|C|, T = 0.3 and 0.35."""
    from scipy import stats

    rng, n, draws, shown = np.random.default_rng(7), 512, 60, []
    for threshold in (0.3, 0.35):
        with precision(128):
            share = float(_row_share(Fraction(str(threshold))))
        work = []
        for _ in range(draws):
            a, b = (
                int(np.sum(np.max(np.abs(rng.standard_normal((n, D)) * 0.1), axis=1) > threshold))
                for _ in range(2)
            )
            work.append(a * n + (n - a) * b)
        mean = float(np.mean(work))
        # Student's interval of 0.9999: the work is nearly a sum of two binomials.
        reach = float(stats.t.ppf(0.99995, draws - 1) * np.std(work, ddof=1) / np.sqrt(draws))
        expected = of(share, n)
        if abs(mean - expected) > reach:
            return refuted(
                f"T = {threshold}: drawn {mean:.0f} +- {reach:.0f}, expected "
                f"{expected:.0f} pairs of {n * n}"
            )
        shown.append(f"T = {threshold}: {mean:.0f} +- {reach:.0f}, expected {expected:.0f}")
    return holds(f"{'; '.join(shown)} of {n * n} pairs, confidence 0.9999 each")


LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="sb-mask-fractions",
        statement="At T = .15, .2, .25, .3, .35, .4 the masks of the efficiency experiment select "
        ".9999, .949, .551, .159, .029, .004 of the rows: nearly all, or nearly none.",
        source=REPOSITORY,
        provenance="read",
        evidence="enclosed",
        check=partial(_masks, FRACTIONS),
        twin=Twin(".545 of the rows at T = .25", partial(_masks, FRACTIONS | {"0.25": ".545"})),
        depends=("clopper-pearson",),
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="sb-union-rows",
        statement="E|R| <= n d exp(-T^2/(2 sigma^2)) for Gaussian entries and every T >= 0: half "
        "of the union bound that any sub-Gaussian law allows.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_union, D),
        twin=Twin("the factor d is not needed", partial(_union, 1)),
    ),
    Claim(
        id="sb-expected-work",
        statement="Expected exact work is n E|R| + (n - E|R|) E|C| for independent Q and K.",
        source="subquad",
        provenance="derived",
        evidence="statistical",
        check=partial(_expected_work, lambda p, n: n * n * (p + (1 - p) * p)),
        twin=Twin(
            "the expected large rows alone, n E|R|", partial(_expected_work, lambda p, n: n * n * p)
        ),
        depends=("sb-mask-fractions", "support-work"),
    ),
)
