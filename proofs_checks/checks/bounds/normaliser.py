"""Lower bounds of the sum of the weights of a row: the published one, and the one that is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cache, partial
from typing import Any

import flint
import sympy

from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, proved, zero
from subquad.bounds.softmax import normaliser_lower_bound
from subquad.exp_poly.balls import ball, precision

EQ44 = "Aliakbarpour, Braverman, Yin and Zhang 2025, arXiv 2510.01643, section I.1, Eq. 44"


@cache
def jensen_proof() -> Finding:
    """Return the proof of sum w_j exp(x_j) >= W exp(c), c the weighted mean of the x_j."""
    t = sympy.symbols("t", real=True)
    gap = sympy.exp(t) - 1 - t
    w, x, v, y = sympy.symbols("w x v y", real=True)
    mean = (w * x + v * y) / (w + v)
    return proved(
        {
            "exp(t) - 1 - t is convex": bool(sympy.diff(gap, t, 2).is_positive),
            "with its one stationary point at 0, value 0": sympy.solveset(
                sympy.diff(gap, t), t, sympy.S.Reals
            )
            == sympy.FiniteSet(0)
            and gap.subs(t, 0) == 0,
            "hence exp(x) >= exp(c)(1 + x - c); the x_j - c cancel": zero(
                w * (x - mean) + v * (y - mean)
            ),
        }
    )


def _rows() -> Iterator[tuple[Fraction, Fraction, Fraction]]:
    """Yield (total weight, logit bound, offset), exact in float64, B as large as polynomials go."""
    for weight in (1, 3, 4096, 2**20):
        for bound in (0, Fraction(1, 8), 1, 5, Fraction(83, 4), 64):
            for offset in (0, Fraction(1, 2**10), Fraction(1, 4), 1):
                yield Fraction(weight), Fraction(bound), Fraction(offset)


def _jensen(bound: Callable[..., Any]) -> Finding:
    """Return whether W exp(-B offset) is below every sum, and attained by nearly equal keys."""
    tiny, count = Fraction(1, 2**200), 0
    with precision(320):
        for weight, logit_bound, offset in _rows():
            # Weight 1 - tiny at the mean, tiny at -B: |mean| is just above B offset.
            at_mean = ball(-logit_bound * offset).exp() * ball(weight * (1 - tiny))
            attained = at_mean + ball(-logit_bound).exp() * ball(weight * tiny)
            value = ball(float(bound(float(weight), float(logit_bound), float(offset))))
            shown = f"W = {weight}, B = {logit_bound}, offset {offset}: bound {float(value)!r}"
            if not value <= attained:
                return refuted(f"{shown} > {float(attained)!r}, which equal keys attain")
            if not value >= attained * (1 - flint.arb(10) ** -12):
                return refuted(f"{shown}, best possible {float(attained)!r}")
            count += 1
    return both(jensen_proof(), holds(f"attained at {count} triples, in balls, to within 1e-12"))


def _smallest(logit_bound: Fraction, factor: Fraction) -> Finding:
    """Return whether n exp(-L) is below the sum of every row of logits within +-L."""
    x, L = sympy.symbols("x L", real=True)
    steps = proved(
        {
            "exp rises": bool(sympy.diff(sympy.exp(x), x).is_positive),
            "all logits -L: n exp(-L)": zero(sympy.exp(x).subs(x, -L) * sympy.exp(L) - 1),
        }
    )
    n = 5
    with precision(128):
        total = n * ball(-logit_bound).exp()
        if not ball(factor) * n * (-ball(logit_bound)).exp() <= total + total / 2**100:
            return refuted(f"n = 5 keys at -L = {-logit_bound}: sum {float(total)!r}")
    return steps


def _centred(
    centre: bool, bound: Callable[[Sequence[Fraction], Sequence[Fraction]], Any]
) -> Finding:
    """Return whether the normaliser of every row is at least `bound`, keys centred first or not.

    Rows (q, keys): the published counterexample and some others, d = 1, exact.
    """
    rows = [
        (Fraction(1), [Fraction(-2)] * 2),
        (Fraction(1), [Fraction(-2), Fraction(-3)]),
        (Fraction(2), [Fraction(-1), Fraction(-1), Fraction(-5)]),
        (Fraction(-3), [Fraction(1), Fraction(7, 2), Fraction(2), Fraction(1)]),
        (Fraction(1, 3), [Fraction(k, 7) for k in range(-9, 4)]),
    ]
    smallest: list[float] = []
    with precision(128):
        for q, keys in rows:
            mean = sum(keys, Fraction(0)) / len(keys) if centre else Fraction(0)
            total = sum((ball(q * (k - mean)).exp() for k in keys), ball(0))
            wanted = bound([q], keys)
            if total < wanted:
                shown = f"n = {len(keys)}, d = 1, Q = {q}, K = ({', '.join(map(str, keys))})"
                return refuted(f"{shown}: D = {float(total):.6f} < {float(wanted):.6f}")
            if not total >= wanted:  # equal, so balls cannot tell: every key is the mean
                if any(k != mean for k in keys):
                    return refuted(f"undecided by balls at Q = {q}")
            smallest.append(float(total) / len(keys))
    return holds(f"smallest D/n over {len(rows)} rows {min(smallest):.6f}")


def _count(q: Sequence[Fraction], keys: Sequence[Fraction]) -> flint.arb:
    return ball(len(keys))


def _eq44(q: Sequence[Fraction], keys: Sequence[Fraction]) -> flint.arb:
    """Return n exp(b^2), b the smallest |entry| of Q and K."""
    smallest = min(abs(x) for x in (*q, *keys))
    return len(keys) * ball(smallest**2).exp()


def _repaired() -> Finding:
    return both(jensen_proof(), _centred(True, _count))


LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="sb-eq44",
        statement="The normaliser of every row is at least n exp(b^2), b the smallest |entry| of "
        "Q and K. (The step is false for signed inputs; the theorem may stand.)",
        source=EQ44,
        provenance="second-hand",
        evidence="counterexample",
        check=partial(_centred, False, _eq44),
        twin=Twin("centred keys: at least n", _repaired, "holds"),
        depends=("normaliser-centred",),
        expected="refuted",
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="normaliser-jensen",
        statement="sum_j w_j exp(q.k_j) >= W exp(q.mean), W = sum w_j and the mean weighted; with "
        "|q.k| <= B and offset = |mean|/max|k| it is at least W exp(-B offset), attained.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_jensen, normaliser_lower_bound),
        twin=Twin(
            "1 % more holds too",
            partial(_jensen, lambda *arguments: 1.01 * normaliser_lower_bound(*arguments)),
        ),
    ),
    Claim(
        id="normaliser-centred",
        statement="With keys centred at their mean every normaliser is at least n, whatever the "
        "signs and magnitudes.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=_repaired,
        twin=Twin("centred or not", partial(_centred, False, _count)),
        depends=("normaliser-jensen", "softmax-key-shift"),
    ),
    Claim(
        id="normaliser-logit",
        statement="With logits in [-L, L] the normaliser is at least n exp(-L), attained.",
        source="subquad",
        provenance="derived",
        evidence="symbolic",
        check=partial(_smallest, Fraction(3), Fraction(1)),
        twin=Twin(
            "it is at least 1.01 n exp(-L)", partial(_smallest, Fraction(3), Fraction(101, 100))
        ),
    ),
)
