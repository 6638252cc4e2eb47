"""Independent sub-Gaussian entries keep all logits bounded: no threshold has anything to do."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache, partial

import flint
import numpy as np
import sympy

from proofs_checks.checks.empirical.statistics import surely_below
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, proved, zero
from subquad.exp_poly.balls import ball, precision


@cache
def product_mgf() -> Finding:
    """Return the proof of E exp(lambda q k) <= (1 - lambda^2)^(-1/2), q and k independent.

    Both 1-sub-Gaussian: E exp(t q) <= exp(t^2/2). With g standard normal, exp(lambda^2 k^2/2) is
    E exp(lambda g k) over g, so the bound serves once for q and once for k.
    """
    t, g = sympy.symbols("t g", real=True)
    lam = sympy.symbols("lambda", positive=True)
    gap = sympy.symbols("gap", positive=True)  # 1 - lambda^2
    line = (g, -sympy.oo, sympy.oo)
    normal = 1 / sympy.sqrt(2 * sympy.pi)
    linear = sympy.integrate(normal * sympy.exp(t * g - g**2 / 2), line)
    square = sympy.integrate(normal * sympy.exp(-gap * g**2 / 2), line)
    x = sympy.symbols("x", positive=True)
    best = (sympy.sqrt(1 + 4 * x**2) - 1) / (2 * x)
    slope = sympy.diff(lam * x + sympy.log(1 - lam**2) / 2, lam).subs(lam, best)
    return proved(
        {
            "E exp(t g) = exp(t^2/2), for t = lambda k and back": zero(
                linear - sympy.exp(t**2 / 2)
            ),
            "E exp(lambda^2 g^2/2) = (1 - lambda^2)^(-1/2)": zero(square - 1 / sympy.sqrt(gap)),
            "lambda x + log(1-lambda^2)/2 is stationary at (sqrt(1+4x^2)-1)/(2x)": zero(slope),
        }
    )


def _rate(x: flint.arb) -> flint.arb:
    """Return I(x) = max over lambda of lambda x + log(1 - lambda^2)/2."""
    best = ((1 + 4 * x**2).sqrt() - 1) / (2 * x)
    return best * x + (1 - best**2).log() / 2


def _independent_tail(dimension: int) -> Finding:
    """Return whether d >= dimension * ln n gives P(max |q.k|/d > 3/2) <= 2 n^(-0.85), all n.

    Union bound over n^2 pairs and two signs: 2 n^2 exp(-d I(x)) <= 2 n^(2 - dimension I(x)).
    """
    with precision(128):
        exponent = 2 - dimension * _rate(ball(Fraction(3, 2)))
        shown = f"d >= {dimension} ln n: the exponent of n is {float(exponent):.4f}"
        if not exponent <= -ball(Fraction(85, 100)):
            return refuted(
                f"{shown}, -0.85 is needed; at n = 4096 the bound is "
                f"{float(2 * ball(4096) ** exponent):.3g}"
            )
    return both(product_mgf(), holds(shown))


def _independent_logits(limit: float) -> Finding:
    """Return whether independent Gaussian Q, K at d = 4 ln n keep max |q.k|/d below the limit."""
    rng, largest, draws = np.random.default_rng(5), 0.0, 0
    for n, repeats in ((64, 60), (256, 40), (1024, 20)):
        d = math.ceil(4 * math.log(n))
        for _ in range(repeats):
            Q, K = rng.standard_normal((n, d)), rng.standard_normal((n, d))
            largest = max(largest, float(np.max(np.abs(Q @ K.T))) / d)
            draws += 1
            if largest > limit:
                by_entries = float(np.max(np.abs(Q)) * np.max(np.abs(K)))
                return refuted(
                    f"n = {n}, d = {d}: max |q.k|/d = {largest:.3f} > {limit:g} (by "
                    f"entries {by_entries:.1f})"
                )
    share = surely_below(draws, 0.999)
    return holds(
        f"largest {largest:.3f} in {draws} draws; with confidence 0.999 at least "
        f"{share:.3f} of the draws stay below {limit:g}"
    )


DERIVED: tuple[Claim, ...] = (
    Claim(
        id="independent-tail",
        statement="For independent 1-sub-Gaussian entries and d >= 4 ln n, all |q.k|/d are <= 3/2 "
        "but with probability 2 n^(-0.85): bounded logits, no threshold needed.",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(_independent_tail, 4),
        twin=Twin("d >= 2 ln n is enough for this bound", partial(_independent_tail, 2)),
    ),
    Claim(
        id="independent-no-threshold",
        statement="At d = 4 ln n, n from 64 to 1024, max |q.k|/d of independent Gaussian Q, K "
        "stays below 2.",
        source="subquad",
        provenance="derived",
        evidence="statistical",
        check=partial(_independent_logits, 2.0),
        twin=Twin("it stays below 1", partial(_independent_logits, 1.0)),
        depends=("clopper-pearson", "independent-tail"),
    ),
)
