"""The passes with their rows over several GPUs, on data drawn for them, held against float64.

The input is prepared as the methods prepare it and divided over the devices beforehand. Memory is
poisoned before each of the two runs of a check, which are compared bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .measure import first_order_answer

SEED, D, DEGREE, LOGIT_BOUND, SAMPLED = 0, 64, 2, 0.5, 32

Passes = Callable[[Any, Any, Any, Any], list[Any]]
"""(fleet, Q, K, W) to the outputs of the shards, each on its device."""


def drawn(n: int) -> tuple[Any, Any, Any]:
    """Return Q, K (n, D) and [V, 1] on device 0: norms from nothing to the bound, an offset."""
    import cupy

    rng = cupy.random.default_rng(SEED)

    def rows(offset: float) -> Any:
        x = rng.standard_normal((n, D), dtype=cupy.float32) + np.float32(offset)
        size = rng.random((n, 1), dtype=cupy.float32) * (LOGIT_BOUND**0.5 * (1.0 - 2.0**-10))
        return x * (size / cupy.linalg.norm(x, axis=1, keepdims=True))

    Q, K = rows(0.3), rows(-0.2)
    V = rng.random((n, D), dtype=cupy.float32) * 2.0 - 1.0
    V[: n // 3, 0] = 0.75  # shards must differ
    return Q, K, cupy.concatenate([V, cupy.ones((n, 1), cupy.float32)], axis=1)


def shards(fleet: Any, data: tuple[Any, ...]) -> list[Any]:
    """Return the arrays with their rows divided over the devices."""
    return [fleet.place(x) for x in data]


def fused(fleet: Any, Q: Any, K: Any, W: Any, *, c: np.ndarray, operands: str) -> list[Any]:
    """Return the outputs of the shards by the fused passes; nothing waits for a device."""
    return contracted(fleet, Q, fleet.sum(accumulated(fleet, K, W, operands)), c, operands)


def accumulated(fleet: Any, K: Any, W: Any, operands: str) -> list[Any]:
    """Return the moments of each shard of the keys, by the fused key pass."""
    from subquad.engine.fused import passes as fused_passes

    return K.map(
        lambda k, w: fused_passes.accumulate(k[None], w[None], DEGREE, operands)[0], W.parts
    )


def contracted(fleet: Any, Q: Any, moments: Any, c: np.ndarray, operands: str) -> list[Any]:
    """Return the outputs of the shards of the queries, by the fused query pass."""
    from subquad.engine.fused import passes as fused_passes

    return Q.map(
        lambda q, m: fused_passes.contract(q[None], m, c, operands, divide=True)[0][0], moments
    )


def portable(fleet: Any, Q: Any, K: Any, W: Any, *, c: np.ndarray, operands: str) -> list[Any]:
    """Return the outputs of the shards by the portable passes, States and all."""
    from subquad.engine import contract
    from subquad.engine.shards import rows as shards_rows

    states = shards_rows.accumulate(K, W.parts, DEGREE, key_centre=np.zeros(D))

    def divided(q: Any, state: Any) -> Any:
        import cupy

        numerator, by_degree = contract(q, state, c)
        return numerator / (by_degree @ cupy.asarray(c))[:, None]

    return Q.map(divided, states)


def check(fleet: Any, data: Any, passes: Passes, expected: Any, rows: Any) -> float:
    """Return the relative error on poisoned memory; NaN where two runs differ in a bit."""
    import cupy

    def poison(_: Any) -> None:
        dirty = [cupy.full(1 << power, cupy.nan) for power in range(6, 25)]
        del dirty  # what is handed out next is full of NaN

    placed, found = shards(fleet, data), []
    for _ in range(2):
        fleet.map(poison, placed[0].parts)
        found.append(fleet.home(passes(fleet, *placed), data[0]))
    if not bool((found[0] == found[1]).all()):
        return float("nan")
    return relative(found[0][rows], expected)


def relative(found: Any, expected: Any) -> float:
    """Return |found - expected| / |expected|: the larger of that of column 0 and of the others.

    Column 0 is large, and would hide the others.
    """
    return max(
        float(((found - expected)[:, c] ** 2).sum() ** 0.5 / (expected[:, c] ** 2).sum() ** 0.5)
        for c in (slice(0, 1), slice(1, None))
    )


def null_errors(data: tuple[Any, Any, Any], expected: Any, rows: Any) -> dict[str, float]:
    """Return the same error of the two answers that prove nothing, mean(V) and first order."""
    Q, K, W = data
    V = W[:, :D]
    mean = V.astype(np.float64).mean(axis=0) + 0.0 * expected
    return {
        "mean_v": relative(mean, expected),
        "first_order": relative(first_order_answer(Q[rows], K, V, 1.0), expected),
    }


def oracle(data: tuple[Any, Any, Any], c: np.ndarray) -> tuple[Any, Any]:
    """Return polynomial attention of sampled rows in float64, and which: both ends among them."""
    import cupy

    Q, K, W = data
    rows = np.random.default_rng(SEED).choice(len(Q), SAMPLED, replace=False)
    rows = cupy.asarray(np.append(rows, [0, len(Q) - 1]))
    q, sums = Q[rows].astype(cupy.float64), cupy.zeros((len(rows), D + 1))
    for start in range(0, len(K), 1 << 20):
        logits = q @ K[start : start + (1 << 20)].astype(cupy.float64).T
        weights = sum(float(a) * logits**k for k, a in enumerate(c))
        sums += weights @ W[start : start + (1 << 20)].astype(cupy.float64)
    return sums[:, :D] / sums[:, D:], rows
