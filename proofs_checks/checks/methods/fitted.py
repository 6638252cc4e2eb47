"""The majorant of a fitted polynomial: proved a second time, by bisection, and summed over rows."""

from __future__ import annotations

from functools import cache, partial

import flint
import numpy as np

from proofs_checks.claim import Claim, Finding, Twin, holds, refuted, undecided
from proofs_checks.proving import both
from subquad.exp_poly.balls import ball, precision
from subquad.exp_poly.majorant import FittedPair, fit_pair, proved_pair, shortfall

BITS, TERMS, CELLS = 160, 24, 40_000
CASES = tuple((g, B) for g in (0, 2, 4, 6) for B in (0.01, 0.5, 1.0, 3.0, 8.0))


def rows_of_logits(logit_bound: float) -> np.ndarray:
    """Return logits (rows, keys) within +-logit_bound, most far inside, some at the ends."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((12, 400)) * rng.uniform(0.05, 0.4, (12, 1)) * logit_bound
    x[:, :2] = (-logit_bound, logit_bound)
    return np.clip(x, -logit_bound, logit_bound)


@cache
def pairs() -> tuple[FittedPair, ...]:
    """Return a fitted pair for each case, and one whose program answered nonsense."""
    found = []
    for degree, B in CASES:
        x = rows_of_logits(B)
        sums = np.stack([(x**k).sum(axis=1) for k in range(degree + 1)], axis=1)
        found.append(fit_pair(degree, B, sums))
    return (*found, proved_pair(np.array([1.0, 1.1, 0.4]), np.array([-0.1, 0.0, 0.02]), 1.0))


def majorant(factor: float) -> Finding:
    """Return whether factor * m >= |exp - p| on all of [-B, B], by bisection in balls."""
    cells = 0
    with precision(BITS):
        for pair in pairs():
            scaled = flint.arb_poly([ball(float(c)) * ball(factor) for c in pair.majorant])
            p = flint.arb_poly([ball(float(c)) for c in pair.polynomial])
            for sign in (1, -1):
                found = _nonnegative(scaled, p, sign, pair.logit_bound)
                if isinstance(found, Finding):
                    return found
                cells += found
    return holds(f"{len(pairs())} pairs, degrees 0 to 6, B up to 8: proved on {cells} cells")


def _nonnegative(m: flint.arb_poly, p: flint.arb_poly, sign: int, B: float) -> int | Finding:
    """Return in how many cells m - sign (exp - p) >= 0 is proved, or where it is not."""
    cells, done = [(flint.arb(-B), flint.arb(B))], 0
    while cells:
        left, right = cells.pop()
        done += 1
        middle = ((left + right) / 2).mid()
        lowest, at = _lowest(m, p, sign, middle, (right - left) / 2)
        if at < 0:
            return refuted(
                f"degree {p.degree()}, B = {B:g}, x = {float(middle):.6g}: the majorant "
                f"falls short by {float(-at):.3g}"
            )
        if lowest >= 0:
            continue
        if done > CELLS:
            return undecided(f"degree {p.degree()}, B = {B:g}: not decided in {CELLS} cells")
        cells += [(left, middle), (middle, right)]
    return done


def _lowest(
    m: flint.arb_poly, p: flint.arb_poly, sign: int, middle: flint.arb, half: flint.arb
) -> tuple[flint.arb, flint.arb]:
    """Return a lower bound of m - sign (exp - p) within `half` of the middle, and its value there.

    By its Taylor series about the middle, exp cut after TERMS with Lagrange's remainder.
    """
    shift = flint.arb_poly([middle, 1])
    polynomial = m(shift) + sign * p(shift)
    value, power, low = middle.exp(), flint.arb(1), flint.arb(0)
    for k in range(TERMS):
        coefficient = polynomial[k] - sign * value
        low = coefficient if k == 0 else low - abs(coefficient) * power
        if k == 0:
            at = coefficient
        power, value = power * half, value / (k + 1)
    return low - (middle + half).exp() / middle.exp() * value * power, at


def quick_proof(factor: float) -> Finding:
    """Return whether `shortfall` calls factor * m a majorant."""
    for pair in pairs():
        short = shortfall(pair.polynomial, factor * pair.majorant, pair.logit_bound)
        if short > 0.0:
            return refuted(f"degree {pair.degree}, B = {pair.logit_bound:g}: short by {short:.3g}")
    return holds("no pair falls short by the roots of a' - a either")


def row_sums(factor: float) -> Finding:
    """Return whether sum_j |exp(x_j) - p(x_j)| <= factor * (sums by degree) . m in every row."""
    rows, nearest = 0, 0.0
    with precision(BITS):
        for (degree, B), pair in zip(CASES, pairs(), strict=False):
            p = flint.arb_poly([ball(float(c)) for c in pair.polynomial])
            for row in rows_of_logits(B):
                x = [ball(float(v)) for v in row]
                true = sum((abs(v.exp() - p(v)) for v in x), flint.arb(0))
                bound = sum(
                    (
                        ball(float(c)) * sum((v**k for v in x), flint.arb(0))
                        for k, c in enumerate(pair.majorant)
                    ),
                    flint.arb(0),
                ) * ball(factor)
                if not true <= bound:
                    return refuted(
                        f"degree {degree}, B = {B:g}: a row errs by {float(true):.4g}, "
                        f"bound {float(bound):.4g}"
                    )
                rows, nearest = rows + 1, max(nearest, float(true / bound))
    return holds(f"{rows} rows, the nearest at {nearest:.3f} of its bound")


def _claimed(factor: float) -> Finding:
    return both(majorant(factor), quick_proof(factor), row_sums(factor))


DERIVED: tuple[Claim, ...] = (
    Claim(
        id="fitted-majorant",
        statement="A fitted pair has m(x) >= |exp(x) - p(x)| on all of [-B, B], whatever the "
        "linear program answered; so a row errs by at most sum_j w_j m(x_j), the dot product of "
        "m's coefficients with the row's sums by degree.",
        source="subquad",
        provenance="derived",
        evidence="enclosed",
        check=partial(_claimed, 1.0),
        twin=Twin("nine tenths of m suffice", partial(_claimed, 0.9)),
        depends=("additive-sharp",),
    ),
)
