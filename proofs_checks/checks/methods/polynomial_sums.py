"""The sums of a polynomial: its scaling, the rounding of its two passes, and merging Partials."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from math import comb, factorial, prod
from typing import Any

import numpy as np
import sympy

from proofs_checks.checks.bounds.rounding import stagnating
from proofs_checks.claim import Claim, Finding, Twin, holds, refuted
from proofs_checks.proving import both, proved
from subquad.arrays.arithmetic import OUTWARD
from subquad.bounds.rounding import polynomial_gammas, polynomial_sum_error, polynomial_underflow
from subquad.engine import accumulate, contract, contraction_length, tile_count
from subquad.engine.naive import polynomial as naive_polynomial
from subquad.features import block_sizes, exponents

Bound = Callable[..., Any]


@cache
def multinomial_proof() -> Finding:
    """Return the proof that degree k of a row has absolute values of sum <= (|q| |k|)^k."""
    steps = {}
    for d, k in ((1, 4), (2, 3), (3, 3), (4, 2)):
        q, x = sympy.symbols(f"q0:{d}"), sympy.symbols(f"k0:{d}")
        rows = [[int(e) for e in row] for row in exponents(d, k) if sum(row) == k]
        weights = [factorial(k) // prod(factorial(e) for e in row) for row in rows]
        graded = sum(
            w * prod((a * b) ** e for a, b, e in zip(q, x, row, strict=True))
            for w, row in zip(weights, rows, strict=True)
        )
        steps[f"multinomial theorem, d = {d}, degree {k}, {comb(d + k - 1, k)} monomials"] = (
            sympy.expand(graded - sum(a * b for a, b in zip(q, x, strict=True)) ** k) == 0
        )
        dot = sum(a * b for a, b in zip(q, x, strict=True))
        gap = sum(a**2 for a in q) * sum(b**2 for b in x) - dot**2
        squares = sum((q[i] * x[j] - q[j] * x[i]) ** 2 for i in range(d) for j in range(i))
        steps[f"|q|^2 |k|^2 - (q.k)^2 is a sum of squares, d = {d}"] = (
            sympy.expand(gap - squares) == 0
        )
    return proved(steps)


def _gammas(d: int, degree: int, keys: int, dtype: str) -> np.ndarray:
    tiles = tile_count(keys, d, degree)
    return polynomial_gammas(
        [
            contraction_length(k, d=d, degree=degree, tiles=tiles, dtype=dtype)
            for k in range(degree + 1)
        ],
        dtype,
    )


def _worst_sum(bound: Bound) -> Finding:
    """Return whether rho covers, and to 2 % equals, the worst sum over one tile, degree 1."""
    lost, size = stagnating(512)  # of keys 1, u, u, ...; the values are 1, so both sums lose it
    moments = np.array([512.0, float(size)])
    gammas = _gammas(1, 1, 512, "float32")
    value = float(bound(np.array([0.0, 1.0]), np.ones(1), moments, gammas)[0])
    shown = f"rho {value:.6g}, numerator and normaliser lose {float(2 * lost):.6g}"
    if 2 * lost > Fraction(value):
        return refuted(f"512 keys 1, u, u, ...: {shown}")
    if Fraction(value) > 2 * lost * Fraction(102, 100):
        return refuted(f"512 keys 1, u, u, ...: not sharp, {shown}")
    return holds(f"one tile of keys 1, u, u, ...: {shown}")


def _passes(bound: Bound, underflow: Callable[..., float]) -> Finding:
    """Return whether rho covers the engine's own error on rows in exact rationals."""
    nearest = Fraction(0)
    for dtype, d, degree, size in (
        ("float32", 3, 3, 1.0),
        ("float32", 1, 6, 2.0),
        ("float64", 2, 4, 0.7),
        ("float32", 2, 3, 2.0**-24),
    ):
        rng = np.random.default_rng(d * degree)
        Q, K = ((rng.standard_normal((24, d)) * size).astype(dtype) for _ in range(2))
        W = np.ones((24, 3), dtype)
        W[:, :2] = rng.uniform(-1, 1, (24, 2))
        c = np.array([1 / factorial(k) for k in range(degree + 1)])
        state = accumulate(K, W, degree, key_centre=np.zeros(d))
        numerator, by_degree = contract(Q, state, c)
        reach = float(
            np.max(np.linalg.norm(Q.astype(float), axis=1))
            * np.max(np.linalg.norm(K.astype(float), axis=1))
        )
        norms = np.linalg.norm(Q.astype(np.float64), axis=1) * OUTWARD
        rho = bound(c, norms, state.norm_moments, _gammas(d, degree, 24, dtype))
        rho = rho + underflow(c, block_sizes(d, degree), 24, d, reach, dtype)
        rationals = np.vectorize(Fraction, otypes=[object])
        q, k, w = (rationals(x.astype(float)) for x in (Q, K, W))
        n_true, d_true = naive_polynomial(q, k, w, rationals(c))
        for i in range(24):
            ours = sum(
                (Fraction(x) * Fraction(y) for x, y in zip(by_degree[i], c, strict=True)),
                Fraction(0),
            )
            true = sum((x * Fraction(y) for x, y in zip(d_true[i], c, strict=True)), Fraction(0))
            lost = abs(ours - true)
            lost += max(abs(Fraction(x) - y) for x, y in zip(numerator[i], n_true[i], strict=True))
            if lost > Fraction(float(rho[i])):
                return refuted(
                    f"{dtype}, d = {d}, degree {degree}, row {i}: rho {rho[i]:.3g} < "
                    f"error {float(lost):.3g}"
                )
            nearest = max(nearest, lost / Fraction(float(rho[i])))
    return holds(f"96 rows of the engine in exact rationals: error up to {float(nearest):.3f} rho")


def _rounding_polynomial(bound: Bound, underflow: Callable[..., float]) -> Finding:
    return both(multinomial_proof(), _worst_sum(bound), _passes(bound, underflow))


DERIVED: tuple[Claim, ...] = (
    Claim(
        id="rounding-polynomial",
        statement="The two passes lose at most rho = 2 sum_k |c_k| |q|^k M_k gamma_k, numerator "
        "and normaliser together; the worst sum over one tile reaches it to 2 %.",
        source="subquad",
        provenance="derived",
        evidence="exact",
        check=partial(_rounding_polynomial, polynomial_sum_error, polynomial_underflow),
        twin=Twin(
            "the factor 2 (numerator and normaliser) is not needed",
            partial(
                _rounding_polynomial, lambda *a: polynomial_sum_error(*a) / 2, polynomial_underflow
            ),
        ),
        depends=("rounding-gamma",),
    ),
)
