"""What errors of the weights do to the output: the bounds of `subquad.bounds.softmax`.

Computed weights w~ of sum 1 (the unit is free), true weights w, A the keys with w_j > w~_j; u is
the error on A, v that off A, x the computed mass of A. Then p(A) - p~(A) = (x + u)/(1 + u - v) - x.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from typing import Any

import sympy

from proofs_checks.claim import Claim, Finding, Twin, refuted
from proofs_checks.proving import both, l1_distance, proved, scaled_bound, sharp, square_root, zero
from subquad.bounds.softmax import output_bound, ratio_bound, ratio_bound_inverse

Bound = Callable[..., Any]

RATIOS = (1e-12, 1e-6, 0.01, 0.1, 0.3, 0.5, 0.9, 0.99, 1.0 - 2.0**-20, 1.0)
SHARES = (1e-6, 0.01, 0.1, 0.3, 0.333, 0.334, 0.4, 0.5, 0.7, 0.9, 1.0 - 2.0**-20, 1.0)
EPSILONS = (1e-300, 1e-15, 1e-6, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.999)


@cache
def output_proof() -> Finding:
    """Return the proof that no errors move the row by more than F(e, a), a <= 1."""
    x, u, v, a, e, t, s, c = sympy.symbols("x u v a e t s c", positive=True)
    moved = (x + u) / (1 + u - v) - x
    off_all = v * (1 - (v - u) / a) / (1 + u - v)  # every key off A has the error -a
    on_all = u * (1 - (u - v) / a) / (1 + u - v)  # every key of A has the error +a
    line = 2 * off_all.subs(u, e - v).subs(v, (1 + e - t) / 2)
    in_roots = {e: s**2 - 1, a: 1 - c**2}
    stationary = (s - c) ** 2 / (1 - c**2)
    boundary = 2 * e * (1 - e / a) / (1 - e)
    border = e * (3 - e) / (1 + e)  # there 1 - e = sqrt((1+e)(1-a))
    at_border = (1 + e + 1 - a - 2 * (1 - e)) / a
    swapped = {u: v, v: u}
    return proved(
        {
            "rises with u: (1-x-v)/(1+u-v)^2": zero(
                sympy.diff(moved, u) - (1 - x - v) / (1 + u - v) ** 2
            ),
            "rises with v: (x+u)/(1+u-v)^2, hence u + v = e": zero(
                sympy.diff(moved, v) - (x + u) / (1 + u - v) ** 2
            ),
            "linear in x": zero(sympy.diff(moved, x) - (v - u) / (1 + u - v)),
            "v >= u: x = 1 - v/a": zero(moved.subs(x, 1 - v / a) - off_all),
            "u >= v: x = u/a": zero(moved.subs(x, u / a) - on_all),
            "u >= v is v >= u exchanged, over a larger denominator": zero(
                on_all * (1 + u - v) - (off_all * (1 + u - v)).subs(swapped, simultaneous=True)
            ),
            "a square is missing: F - 2(p(A) - p~(A)) = (t - sc)^2/(at), t = 1 + u - v": zero(
                (stationary - line.subs(in_roots)) - (t - s * c) ** 2 / ((1 - c**2) * t)
            ),
            "falls for t > sc": zero(sympy.diff(line, t) - ((1 + e) * (1 - a) / t**2 - 1) / a),
            "end t = 1 - e": zero(line.subs(t, 1 - e) - boundary),
            "a = 1: 2e": zero(boundary.subs(a, 1) - 2 * e),
            "the two cases meet": zero((at_border - boundary).subs(a, border)),
        }
    )


@cache
def monotone_proof() -> Finding:
    """Return the proof that F rises with e and with a, which sums and maxima of bounds need."""
    a, e, s, c = sympy.symbols("a e s c", positive=True)
    stationary = (s - c) ** 2 / (1 - c**2)
    boundary = 2 * e * (1 - e / a) / (1 - e)
    gap = 3 - e - (2 - e) * (1 + e)
    return proved(
        {
            "stationary rises with e (s = sqrt(1+e) >= 1 > c)": zero(
                sympy.diff(stationary, s) - 2 * (s - c) / (1 - c**2)
            ),
            "and with a (c = sqrt(1-a) falls, cs <= 1 as e <= a)": zero(
                sympy.diff(stationary, c) - 2 * (s - c) * (s * c - 1) / (1 - c**2) ** 2
            ),
            "boundary rises with a": zero(sympy.diff(boundary, a) - 2 * e**2 / (a**2 * (1 - e))),
            "and with e where a >= e(2-e)": zero(
                sympy.diff(boundary, e) - 2 * (a - 2 * e + e**2) / (a * (1 - e) ** 2)
            ),
            "which is so: a > e(3-e)/(1+e) >= e(2-e), their gap has (1-e)^2": zero(
                gap - (1 - e) ** 2
            ),
        }
    )


def worst_row(e: float, a: float) -> Fraction:
    """Return the l1 distance that three groups of keys with errors +a, 0, -a attain; e <= a <= 1.

    Masses are dyadic rationals near the best ones, so the distance is exact and admissible.
    """
    E, A = Fraction(e), Fraction(a)
    v = E
    if A * (1 + E) <= E * (3 - E):
        bits = 160 + 2 * E.denominator.bit_length()
        v = min(E, (1 + E - square_root((1 + E) * (1 - A), bits)) / 2)
    u = E - v
    computed = (u / A, 1 - (u + v) / A, v / A)
    true = (u / A + u, computed[1], v / A - v)
    return l1_distance(true, computed)


def _output_bound(bound: Bound) -> Finding:
    grid = [(a * m, a) for a in RATIOS for m in SHARES if a * m < 1.0]
    return both(output_proof(), sharp(bound, (((e, a), worst_row(e, a)) for e, a in grid)))


def _monotone(bound: Bound) -> Finding:
    """Return the proof and a look at the computed values: none falls by more than rounding."""
    last: dict[int, float] = {}
    for a in RATIOS:
        row = [float(bound(a * m, a)) for m in SHARES if a * m < 1.0]
        for i, (low, high) in enumerate(zip(row, row[1:], strict=False)):
            if not low <= high:
                return refuted(f"falls from {low!r} to {high!r} at a = {a:g}, e/a = {SHARES[i]:g}")
        at_fixed_e = [float(bound(1e-13 * (i + 1), a)) for i in range(4)]
        for i, value in enumerate(at_fixed_e):
            if value < last.get(i, 0.0) * (1.0 - 1e-12):
                return refuted(f"falls with a at a = {a:g}: {last[i]!r} to {value!r}")
            last[i] = value
    return monotone_proof()


def _ratio_sharp(bound: Bound, inverse: Callable[[float], float]) -> Finding:
    eps, t = sympy.symbols("epsilon t", positive=True)
    special = (sympy.sqrt(1 + eps) - sympy.sqrt(1 - eps)) ** 2 / eps
    formula = 2 * (1 - sympy.sqrt(1 - eps**2)) / eps
    back = 4 * t / (4 + t**2)
    steps = proved(
        {
            "F(eps, eps) = 2(1 - sqrt(1 - eps^2))/eps": zero(sympy.expand(special - formula)),
            "eps = 4t/(4 + t^2) gives t: 1 - eps^2 is ((4 - t^2)/(4 + t^2))^2, 0 < t <= 2": zero(
                1 - back**2 - ((4 - t**2) / (4 + t**2)) ** 2
            )
            and zero(2 * (1 - (4 - t**2) / (4 + t**2)) / back - t),
        }
    )
    attained = sharp(bound, (((e,), worst_row(e, e)) for e in EPSILONS))
    for target in (1e-300, 1e-9, 1e-3, 0.1, 1.0, 1.9):
        reached = float(bound(inverse(target)))
        if not target * (1.0 - 1e-12) <= reached <= target:
            return refuted(f"the inverse at {target:g} gives a bound of {reached!r}")
    if not float(bound(inverse(2.0))) <= 2.0:
        return refuted("the inverse at 2 gives a bound above 2")
    return both(output_proof(), steps, attained)


DERIVED: tuple[Claim, ...] = (
    Claim(
        id="output-bound",
        statement="If |w_j - w~_j| <= a w~_j and their sum is <= e D~, the two softmax rows are at "
        "most F(e, a) apart in l1: (sqrt(1+e) - sqrt(1-a))^2/a where a(1+e) <= e(3-e), else "
        "2e(1 - e/a)/(1-e). Attained for every e <= a.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_output_bound, output_bound),
        twin=Twin("F is 1 % smaller", partial(_output_bound, scaled_bound(output_bound, 0.99))),
    ),
    Claim(
        id="output-bound-monotone",
        statement="F(e, a) rises with e and with a, so sums of errors and maxima of ratios may "
        "stand for them.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_monotone, output_bound),
        twin=Twin(
            "2e(1 - e/a)/(1-e) rises with e in both cases",
            partial(_monotone, lambda e, a: 2.0 * e * (1.0 - e / a) / (1.0 - e)),
        ),
        depends=("output-bound",),
    ),
    Claim(
        id="ratio-sharp",
        statement="If every weight is within a factor 1 +- eps of the other's, the rows are at "
        "most 2(1 - sqrt(1 - eps^2))/eps = eps + eps^3/4 + ... apart in l1, attained; "
        "eps = 4t/(4 + t^2) gives exactly t.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_ratio_sharp, ratio_bound, ratio_bound_inverse),
        twin=Twin(
            "the bound is 1 % smaller",
            partial(_ratio_sharp, scaled_bound(ratio_bound, 0.99), ratio_bound_inverse),
        ),
        depends=("output-bound",),
    ),
)
