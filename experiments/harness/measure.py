"""Measured errors against a float64 oracle that shares no code with the methods; null models."""

from __future__ import annotations

import math

import numpy as np

from subquad import Result

from .instances import Instance

Q_BLOCK = 512


def oracle(
    Q: np.ndarray, K: np.ndarray, V: np.ndarray, scale: float, rows: np.ndarray | None = None
) -> np.ndarray:
    """Return softmax(scale Q K^T) V in float64 for the given rows of Q (all by default).

    Plain NumPy: logits, minus the row's largest, exp, divided by their sum. Its own error is some
    1e-15 of max|V|, times the largest logit where that is above 1.
    """
    Q, K, V = (x.astype(np.float64) for x in (Q if rows is None else Q[rows], K, V))
    output = np.empty((len(Q), V.shape[1]))
    for start in range(0, len(Q), Q_BLOCK):
        block = slice(start, start + Q_BLOCK)
        weights = scale * (Q[block] @ K.T)
        weights -= weights.max(axis=1, keepdims=True)
        np.exp(weights, out=weights)
        output[block] = (weights @ V) / weights.sum(axis=1, keepdims=True)
    return output


def sample_rows(Q: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Return `count` row indices: half the rows of largest norm, half drawn at random."""
    if count >= len(Q):
        return np.arange(len(Q))
    largest = np.argsort(-np.linalg.norm(Q.astype(np.float64), axis=1))[: count // 2]
    others = np.setdiff1d(np.arange(len(Q)), largest)
    drawn = np.random.default_rng(seed).choice(others, count - len(largest), replace=False)
    return np.sort(np.concatenate([largest, drawn]))


def value_radius(V: np.ndarray) -> np.ndarray:
    """Return half the range of each column of V, in float64: the unit of bounds and tolerances."""
    V = V.astype(np.float64)
    return (V.max(axis=0) - V.min(axis=0)) / 2.0


def measured_error(output: np.ndarray, exact: np.ndarray, V: np.ndarray) -> float:
    """Return max |output - exact| / value_radius; inf where a constant column is not met.

    NaN where the output has one.
    """
    worst = np.max(np.abs(output.astype(np.float64) - exact), axis=0)
    radius = value_radius(V)
    ratios = [
        w / r if r > 0.0 else (0.0 if w == 0.0 else math.inf)
        for w, r in zip(worst.tolist(), radius.tolist(), strict=True)
    ]
    return float(np.max(ratios))  # the builtin would pass over a NaN


def frobenius_error(output: np.ndarray, exact: np.ndarray) -> float:
    """Return |output - exact| / |exact| in Frobenius norms."""
    difference = float(np.linalg.norm(output.astype(np.float64) - exact))
    size = float(np.linalg.norm(exact))
    return difference / size if size > 0.0 else (0.0 if difference == 0.0 else math.inf)


def errors(output: np.ndarray, exact: np.ndarray, V: np.ndarray) -> dict[str, float]:
    """Return `measured` (in units of value_radius, as bounds are) and `frobenius` (relative)."""
    return {
        "measured": measured_error(output, exact, V),
        "frobenius": frobenius_error(output, exact),
    }


def errors_within(
    bound: float, output: np.ndarray, exact: np.ndarray, V: np.ndarray
) -> dict[str, float]:
    """Return `errors`; AssertionError past the bound: no time is taken of a wrong answer."""
    found = errors(output, exact, V)
    if not found["measured"] <= bound:
        msg = (
            f"measured {found['measured']:.3e} exceeds the bound {bound:.3e}: no time is taken "
            "of a wrong answer."
        )
        raise AssertionError(msg)
    return found


def mean_answer(n: int, V: np.ndarray) -> np.ndarray:
    """Return the null model that ignores Q and K: mean(V) in each of n rows."""
    return np.broadcast_to(V.astype(np.float64).mean(axis=0), (n, V.shape[1]))


def first_order_answer(Q: np.ndarray, K: np.ndarray, V: np.ndarray, scale: float) -> np.ndarray:
    """Return the first-order expansion of softmax attention about the mean key, in float64.

    output_i = mean(V) + scale * q_i^T C with C = (1/m) sum_j (k_j - mean k)(v_j - mean v)^T, the
    d x d_v covariance of keys and values: what any method must beat, in O((n + m) d d_v).
    """
    Q, K, V = (x.astype(np.float64) for x in (Q, K, V))
    covariance = (K - K.mean(axis=0)).T @ (V - V.mean(axis=0)) / len(K)  # (d, d_v)
    return V.mean(axis=0) + scale * (Q @ covariance)


def null_errors(
    Q: np.ndarray,
    K: np.ndarray,
    V: np.ndarray,
    scale: float,
    exact: np.ndarray,
    rows: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """Return the errors of the two null models on the rows that `exact` has."""
    Q = Q if rows is None else Q[rows]
    return {
        "mean_v": errors(mean_answer(len(Q), V), exact, V),
        "first_order": errors(first_order_answer(Q, K, V, scale), exact, V),
    }


def checked(result: Result, data: Instance, count: int, seed: int) -> tuple[dict, dict]:
    """Return (parameters, bound and errors) of a result of one head, and its null models' errors.

    On `count` sampled rows. AssertionError where the error exceeds the bound.
    """
    Q, K, V, scale = data
    rows = sample_rows(Q, count, seed)
    exact = oracle(Q, K, V, scale, rows)
    bound, chosen = result.certificate.bound, result.plan.heads[0].chosen
    assert chosen is not None
    found = {
        "parameters": str(chosen.parameters),
        "bound": bound,
        **errors_within(bound, result.output[rows], exact, V),
    }
    return found, null_errors(Q, K, V, scale, exact, rows)
