"""Shifts, dropped keys and the derivative of softmax: what holds for every row."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from itertools import combinations, product

import sympy

from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, l1_distance, proved, zero


def _shift_keys(side: str) -> Finding:
    """Return whether softmax(q.k_j) changes when all keys, or all queries, move by c."""
    q, c = sympy.symbols("q0 q1"), sympy.symbols("c0 c1")
    keys = [sympy.symbols(f"k{j}0 k{j}1") for j in range(3)]

    def row(moved: bool) -> list[sympy.Expr]:
        query = [a + b for a, b in zip(q, c, strict=True)] if moved and side == "queries" else q
        shift = c if moved and side == "keys" else (0, 0)
        logits = [
            sum(a * (b - s) for a, b, s in zip(query, key, shift, strict=True)) for key in keys
        ]
        weights = [sympy.exp(sympy.expand(x)) for x in logits]
        return [w / sum(weights) for w in weights]

    g, w, total = sympy.symbols("g w D", nonzero=True)
    before, after = row(False), row(True)
    if not all(zero(x - y) for x, y in zip(before, after, strict=True)):
        point = {symbol: i % 3 - 1 for i, symbol in enumerate((*q, *c, *sum(keys, ())))}
        was, now = (float(r[0].subs(point)) for r in (before, after))
        return refuted(f"at q = (-1, 0), c = (1, -1): p_0 moves from {was:.6f} to {now:.6f}")
    return proved(
        {
            "3 keys, d = 2, all symbolic": True,
            "any number: the weights share the factor exp(-q.c)": zero(
                g * w / (g * total) - w / total
            ),
        }
    )


def _shift_queries(sign: int) -> Finding:
    """Return whether weights exp(q.k) are exp((q - c).k) times the key weights exp(sign c.k)."""
    q, c, k = (sympy.symbols(f"{name}0 {name}1 {name}2") for name in "qck")
    moved = sum((a - b) * x for a, b, x in zip(q, c, k, strict=True))
    carried = sum(sign * b * x for b, x in zip(c, k, strict=True))
    plain = sum(a * x for a, x in zip(q, k, strict=True))
    if zero(moved + carried - plain):
        return holds("(q - c).k + c.k = q.k, symbolically, d = 3; linear, so in every d")
    return refuted(f"the logits differ by {sympy.factor(moved + carried - plain)}")


def _dropped(constant: Fraction) -> Finding:
    """Return whether dropping keys more than log(n/eps) below the top moves less than that eps."""
    kept, lost = sympy.symbols("kept lost", positive=True)
    p0 = lost / (kept + lost)
    moved = p0 + kept * (1 / kept - 1 / (kept + lost))
    steps = proved(
        {
            "dropping mass p0 moves exactly 2 p0": zero(moved - 2 * p0),
            "p0 <= lost/(1 + lost) < (n-1) eps/n: p0 rises with lost": bool(
                sympy.factor(sympy.diff(p0, lost)).is_positive
            ),
        }
    )
    for n, eps in product((2, 10, 1000, 10**6), (Fraction(1, 1000), Fraction(1, 10))):
        each = eps / n * (1 - Fraction(1, 2**40))  # just under the threshold
        distance = l1_distance((Fraction(1), (n - 1) * each), (Fraction(1), Fraction(0)))
        if distance >= constant * eps:
            shown = f"n = {n}, eps = {float(eps):g}: n - 1 keys of weight eps/n lost"
            return refuted(f"{shown}, distance {float(distance):.9g}")
    return both(
        steps,
        holds(
            f"nearest instance: n = {n}, eps = {float(eps):g}, distance "
            f"{float(distance / eps):.6f} eps"
        ),
    )


def _jacobian(one_norm: Fraction, two_norm: Fraction) -> Finding:
    """Return whether |diag(p) - pp^T| is at most these from max to l1, and in l2."""
    s, M, m, mu, x = sympy.symbols("s M m mu x", real=True)
    mean = 2 * s - 1  # p.x for x = 1 on S and -1 off it
    on, off = s * (1 - mean), (1 - s) * (mean + 1)  # sums of p_i |x_i - p.x|
    steps = proved(
        {
            "convex: corners +-1 decide; S and its complement move 4s(1-s), s = p(S)": zero(
                on + off - 4 * s * (1 - s)
            ),
            "4s(1-s) = 1 - (1-2s)^2": zero(4 * s * (1 - s) - (1 - (1 - 2 * s) ** 2)),
            "x^T J x = Var <= (M-mu)(mu-m), as (M-x)(x-m) >= 0": zero(
                sympy.expand((M - x) * (x - m)) - (x * (M + m) - x**2 - M * m)
            ),
            "(M-mu)(mu-m) <= (M-m)^2/4": zero(
                (M - m) ** 2 / 4 - (M - mu) * (mu - m) - (mu - (M + m) / 2) ** 2
            ),
            "(M-m)^2 <= 2(M^2+m^2) <= 2": zero(2 * (M**2 + m**2) - (M - m) ** 2 - (M + m) ** 2),
        }
    )
    for n in range(2, 6):
        p = [Fraction(1, 2), Fraction(1, 2)] + [Fraction(0)] * (n - 2)
        largest = max(
            4 * sum((p[i] for i in S), Fraction(0)) * (1 - sum((p[i] for i in S), Fraction(0)))
            for size in range(n + 1)
            for S in combinations(range(n), size)
        )
        # (1, -1)/sqrt(2) is an eigenvector: p_0 (1 - p_0) + p_0 p_1.
        value = p[0] * (1 - p[0]) + p[0] * p[1]
        if largest > one_norm or value > two_norm:
            return refuted(f"p = (1/2, 1/2): from max to l1 {largest}, in l2 {value}")
    return both(steps, holds("attained at p = (1/2, 1/2): 1 and 1/2"))


LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="gupta-3eps",
        statement="Dropping the keys more than log(n/eps) below the largest logit moves the row "
        "by less than 2 eps in l1, so the output by less than 2 eps max|V| (published: 3 eps).",
        source="Gupta, Huang, Saha, Xu and Ye 2025, arXiv 2505.14840, Lemma 3.2",
        provenance="second-hand",
        evidence="symbolic",
        check=partial(_dropped, Fraction(2)),
        twin=Twin("1.98 eps suffices", partial(_dropped, Fraction(198, 100))),
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="softmax-key-shift",
        statement="Softmax attention does not change when all keys move by a common vector.",
        source="subquad",
        provenance="recalled",
        evidence="symbolic",
        check=partial(_shift_keys, "keys"),
        twin=Twin("nor when all queries move", partial(_shift_keys, "queries")),
    ),
    Claim(
        id="softmax-query-shift",
        statement="Queries may move by c if every key carries the weight exp(c.k).",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_shift_queries, 1),
        twin=Twin("the weight is exp(-c.k)", partial(_shift_queries, -1)),
    ),
    Claim(
        id="softmax-jacobian",
        statement="J = diag(p) - pp^T maps the cube to l1 length max_S 4 p(S)(1 - p(S)) <= 1, and "
        "its l2 norm is at most 1/2; both attained.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_jacobian, Fraction(1), Fraction(1, 2)),
        twin=Twin(
            "the l2 norm is at most 0.495", partial(_jacobian, Fraction(1), Fraction(99, 200))
        ),
    ),
)
