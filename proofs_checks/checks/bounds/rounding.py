"""What floating point costs: the bounds of `subquad.bounds.rounding`, and rows that attain them.

The worst rows are sums 1 + u + u + ... in order: each addition is a tie, goes to the even
neighbour 1, and loses u. So n additions lose n u, all in the same direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache, partial
from typing import Any

import numpy as np
import sympy

from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, proved, scaled_bound, sharp, zero
from subquad.arrays.formats import FORMATS
from subquad.bounds.partial import Partial
from subquad.bounds.rounding import exact_logit_error, exact_sum_error, gamma

Bound = Callable[..., Any]
U32 = FORMATS["float32"].u
PERCENT = Fraction(1, 100)


def stagnating(terms: int, dtype: str = "float32") -> tuple[Fraction, Fraction]:
    """Return (error, exact sum) of 1 + u + ... + u added in order in `dtype`, both exact."""
    x = np.full(terms, FORMATS[dtype].u, dtype=dtype)
    x[0] = 1.0
    computed = Fraction(float(np.add.accumulate(x, dtype=dtype)[-1]))
    exact = sum((Fraction(float(value)) for value in x), Fraction(0))
    return exact - computed, exact


@cache
def gamma_proof() -> Finding:
    """Return the proof that k factors 1 + t, |t| <= u, are within k u/(1 - k u) of 1."""
    x, u = sympy.symbols("x u", positive=True)
    k = sympy.symbols("k", integer=True, positive=True)
    logs, ones = -sympy.log(1 - x) - x, x - sympy.log(1 + x)
    return proved(
        {
            "log(1+u) <= u, hence (1+u)^k <= e^(ku)": zero(sympy.diff(ones, x) - x / (1 + x))
            and ones.subs(x, 0) == 0,
            "-log(1-x) >= x, hence e^(ku) <= 1/(1-ku)": zero(sympy.diff(logs, x) - x / (1 - x))
            and logs.subs(x, 0) == 0,
            "1/(1-ku) - 1 = ku/(1-ku)": zero(1 / (1 - k * u) - 1 - k * u / (1 - k * u)),
            "(1-u)^k >= 1 - ku: the step (1-ku)(1-u) - (1-(k+1)u) is k u^2": zero(
                (1 - k * u) * (1 - u) - (1 - (k + 1) * u) - k * u**2
            ),
        }
    )


def _gamma(bound: Bound) -> Finding:
    # At k u small gamma_k is within (k + 1) u / 2 of the worst product, relatively.
    products = (
        ((k, u), (1 + Fraction(u)) ** k - 1)
        for u in (U32, FORMATS["float64"].u)
        for k in (1, 2, 17, 512, 2000)
    )
    return both(gamma_proof(), sharp(bound, products, PERCENT / 100))


def _quotient(share: Fraction) -> Finding:
    """Return whether the rounding Term of `finish` covers what errors of both sums do to N/D."""
    N, D, n, d = sympy.symbols("N D n d")  # n and d are the errors of the two sums
    steps = proved(
        {
            "(N+n)/(D+d) - N/D = (n - (N/D) d)/(D+d); |N/D| <= 1": zero(
                (N + n) / (D + d) - N / D - (n - N / D * d) / (D + d)
            )
        }
    )

    def term(rounding: float, normaliser: float) -> float:
        ones, zeros = np.full(1, normaliser), np.zeros(1)
        _, terms = Partial(
            ones[:, None],
            ones,
            np.zeros(1, dtype=np.int64),
            zeros,
            zeros,
            np.full(1, rounding),
            zeros,
        ).finish()
        (found,) = (t for t in terms if t.claim == "rounding-sums")
        return float(found.value[0]) * float(share)

    def instances() -> Iterator[tuple[tuple[float, float], Fraction]]:
        for rounding in (2.0**-40, 2.0**-20, 2.0**-12, 2.0**-8):
            rho = Fraction(rounding)
            true = Fraction(1)  # numerator and normaliser, the values all 1
            computed = true - rho / 2  # of the normaliser; the numerator is too large
            yield (rounding, float(computed)), (true + rho / 2) / computed - 1

    return both(steps, sharp(term, instances(), PERCENT))


def _sums(bound: Bound) -> Finding:
    """Return whether the exact path's bound covers, and to 1 % equals, the worst sums.

    The values are 1: numerator and normaliser lose the same.
    """

    def instances() -> Iterator[tuple[tuple[Any, ...], Fraction]]:
        for dtype, block in (("float32", 512), ("float32", 2048), ("float64", 2048)):
            lost, _ = stagnating(block, dtype)
            for blocks in (1, 4):  # equal blocks: adding them in float64 is exact
                yield (float(blocks), block * blocks, block, blocks, dtype), 2 * blocks * lost

    found = [(arguments, attained) for arguments, attained in instances()]
    for arguments, attained in found:
        value = Fraction(float(bound(*arguments)))
        shown = f"{arguments[1]} keys in {arguments[4]}: bound {float(value):.6g}"
        if attained > value:
            return refuted(f"{shown} < error {float(attained):.6g} of 1 + u + u + ...")
        if value > attained * (1 + PERCENT):
            return refuted(f"{shown}, worst {float(attained):.6g}")
    return both(
        _composed(),
        holds(f"worst sums 1 + u + u + ... lose what the bound says to 1 %, {len(found)} cases"),
    )


def _composed() -> Finding:
    """Return whether block sums within gamma_b, added within gamma_B, stay within both bounds' sum.

    The cross term gamma_b gamma_B is what the one more rounding of b + 1 and of B + 1 is for.
    """
    D, computed, r = sympy.symbols("D Dc r", positive=True)
    steps = proved(
        {
            "|Dc - D| <= r D, hence D <= Dc/(1-r) and |Dc - D| <= Dc r/(1-r)": zero(
                r * D - (computed * r / (1 - r)).subs(computed, D * (1 - r))
            )
        }
    )
    for dtype in ("float32", "float64"):
        for block, blocks in ((1, 1), (512, 1), (512, 2**12), (2048, 2**24)):
            u, u64 = Fraction(FORMATS[dtype].u), Fraction(FORMATS["float64"].u)
            inner, outer = block * u / (1 - block * u), blocks * u64 / (1 - blocks * u64)
            both_gammas = float(gamma(block + 1, float(u))) + float(gamma(blocks + 1, float(u64)))
            if (1 + inner) * (1 + outer) - 1 > Fraction(both_gammas):
                return refuted(f"{blocks} blocks of {block} in {dtype}: the cross term exceeds")
    return both(steps, holds("blocks of blocks within the sum of both gammas, 8 cases"))


def _logits(bound: Bound) -> Finding:
    """Return whether the logit error covers the worst dot products, and to 1 % equals them."""
    for dtype, d in (("float32", 8192), ("float32", 64), ("float32", 1), ("float64", 8192)):
        lost, size = stagnating(d, dtype)
        value = Fraction(float(bound(float(size), d, dtype)))
        shown = f"d = {d} in {dtype}: bound {float(value):.6g}"
        if lost > value:
            return refuted(f"{shown} < error {float(lost):.6g} of 1 + u + u + ...")
        if d == 8192 and value > lost * (1 + PERCENT):
            return refuted(f"{shown}, worst {float(lost):.6g}")
    return holds("worst dot products lose what the bound says, to 1 % at d = 8192")


LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="rounding-gamma",
        statement="A product of k factors 1 + t, |t| <= u, is within k u/(1 - k u) of 1.",
        source="Higham 2002, Accuracy and Stability of Numerical Algorithms, Lemma 3.1",
        provenance="recalled",
        evidence="symbolic",
        check=partial(_gamma, gamma),
        twin=Twin("0.99 of it suffices", partial(_gamma, scaled_bound(gamma, 0.99))),
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="rounding-sums",
        statement="If |numerator error| + |normaliser error| <= rho, the quotient moves by at most "
        "rho over the computed normaliser less rho, the values in [-1, 1].",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_quotient, Fraction(1)),
        twin=Twin("by 1 % less", partial(_quotient, Fraction(99, 100))),
    ),
    Claim(
        id="rounding-exact-sums",
        statement="Blocks of the exact path added in float64 lose at most exact_sum_error, "
        "numerator and normaliser together; worst sums reach it to 1 %.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(_sums, exact_sum_error),
        twin=Twin("0.98 of it suffices", partial(_sums, scaled_bound(exact_sum_error, 0.98))),
        depends=("rounding-gamma",),
    ),
    Claim(
        id="rounding-logits",
        statement="A weight of the exact path is off by no more than an error exact_logit_error "
        "of its logit; worst dot products reach it to 1 %.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(_logits, exact_logit_error),
        twin=Twin("0.99 of it suffices", partial(_logits, scaled_bound(exact_logit_error, 0.99))),
        depends=("rounding-gamma", "exp-4-ulp"),
    ),
)
