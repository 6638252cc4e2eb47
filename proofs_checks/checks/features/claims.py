"""Claims on feature maps: how many features a polynomial of q.k takes, and which."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from math import comb
from typing import Any

import numpy as np

from proofs_checks.checks.features import ranks as rank_checks
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from subquad.exp_poly import chebyshev_interpolant
from subquad.features import (
    block_sizes,
    exponents,
    feature_dimension,
    monomials,
    multinomials,
    suffix_offsets,
)


def symmetric_features(weighted: bool) -> Finding:
    """Return whether the monomials with multinomial weights give (x.y)^k, by expansion."""
    import sympy as sp

    for d, k in ((1, 5), (2, 5), (3, 4), (4, 3), (6, 2)):
        x, y = (np.array([sp.symbols(f"{name}:{d}")], dtype=object) for name in "xy")
        r_k = block_sizes(d, k)[k]
        if r_k != comb(d + k - 1, k):
            return refuted(f"d = {d}, k = {k}: {r_k} features")
        left, right = (_monomials(v, k)[0, -r_k:] for v in (x, y))
        weights = [int(w) if weighted else 1 for w in multinomials(d, k)]
        got = sp.expand(sum(w * a * b for w, a, b in zip(weights, left, right, strict=True)))
        if got - sp.expand((x @ y.T)[0, 0] ** k) != 0:
            return refuted(f"d = {d}, k = {k}: the two expansions differ")
    return holds("(d, k) = (1, 5), (2, 5), (3, 4), (4, 3), (6, 2)")


def _monomials(x: Any, degree: int) -> Any:
    return monomials(x, degree)


def graded_prefix(shift: int) -> Finding:
    """Return whether lowering the degree takes a prefix, and suffixes begin where it is said."""
    for d in range(1, 7):
        for g in range(1, 6):
            whole = exponents(d, g)
            if len(whole) != feature_dimension(d, g) or len(set(map(tuple, whole))) != len(whole):
                return refuted(f"d = {d}, g = {g}: {len(whole)} exponents, or some twice")
            if not np.array_equal(whole[: feature_dimension(d, g - 1)], exponents(d, g - 1)):
                return refuted(f"d = {d}, g = {g}: degree {g - 1} is no prefix")
            block = whole[-block_sizes(d, g)[g] :]
            for a, start in enumerate(suffix_offsets(d, g)):
                from_a = ~block[:, :a].any(axis=1)
                if not np.array_equal(np.flatnonzero(from_a), np.arange(start + shift, len(block))):
                    return refuted(f"d = {d}, g = {g}, a = {a}: suffix from {start + shift}")
    return holds("d = 1..6, g = 1..5: counts, prefixes and all suffixes")


def reference_degree(highest: int) -> Finding:
    """Return whether degrees to `highest` are evaluated whole by a model of the reference code.

    The model: products of features of degree 0 to 3 with their coefficients, whatever the length
    of the list of coefficients; nothing is raised.
    """
    for g in range(1, highest + 1):
        coefficients = chebyshev_interpolant(g, 1.0).coefficients
        if any(coefficients[4:]):
            whole = sum(coefficients)
            dropped = sum(coefficients[4:])
            return refuted(
                f"degree {g}, B = 1, logit 1: {float(whole - dropped):.5f} in the place of "
                f"p(1) = {float(whole):.5f}"
            )
    return holds(f"degrees 1 to {highest}")


def rowwise_kronecker(swapped: bool) -> Finding:
    """Return whether (U1 V1^T) o (U2 V2^T) = (U1 * U2)(V1 * V2)^T, * the Kronecker row by row."""
    import sympy as sp

    def rows(a: Any, b: Any) -> Any:
        return sp.Matrix.vstack(*[sp.kronecker_product(a[i, :], b[i, :]) for i in range(a.rows)])

    U1, U2, V1, V2 = _matrices(("u", 2, 2), ("s", 2, 3), ("v", 3, 2), ("t", 3, 3))
    wanted = sp.hadamard_product(U1 * V1.T, U2 * V2.T)
    got = rows(U1, U2) * (rows(V2, V1) if swapped else rows(V1, V2)).T
    return _equal(sp.expand(got - wanted), "2 x 3 matrices of ranks 2 and 3, in symbols")


def vec_kronecker(by_rows: bool) -> Finding:
    """Return whether vec(A1 X A2^T) = (A1 x A2) vec(X), vec by rows or by columns."""
    import sympy as sp

    def vec(matrix: Any) -> Any:
        return sp.Matrix((matrix if by_rows else matrix.T).reshape(matrix.rows * matrix.cols, 1))

    A1, A2, X = _matrices(("a", 3, 2), ("b", 2, 2), ("x", 2, 2))
    got = sp.kronecker_product(A1, A2) * vec(X)
    return _equal(sp.expand(got - vec(A1 * X * A2.T)), "3 x 2, 2 x 2 and 2 x 2, in symbols")


def _matrices(*shapes: tuple[str, int, int]) -> list[Any]:
    import sympy as sp

    return [
        sp.Matrix(m, n, lambda i, j, name=name: sp.Symbol(f"{name}{i}{j}")) for name, m, n in shapes
    ]


def _equal(difference: Any, where: str) -> Finding:
    if difference.is_zero_matrix:
        return holds(where)
    return refuted(f"{where}: an entry differs by {next(x for x in difference if x != 0)}")


_AS24 = "Alman and Song, NeurIPS 2024, arXiv 2402.04497"

LITERATURE: tuple[Claim, ...] = (
    Claim(
        id="as23-rank",
        statement="The published rank C(2(g+d), 2g) of p(X Y^T) is true and loose: it is at least "
        "1.5 C(d+g, g)^2, the square of the tight rank; d < 40, g < 15.",
        source="Alman and Song 2023, arXiv 2302.13214, low-rank lemma",
        provenance="recalled",
        evidence="exact",
        check=partial(rank_checks.square_root_rank, Fraction(3, 2)),
        twin=Twin("1.515 for 1.5", partial(rank_checks.square_root_rank, Fraction(303, 200))),
        depends=("rank-at-most",),
    ),
    Claim(
        id="symmetric-features",
        statement="(x.y)^k = sum of k!/alpha! x^alpha y^alpha over the C(d+k-1, k) monomials of "
        "degree k, with `monomials` and `multinomials` of the package; five (d, k).",
        source="multinomial theorem",
        provenance="recalled",
        evidence="symbolic",
        check=partial(symmetric_features, True),
        twin=Twin("without the multinomial weights", partial(symmetric_features, False)),
    ),
    Claim(
        id="as24-rowwise-kronecker",
        statement="(U1 V1^T) o (U2 V2^T) = (U1 * U2)(V1 * V2)^T with the Kronecker product * taken "
        "row by row.",
        source=f"{_AS24}, Fact A.2",
        provenance="read",
        evidence="symbolic",
        check=partial(rowwise_kronecker, False),
        twin=Twin("V2 * V1 for V1 * V2", partial(rowwise_kronecker, True)),
    ),
    Claim(
        id="as24-vec-kronecker",
        statement="vec(A1 X A2^T) = (A1 x A2) vec(X) with vec by rows.",
        source=f"{_AS24}, Fact 3.8",
        provenance="read",
        evidence="symbolic",
        check=partial(vec_kronecker, True),
        twin=Twin("vec by columns", partial(vec_kronecker, False)),
    ),
    Claim(
        id="sb-degree-dropped",
        statement="The function apply_poly_rank3 evaluates the polynomial that it is given, at "
        "degree 4. (In a model of the path, which has features of degree 0 to 3 and drops "
        "further coefficients without an error.)",
        source="Support Basis reference code (commit fa6c180), supp_basis_optimization.py",
        provenance="read",
        evidence="counterexample",
        check=partial(reference_degree, 4),
        twin=Twin("to degree 3", partial(reference_degree, 3), expected="holds"),
        expected="refuted",
    ),
)

DERIVED: tuple[Claim, ...] = (
    Claim(
        id="rank-at-most",
        statement="A polynomial of degree g of X Y^T, X and Y with d columns, has rank at most "
        "C(d+g, g); on random integers.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(rank_checks.rank_at_most, 0),
        twin=Twin("C(d+g, g) - 1", partial(rank_checks.rank_at_most, 1)),
        depends=("symmetric-features",),
    ),
    Claim(
        id="rank-tight",
        statement="With no coefficient zero and generic X, Y that rank is attained: it is "
        "C(d+g, g) modulo a prime, hence over the rationals too; nine (d, g).",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(rank_checks.rank_equals, None),
        twin=Twin("with the coefficient of degree 1 zero", partial(rank_checks.rank_equals, 1)),
        depends=("rank-at-most",),
    ),
    Claim(
        id="graded-prefix",
        statement="The monomials of degree <= g - 1 are a prefix of those of degree <= g, "
        "and those of degree k without the variables before a are the suffix from "
        "`suffix_offsets`.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(graded_prefix, 0),
        twin=Twin("the suffixes begin one later", partial(graded_prefix, 1)),
    ),
)
