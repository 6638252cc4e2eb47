"""The fused passes on data drawn for them, and how far they are from float64 on the device.

Input is float32, prepared as the methods prepare it. Outputs and scratch memory are poisoned
before a check, and two runs of it are compared bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from subquad.exp_poly import minimax

SEED, D, LOGIT_BOUND, SAMPLED = 0, 64, 0.5, 256


def drawn(heads: int, n: int, m: int, seed: int) -> tuple[Any, Any, Any]:
    """Return prepared Q (heads, n, D), K, W = [V, 1]: norms at most sqrt(LOGIT_BOUND), |V| <= 1."""
    import cupy

    rng = cupy.random.default_rng(1000 * SEED + seed)

    def rows(count: int) -> Any:
        x = rng.standard_normal((heads, count, D), dtype=cupy.float32) + np.float32(0.1)
        norms = cupy.linalg.norm(x, axis=-1, keepdims=True)
        return x * (np.float32(LOGIT_BOUND**0.5 * (1.0 - 2.0**-10)) / norms.max(axis=1)[:, None])

    Q, K = rows(n), rows(m)
    V = rng.random((heads, m, D), dtype=cupy.float32) * 2.0 - 1.0
    return Q, K, cupy.concatenate([V, cupy.ones((heads, m, 1), cupy.float32)], axis=2)


def passes(data: tuple[Any, Any, Any], c: np.ndarray, operands: str) -> tuple[Any, Any]:
    """Return the output (heads, n, D) and the normalisers by degree."""
    from subquad.engine.fused import passes as fused_passes

    Q, K, W = data
    moments, _ = fused_passes.accumulate(K, W, len(c) - 1, operands)
    return fused_passes.contract(Q, moments, c, operands, divide=True)


def check(degree: int, operands: str, heads: int, n: int, m: int) -> float:
    """Return the relative error on poisoned memory; NaN where two runs differ in a bit."""
    import cupy

    data = drawn(heads, n, m, n + m)
    c = minimax(degree, LOGIT_BOUND).scaled()
    outputs = []
    for _ in range(2):
        dirty = [cupy.full(1 << power, cupy.nan) for power in range(6, 24)]
        del dirty  # what is handed out next is full of NaN
        outputs.append([x.copy() for x in passes(data, c, operands)])
    same = all(bool((a == b).all()) for a, b in zip(*outputs, strict=True))
    exact, _ = _oracle(data, c, slice(None))
    return _relative(outputs[0][0], exact) if same else float("nan")


def _oracle(data: tuple[Any, Any, Any], c: np.ndarray, rows: Any) -> tuple[Any, Any]:
    """Return the rows of polynomial and of exact attention, float64, straight from the weights."""
    import cupy

    Q, K, W = (x.astype(cupy.float64) for x in data)
    logits = Q[:, rows] @ K.transpose(0, 2, 1)
    weights = sum(float(a) * logits**k for k, a in enumerate(c))
    cupy.exp(logits, out=logits)
    V = W[..., :-1]
    return tuple(w @ V / w.sum(axis=-1, keepdims=True) for w in (weights, logits))


def _relative(found: Any, exact: Any) -> float:
    import cupy

    return float(cupy.linalg.norm(found - exact) / cupy.linalg.norm(exact))


def errors(data: tuple[Any, Any, Any], degree: int, operands: str) -> dict:
    """Return the errors on sampled rows of the first head, and those of the null models."""
    import cupy

    one = tuple(x[:1] for x in data)
    c = minimax(degree, LOGIT_BOUND).scaled()
    output, _ = passes(data, c, operands)
    rows = cupy.asarray(np.random.default_rng(SEED).choice(data[0].shape[1], SAMPLED, False))
    own, exact = _oracle(one, c, rows)
    Q, K, W = (x[0].astype(cupy.float64) for x in one)
    V = W[:, :-1]
    mean = cupy.broadcast_to(V.mean(axis=0), exact[0].shape)
    first = V.mean(axis=0) + Q[rows] @ ((K - K.mean(axis=0)).T @ (V - V.mean(axis=0)) / len(K))
    radius = (V.max(axis=0) - V.min(axis=0)) / 2.0

    def measured(answer: Any) -> float:
        return float((cupy.abs(answer - exact[0]) / radius).max())

    return {
        "own_polynomial": _relative(output[:1, rows], own),
        "measured": measured(output[0, rows]),
        "frobenius": _relative(output[:1, rows], exact),
        "null": {
            "mean_v": {"measured": measured(mean)},
            "first_order": {"measured": measured(first)},
        },
    }
