"""The fused passes by hand on rows that are hard for them, against exact integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache

import numpy as np

from proofs_checks.checks.tensor_cores import model
from proofs_checks.claim import Finding, holds, refuted
from subquad.bounds.rounding import polynomial_underflow
from subquad.engine.fused.sizes import FLUSH_STEPS, OPERANDS
from subquad.features import block_sizes

Errors = Callable[[int, int, str, int], tuple[float, ...]]
PARTS = {"bfloat16": 1, "bfloat16x3": 2}
COEFFICIENTS = (1.003, 0.98, 0.53, 0.17)
BITS = 160
"""Every number of the rows below is a whole multiple of 2^-BITS."""
LONG = 16 * FLUSH_STEPS + 61
"""Keys of which the last four steps come after a flush."""
Rows = tuple[str, np.ndarray, np.ndarray, np.ndarray, int]


@cache
def _near_ties(degree: int, parts: int) -> tuple[float, float, float]:
    """Return (query, key, weight) of one variable that lose much in this degree, of many drawn."""
    rng = np.random.default_rng(degree)
    q, k, w = 1.0 + (rng.integers(0, 128, (3, 40_000)) + rng.uniform(0.4, 0.6, (3, 40_000))) / 128.0
    q, k = (model.value(model.operand(x, parts)) for x in (q, k))  # as rounded: the exact ones
    w = model.float32(w)

    def power(x: np.ndarray) -> model.Number:
        return model.feature(model.operand(x[:, None], parts), (0,) * degree)

    moment = model.multiplied(power(k), model.operand(w, parts))
    found = model.multiplied(power(q), model.operand(moment, parts))
    worst = int(np.argmax(abs(found / (w * (q * k) ** degree) - 1.0)))
    return float(q[worst]), float(k[worst]), float(w[worst])


def _rows(degree: int, parts: int) -> Iterator[Rows]:
    """Yield (what, Q, K, W = [V w, w], groups), d = 16."""
    rng, d = np.random.default_rng(10 * degree + parts), model.D
    for k in range(1, degree + 1):
        first = np.eye(1, d)
        query, key, weight = _near_ties(k, parts)
        yield "near ties", query * first, key * first, np.full((1, 2), weight), 1

    def rows(m: int, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        return rng.standard_normal((2, d)) * size, rng.standard_normal((m, d)) * size

    def weights(m: int) -> np.ndarray:
        w = rng.uniform(0.3, 1.0, (m, 1))
        return np.hstack([w * rng.uniform(-1, 1, (m, 1)) ** 3, w])

    yield "random", *rows(333), weights(333), 3
    yield "small", *rows(50, 2.0**-31), weights(50) * 2.0**-60, 1
    if (degree, parts) == (3, 2):
        return  # long runs of steps take their time, and are the same in degree 2
    Q, K = rows(LONG)
    w = weights(LONG)[:, 1:]
    yield "of one sign", abs(Q), abs(K), np.hstack([w, w]), 1
    if degree == 3:
        return
    sign = np.where(np.arange(LONG) % 2, 1.0, -1.0)[:, None]
    yield "alternating", abs(Q), sign * abs(K), np.hstack([sign * w, w]), 2
    w = np.full((LONG, 1), (1.0 - 2.0**-8) * 2.0**-25)
    w[0] = 1.0
    yield "one large, many small", np.eye(2, d), np.ones((LONG, d)), np.hstack([-w, w]), 1


def _whole(x: np.ndarray) -> np.ndarray:
    """Return the integers x 2^BITS."""
    return np.vectorize(int, otypes=[object])(np.ldexp(x, BITS))


def _measured(
    errors: Errors, degree: int, operands: str, rows: Rows
) -> Iterator[tuple[str, Fraction, Fraction]]:
    """Yield (what, error, bound) of every normaliser by degree and of the numerator."""
    what, *arrays, groups = rows
    Q, K, W = (model.float32(x) for x in arrays)
    c = COEFFICIENTS[: degree + 1]
    numerator, by_degree = model.passes(Q, K, W, c, PARTS[operands], groups)
    Q, K = (model.value(model.operand(x, PARTS[operands])) for x in (Q, K))
    logits, w = _whole(Q) @ _whole(K).T, _whole(W)
    q, k = (np.linalg.norm(x, axis=1) * (1.0 - 2.0**-40) for x in (Q, K))
    said, sizes = errors(model.D, degree, operands, len(K)), block_sizes(model.D, degree)
    reach = float(q.max() * k.max()) * (1.0 + 2.0**-30)
    exact, bound = [], []
    for j in range(degree + 1):
        exact.append(logits**j @ w / Fraction(2 ** (BITS * (2 * j + 1))))
        lost = polynomial_underflow(np.eye(degree + 1)[j], sizes, len(K), model.D, reach, operands)
        bound.append([Fraction(said[j] * x + lost) for x in q**j * float(W[:, -1] @ k**j)])
    for i in range(len(Q)):
        for j in range(degree + 1):
            off = abs(Fraction(by_degree[i, j]) - exact[j][i, -1])
            yield f"{what}, degree {j} of {degree}", off, bound[j][i]
        off, allowed = Fraction(numerator[i, 0]), Fraction(0)
        for a, true, most in zip(c, exact, bound, strict=True):
            off, allowed = off - Fraction(a) * true[i, 0], allowed + Fraction(a) * most[i]
        yield f"{what}, numerator of {degree}", abs(off), allowed


def simulated(errors: Errors) -> Finding:
    """Return whether the passes by hand stay within the bound, and how near they come."""
    count, nearest = 0, dict.fromkeys(OPERANDS, 0.0)
    for operands, parts in PARTS.items():
        for degree in (2, 3):
            for rows in _rows(degree, parts):
                for what, off, bound in _measured(errors, degree, operands, rows):
                    if not off <= bound:
                        return refuted(
                            f"{operands}, {what}: bound {float(bound):.6g} < error {float(off):.6g}"
                        )
                    count += 1
                    nearest[operands] = max(nearest[operands], float(off / bound))
    shown = ", ".join(f"{x:.3f} in {name}" for name, x in nearest.items())
    return holds(f"{count} sums by hand within the bound, up to {shown}")
