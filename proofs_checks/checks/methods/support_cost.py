"""What a split costs, in exact pairs, and how many geometric buckets there are."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import product

import numpy as np
import sympy

from proofs_checks.checks.methods.support_basis import PAPER
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, proved, zero
from subquad.arrays.lazy import Lazy
from subquad.exp_poly.balls import ball, precision
from subquad.head.sides import OrderStatistics
from subquad.head.stats import Stats
from subquad.methods.polynomial.sums import parameters_for
from subquad.methods.thresholds.support_basis import SplitParameters, SupportBasis


def _work(counted: Callable[[Stats, SplitParameters], float]) -> Finding:
    """Return whether the method books |R| m + (n - |R|) |C| exact pairs, for every mask."""
    n, m, checked = 4, 3, 0
    stats = Stats(
        n=n,
        m=m,
        d=2,
        d_v=1,
        dtype="float64",
        query_norms=OrderStatistics.constant(n, 1.0),
        key_norms=OrderStatistics.constant(m, 1.0),
        query_entries=OrderStatistics.constant(n, 1.0),
        key_entries=OrderStatistics.constant(m, 1.0),
        full_query_norm=1.0,
        find_offset=Lazy.known_to_be(0.0),
        keys_weighted=False,
        value_ratio=1.0,
    )
    for large_q in product((False, True), repeat=n):
        for large_k in product((False, True), repeat=m):
            pairs = sum(a or b for a in large_q for b in large_k)
            booked = counted(stats, _split(sum(large_q), sum(large_k)))
            if booked != pairs:
                shown = f"|R| = {sum(large_q)}, |C| = {sum(large_k)}, n = {n}, m = {m}"
                return refuted(f"{shown}: {pairs} exact pairs, booked {booked:g}")
            checked += 1
    return holds(f"all {checked} masks of 4 rows and 3 keys, entry by entry")


def _split(large_queries: int, large_keys: int) -> SplitParameters:
    return SplitParameters(
        "norm", 1.0, 1.0, large_queries, large_keys, parameters_for(2, 1.0, "float64", 2)
    )


def _booked(stats: Stats, split: SplitParameters) -> float:
    return SupportBasis().work(stats, split).pairs


def _booked_twice(stats: Stats, split: SplitParameters) -> float:
    return float(split.large_queries * stats.m + stats.n * split.large_keys)


def _bucket_count(ratio: Fraction, smallest: Fraction, largest: Fraction) -> Finding:
    """Return whether ceil(log(B/b)/log(1+eps)) buckets of ratio 1 + eps cover [b, B]."""
    with precision(256):
        quotient = (ball(largest) / ball(smallest)).log() / ball(1 + ratio).log()
        count = int(np.ceil(float(quotient)))
    shown = f"b = {smallest}, B = {largest}, eps = {ratio}: {count} buckets"
    if count < 1 or smallest * (1 + ratio) ** count < largest:
        return refuted(f"{shown}, up to b (1+eps)^{count} = {smallest * (1 + ratio) ** count}")
    if smallest * (1 + ratio) ** (count - 1) >= largest:
        return refuted(f"{shown}, one too many")
    b, e, N = sympy.symbols("b epsilon N", positive=True)
    return both(
        proved(
            {
                "b (1+eps)^N = B at N = log(B/b)/log(1+eps)": zero(
                    sympy.log(b * (1 + e) ** N / b, evaluate=True).expand(force=True)
                    - N * sympy.log(1 + e)
                )
            }
        ),
        holds(shown),
    )


LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="sb-bucket-sign",
        statement="Geometric buckets of ratio 1 + eps with eps < 0 number "
        "ceil(log(B/b)/log(1+eps)) and cover [b, B]. (The published step; eps > 0 repairs it.)",
        source=f"{PAPER}, section G.1",
        provenance="second-hand",
        evidence="counterexample",
        check=partial(_bucket_count, Fraction(-1, 2), Fraction(1), Fraction(9)),
        twin=Twin(
            "eps > 0", partial(_bucket_count, Fraction(1, 2), Fraction(1), Fraction(9)), "holds"
        ),
        expected="refuted",
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="support-work",
        statement="The exact part costs |R| m + (n - |R|) |C| pairs, which is what support_basis "
        "books.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(_work, _booked),
        twin=Twin("|R| m + n |C|", partial(_work, _booked_twice)),
    ),
)
