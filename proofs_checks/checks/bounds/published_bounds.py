"""How much larger than the sharp bound F(e, a) the usual bounds are."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import sympy

from proofs_checks.checks.bounds.output_bound import EPSILONS, worst_row
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, never_below, proved, zero
from subquad.bounds.softmax import output_bound

Bound = Callable[..., Any]
GAINS = (
    (0.01, "1.775", "1.785"),
    (0.7, "1.705", "1.710"),
    (0.993, "1.895", "1.905"),
    (1.0 - 2.0**-40, "1.999", "2.0"),
)


def _twice_eps(loss: Bound) -> Finding:
    """Return whether 2 eps is a bound and is 1 + sqrt(1 - eps^2) times too large."""
    eps = sympy.symbols("epsilon", positive=True)
    formula = 2 * (1 - sympy.sqrt(1 - eps**2)) / eps
    steps = proved(
        {
            "2 eps = F (1 + sqrt(1 - eps^2))": zero(
                sympy.expand(formula * (1 + sympy.sqrt(1 - eps**2))) - 2 * eps
            )
        }
    )
    return both(steps, never_below(loss, (((e,), worst_row(e, e)) for e in EPSILONS)))


def _looser(bound: Bound, a: float, low: str, high: str) -> Finding:
    """Return whether max over e of min(F(a, a), 2e/(1-e)) / F(e, a) is in [low, high].

    2e/((1-e) F) rises with e up to where both lemmas are equal, e = A/(2 + A), and A/F falls
    beyond (F rises with e): so the maximum is there. Values are of the function itself.
    """
    largest = float(bound(a, a))
    crossing = largest / (2.0 + largest)
    worst = largest / float(bound(crossing, a))
    others = [a * k / 256 for k in range(1, 257) if a * k / 256 < 1.0]
    sampled = max(min(largest, 2 * e / (1 - e)) / float(bound(e, a)) for e in others)
    if sampled > worst * (1.0 + 1e-9):
        return refuted(f"larger away from the crossing: {sampled!r} > {worst!r}")
    if not float(low) <= worst <= float(high):
        return refuted(f"at eps = {a:g} the factor is {worst:.5f}, not in [{low}, {high}]")
    return holds(f"eps = {a:g}: factor {worst:.4f} at mass share {crossing / a:.4f}")


def _all_looser(bound: Bound, wanted: tuple[tuple[float, str, str], ...]) -> Finding:
    return both(crossing_proof(), *(_looser(bound, a, low, high) for a, low, high in wanted))


@cache
def crossing_proof() -> Finding:
    """Return the proof that 2e/((1-e) F(e, a)) rises with e in both cases of F."""
    a, e, s, c = sympy.symbols("a e s c", positive=True)
    ratio = (s**2 - 1) / ((2 - s**2) * (s - c) ** 2)  # e = s^2 - 1, over the stationary case
    slope = 2 * ((s**2 - 1) ** 2 + 1 - c * s) / ((2 - s**2) ** 2 * (s - c) ** 3)
    return proved(
        {
            "boundary case: 1/(1 - e/a)": zero(sympy.diff(1 / (1 - e / a), e) - a / (a - e) ** 2),
            "stationary case: the slope has the sign of (s^2-1)^2 + 1 - cs, cs <= 1": zero(
                sympy.diff(ratio, s) - slope
            ),
        }
    )


LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="as23-2eps",
        statement="With the normaliser from the approximate weights, relative error eps moves the "
        "output by at most 2 eps max|V|; that is 1 + sqrt(1 - eps^2) times what can happen.",
        source="Alman and Song 2023, arXiv 2302.13214",
        provenance="recalled",
        evidence="symbolic",
        check=partial(_twice_eps, lambda eps: 2.0 * eps),
        twin=Twin("0.99 eps max|V| suffices", partial(_twice_eps, lambda eps: 0.99 * eps)),
        depends=("ratio-sharp",),
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="output-bound-gain",
        statement="The smaller of the ratio lemma F(a, a) and of 2e/(1-e) is up to 1.78 times F "
        "at a = 0.01, 1.71 at 0.7, 1.90 at 0.993, 2 in the limit a = 1; most where both are equal.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_all_looser, output_bound, GAINS),
        twin=Twin(
            "the gain at a = 0.01 is 1.80",
            partial(_all_looser, output_bound, ((0.01, "1.795", "1.805"),)),
        ),
        depends=("output-bound", "output-bound-monotone", "ratio-sharp", "additive-sharp"),
    ),
)
