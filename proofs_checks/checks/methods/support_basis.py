"""Support basis: the splitting identity, where it fails, what it costs, how buckets are counted.

The identity is checked on formal exponentials: a matrix of exp(S) is a Counter of exponents per
entry, so two sides are equal only if they are equal for every value of e.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from itertools import product

import numpy as np
import sympy

from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, proved
from subquad.exp_poly.balls import ball, precision
from subquad.methods.thresholds.support_basis import _split as small_and_large

PAPER = "Aliakbarpour, Braverman, Yin and Zhang 2025, arXiv 2510.01643"
README = f"{PAPER}, README of the authors' code"

Matrix = list[list[Fraction]]
QUERIES = [[Fraction(1), Fraction(-2)], [Fraction(3, 2), Fraction(1)], [Fraction(0), Fraction(5)]]
KEYS = [[Fraction(2), Fraction(1, 3)], [Fraction(-1), Fraction(7)], [Fraction(4), Fraction(-1)]]


def _logits(Q: Matrix, K: Matrix) -> Matrix:
    return [[sum((a * b for a, b in zip(q, k, strict=True)), Fraction(0)) for k in K] for q in Q]


def _keep(rows: Matrix, kept: Sequence[bool]) -> Matrix:
    return [row if keep else [Fraction(0)] * len(row) for row, keep in zip(rows, kept, strict=True)]


def _exponentials(parts: Sequence[Matrix], ones: int) -> list[list[Counter[Fraction]]]:
    """Return sum_a exp(S_a) - ones, entry by entry, as the number of times each exponent occurs."""
    out = []
    for i in range(len(parts[0])):
        row = []
        for j in range(len(parts[0][0])):
            terms = Counter(part[i][j] for part in parts)
            terms[Fraction(0)] -= ones
            row.append(Counter({x: count for x, count in terms.items() if count}))
        out.append(row)
    return out


def _two_parts(ones: int) -> Finding:
    """Return whether exp(S) = exp(S_s) + exp(S_L) - ones for every mask of rows and of keys."""
    S, count = _logits(QUERIES, KEYS), 0
    for large_q in product((False, True), repeat=3):
        for large_k in product((False, True), repeat=3):
            small = _logits(_keep(QUERIES, _small(large_q)), _keep(KEYS, _small(large_k)))
            pairs = zip(S, small, strict=True)
            rest = [[a - b for a, b in zip(row, part, strict=True)] for row, part in pairs]
            if _exponentials([small, rest], ones) != _exponentials([S], 0):
                return refuted(f"rows {large_q}, keys {large_k} large: the sides differ")
            count += 1
    return both(_identity(), holds(f"all {count} masks of 3 rows and 3 keys, as formal sums"))


def _small(large: Sequence[bool]) -> list[bool]:
    """Return which rows the method itself takes as small, large ones having magnitude 1, not 0."""
    small, others = small_and_large(np.array(large, dtype=float), 0.5)
    if sorted([*small, *others]) != list(range(len(large))):
        msg = f"the parts {small} and {others} do not hold every row once"
        raise ValueError(msg)
    return [i in small for i in range(len(large))]


def _identity() -> Finding:
    x, y = sympy.symbols("x y", real=True)
    gap = sympy.exp(x + y) - sympy.exp(x) - sympy.exp(y) + 1
    return proved(
        {
            "e^(x+y) - e^x - e^y + 1 = (e^x - 1)(e^y - 1)": sympy.expand(
                sympy.expand(gap - (sympy.exp(x) - 1) * (sympy.exp(y) - 1), power_exp=True)
            )
            == 0,
            "e^x = 1 only at 0, so the gap is 0 if and only if x y = 0": sympy.solveset(
                sympy.exp(x) - 1, x, sympy.S.Reals
            )
            == sympy.FiniteSet(0),
        }
    )


def _product_gap(sign: int) -> Finding:
    """Return whether e^(x+y) - e^x - e^y + 1 is (e^x - 1)(e^y - sign)."""
    if sign == 1:
        return _identity()
    value = sympy.exp(2) - 2 * sympy.exp(1) + 1 - (sympy.exp(1) - 1) * (sympy.exp(1) + 1)
    return refuted(f"x = y = 1: the sides differ by {float(value):.6f}")


def _blocks(ones: int) -> Finding:
    """Return whether exp(S) = sum over m^2 blocks of exp(S_ab) - ones, m = 3, all assignments."""
    S, count = _logits(QUERIES, KEYS), 0
    for of_q in product(range(3), repeat=3):
        for of_k in product(range(3), repeat=3):
            parts = [
                _logits(_keep(QUERIES, [x == a for x in of_q]), _keep(KEYS, [x == b for x in of_k]))
                for a in range(3)
                for b in range(3)
            ]
            if _exponentials(parts, ones) != _exponentials([S], 0):
                return refuted(f"rows in {of_q}, keys in {of_k}: the sides differ")
            count += 1
    return holds(f"all {count} assignments of 3 rows and 3 keys to 3 buckets, as formal sums")


def _entries(whole_rows: bool) -> Finding:
    """Return whether the two-part rule holds if large entries, or large rows, are split off."""
    q, k, limit = [Fraction(1), Fraction(3)], [Fraction(1), Fraction(1)], Fraction(2)
    if whole_rows:
        small = [Fraction(0)] * 2 if any(abs(x) > limit for x in q) else q
    else:
        small = [x if abs(x) <= limit else Fraction(0) for x in q]
    S = sum((a * b for a, b in zip(q, k, strict=True)), Fraction(0))
    S_small = sum((a * b for a, b in zip(small, k, strict=True)), Fraction(0))
    with precision(128):
        left = ball(S).exp()
        right = ball(S_small).exp() + ball(S - S_small).exp() - 1
        shown = f"q = (1, 3), k = (1, 1), threshold 2: exp(S) = {float(left):.6f}, rule "
        shown += f"{float(right):.6f}"
        if left > right or left < right:
            return refuted(shown)
    return both(_identity(), holds(shown))


LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="support-split",
        statement="With large rows of Q and of K set to zero in S_s, and S_L = S - S_s, "
        "exp(S) = exp(S_s) + exp(S_L) - 1 entry by entry.",
        source=README,
        provenance="read",
        evidence="exact",
        check=partial(_two_parts, 1),
        twin=Twin("without the - 1", partial(_two_parts, 0)),
        depends=("support-identity",),
    ),
    Claim(
        id="support-split-parts",
        statement="With rows and keys in m buckets each, exp(S) is the sum of the m^2 block "
        "matrices exp(S_ab) less m^2 - 1.",
        source=f"{PAPER}, multi-threshold",
        provenance="derived",
        evidence="exact",
        check=partial(_blocks, 8),
        twin=Twin("less m - 1", partial(_blocks, 2)),
        depends=("support-split",),
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="support-identity",
        statement="e^(x+y) = e^x + e^y - 1 if and only if x y = 0; the gap is (e^x - 1)(e^y - 1).",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_product_gap, 1),
        twin=Twin("the gap is (e^x - 1)(e^y + 1)", partial(_product_gap, -1)),
    ),
    Claim(
        id="support-entries",
        statement="The two-part rule also holds if single large entries of Q, not rows, are split "
        "off.",
        source="subquad",
        provenance="derived",
        evidence="counterexample",
        check=partial(_entries, False),
        twin=Twin("rows are split off", partial(_entries, True), "holds"),
        depends=("support-identity",),
        expected="refuted",
    ),
)
