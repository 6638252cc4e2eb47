"""Claims on hardness gadgets: they can be built, and do what is said of them."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from itertools import product

import numpy as np

from proofs_checks.checks.hardness import gadget
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted, undecided


def decides(extra: Fraction) -> Finding:
    """Return whether an additive error < 1/2 - 1/(n+1) + extra tells the two cases apart."""
    import sympy as sp

    n = sp.Symbol("n", integer=True, positive=True)
    error = sp.Rational(1, 2) - 1 / (n + 1) + sp.Rational(extra)
    gap = sp.simplify((n / (n + 1) - error) - (1 / (n + 1) + error))
    if gap == 0:
        return holds("n/(n+1) - e > 1/(n+1) + e for every e below: the gap closes there exactly")
    if gap.is_negative:
        return refuted(f"the answer 1/2 is within {error} of both cases: gap {gap}")
    return undecided(f"gap {gap}")


def trivial(constant: Fraction) -> Finding:
    """Return whether the answers 1/2 and 0 err by <= constant, relatively 2 constant, on [0, 1]."""
    import sympy as sp

    half, worst = sp.Rational(1, 2), sp.Rational(constant)
    y = sp.Symbol("y", nonnegative=True)
    square = sp.expand(sp.Rational(1, 4) - (y - half) ** 2 - y * (1 - y))
    if square != 0:
        return undecided("sympy does not reduce 1/4 - (y - 1/2)^2 to y (1 - y)")
    if worst < half:
        return refuted(f"at y = 1 the answer 1/2 errs by 1/2 > {worst}")
    relative = sp.simplify(abs(0 - y) - 2 * worst * y)
    if relative.is_positive:
        return undecided("the relative error of the answer 0")
    return holds("1/4 - (y - 1/2)^2 = y (1 - y) >= 0, and |0 - y| = y")


def tensor_power(shift: int) -> Finding:
    """Return whether <v^q, w^q> = <v, w>^(q+shift) for tensor powers of 0/1 vectors, exhaustively.

    With |v^q| = |v|^q, the case v = w, the cosine is the q-th power.
    """
    count = 0
    for length, q in product((1, 2, 3, 4), (1, 2, 3, 4)):
        vectors = np.array(list(product((0, 1), repeat=length))[1:])
        powers = vectors
        for _ in range(q - 1):
            powers = (powers[:, :, None] * vectors[:, None, :]).reshape(len(vectors), -1)
        wanted, got = (vectors @ vectors.T) ** (q + shift), powers @ powers.T
        if not np.array_equal(got, wanted):
            i, j = np.argwhere(got != wanted)[0]
            return refuted(f"v = {vectors[i]}, w = {vectors[j]}, q = {q}: {got[i, j]}")
        count += got.size
    return holds(f"{count:,} pairs: lengths and powers 1 to 4")


def doubling(complement: bool) -> Finding:
    """Return whether (x, 1 - x), or (x, x), has weight d and doubles all distances, d to 7."""
    for d in range(1, 8):
        x = np.array(list(product((0, 1), repeat=d)))
        doubled = np.hstack([x, 1 - x if complement else x])
        if (doubled.sum(axis=1) != d).any():
            return refuted(f"d = {d}: weights {sorted(set(doubled.sum(axis=1).tolist()))}")
        single = np.abs(x[:, None] - x).sum(axis=2)
        if not np.array_equal(np.abs(doubled[:, None] - doubled).sum(axis=2), 2 * single):
            return refuted(f"d = {d}: a distance is not doubled")
    return holds("all pairs for d = 1..7")


_LESS = Fraction(99, 100)
_HAVERBECK = "Haverbeck et al. 2026, Efficiently Approximating Attention is Hard"
_ALMAN_YU = "Alman and Yu, ICLR 2025, arXiv 2410.04271"

LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="gap-gadget",
        statement="The output at a query is >= n/(n+1) if a key is within distance t, and "
        "<= 1/(n+1) if none is within (1 + eps) t; all balanced vectors, d <= 8, n <= 4.",
        source=f"{_HAVERBECK}, Lemma A.5",
        provenance="read",
        evidence="enclosed",
        check=partial(gadget.gadget, Fraction(1)),
        twin=Twin("0.99/(n+1)", partial(gadget.gadget, _LESS)),
    ),
    Claim(
        id="gap-gadget-entries",
        statement="Its entries are at most rho sqrt(beta) <= C_B sqrt(log N), C_B^2 = "
        "6 C_d/(eps c), for t >= c log N and D = C_d log N.",
        source=f"{_HAVERBECK}, Lemma A.5",
        provenance="read",
        evidence="symbolic",
        check=partial(gadget.entry_bound, Fraction(1)),
        twin=Twin("C_B^2 made 1 % smaller", partial(gadget.entry_bound, _LESS)),
    ),
    Claim(
        id="gap-decided",
        statement="Every answer with additive error < 1/2 - 1/(n+1) tells the gadget's two cases "
        "apart; at equality the answer 1/2 does not.",
        source=f"{_HAVERBECK}, Theorem 3.7",
        provenance="read",
        evidence="symbolic",
        check=partial(decides, Fraction(0)),
        twin=Twin("error < 1/2 - 1/(n+1) + 0.01", partial(decides, Fraction(1, 100))),
        depends=("gap-gadget",),
    ),
    Claim(
        id="trivial-half",
        statement="With values in [0, 1] the answer 1/2 has additive error at most 1/2, the answer "
        "0 relative error at most 1: the thresholds of the theorem are those of no work.",
        source=f"{_HAVERBECK}, Theorem 3.7",
        provenance="read",
        evidence="symbolic",
        check=partial(trivial, Fraction(1, 2)),
        twin=Twin("0.495", partial(trivial, Fraction(99, 200))),
    ),
    Claim(
        id="tensor-power-cosine",
        statement="cos of the q-th tensor powers is cos(v, w)^q; all non-zero 0/1 vectors of "
        "length <= 4, q <= 4.",
        source=f"{_ALMAN_YU}, the tensor powers of the MSD reduction",
        provenance="second-hand",
        evidence="exact",
        check=partial(tensor_power, 0),
        twin=Twin("cos(v, w)^(q+1)", partial(tensor_power, 1)),
    ),
    Claim(
        id="balanced-doubling",
        statement="x -> (x, 1 - x) makes every 0/1 vector balanced and doubles all distances; all "
        "pairs to d = 7.",
        source="Alman and Song 2023, arXiv 2302.13214, Remark 4.4",
        provenance="recalled",
        evidence="exact",
        check=partial(doubling, True),
        twin=Twin("x -> (x, x)", partial(doubling, False)),
    ),
)

DERIVED: tuple[Claim, ...] = ()
