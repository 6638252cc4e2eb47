"""Every way to answer the same request, in one process on the same data, in turns.

Ours, PyTorch's SDPA (where torch is installed), NumPy softmax, and baselines written anew:
the features of every token materialised, degree 2, in the style of the published reference
implementation; linear attention with elu + 1 (Katharopoulos et al. 2020); the first-order
expansion. Medians and spread of interleaved repetitions, both error norms on sampled rows, null
models. The baselines prove nothing: their errors say what their speed is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import subquad

from ..harness import instances
from ..harness.finding import Finding, graded
from ..harness.kept import Kept
from ..harness.measure import (
    errors,
    errors_within,
    first_order_answer,
    null_errors,
    oracle,
    sample_rows,
)
from ..harness.store import Experiment
from ..harness.timing import numpy_softmax, ours, sdpa, spread, torch_available
from ..report.writing import number

QUESTION = "What do the peers cost on the same data, and what are their answers worth?"
SEED, SAMPLED = 0, 256
CASES: dict[str, tuple[int, int, float, float]] = {
    "d = 64, B = 0.5, tol 1e-2": (65_536, 64, 0.5, 1e-2),
    "d = 16, B = 1, tol 1e-3": (65_536, 16, 1.0, 1e-3),
}
"""n, d, logit bound and tolerance of each case."""
BLOCK = 512


def experiment(
    quick: bool = False, *, n: int | None = None, repeats: int | None = None
) -> Experiment:
    """Return the experiment: one row per case, all ways in turns within it."""
    repeats = repeats or (2 if quick else 3)
    cases = {}
    for name, (most, d, beta, tol) in CASES.items():
        length = n or (4096 if quick else most)
        cases[name] = partial(_row, name, length, d, beta, tol, repeats)
    settings = {
        "seed": SEED,
        "dtype": "float32",
        "family": "bounded",
        "repeats": repeats,
        "n": n,
        "cases": CASES,
        "oracle": f"float64 NumPy softmax, {SAMPLED} rows: largest and random",
    }
    return Experiment("peers", QUESTION, settings, cases, ratios)


def _row(name: str, n: int, d: int, beta: float, tol: float, repeats: int, rates) -> dict:
    """Return time, spread, errors and bound of every way on one instance."""
    Q, K, V, scale = instances.bounded(n, d, beta=beta, seed=SEED, dtype=np.float32)
    rows = sample_rows(Q, SAMPLED, SEED)
    exact = oracle(Q, K, V, scale, rows)
    own = ours("ours", partial(subquad.attention, Q, K, V, tol=tol, scale=scale, rates=rates))
    calls: dict[str, Callable[[], Any]] = {**own, **peers(Q, K, V, scale)}
    found: dict[str, dict] = {}
    for way, call in calls.items():  # this call is the warm-up, too
        answer: Any = call()
        if way not in own:
            found[way] = {"bound": None, **errors(answer[rows], exact, V)}
            continue
        bound, chosen = answer.certificate.bound, answer.plan.heads[0].chosen
        found[way] = {"bound": bound, **errors_within(bound, answer.output[rows], exact, V)}
    for way, seconds in spread(calls, repeats).items():
        found[way] |= seconds
    return {
        "case": name,
        "n": n,
        "d": d,
        "beta": beta,
        "tol": tol,
        "ways": found,
        "chosen": f"{chosen.method.name} ({chosen.parameters})" if chosen else None,
        **null_errors(Q, K, V, scale, exact, rows),
    }


def peers(
    Q: np.ndarray, K: np.ndarray, V: np.ndarray, scale: float
) -> dict[str, Callable[[], np.ndarray]]:
    """Return every peer's call; SDPA only where torch is installed."""
    found: dict[str, Callable[[], np.ndarray]] = {}
    if torch_available():
        found["SDPA"] = sdpa(Q, K, V, scale)
    found["NumPy softmax"] = partial(numpy_softmax, Q, K, V, scale)
    found["features materialised"] = partial(materialised, Q, K, V, scale)
    found["linear, elu + 1"] = partial(linear_elu, Q, K, V, scale)
    found["first order"] = partial(first_order_answer, Q, K, V, scale)
    return found


def _pairs(x: np.ndarray) -> np.ndarray:
    """Return 1, x_i, and x_i x_j / sqrt(1 + [i = j]) for i <= j, of each row: (n, r)."""
    i, j = np.triu_indices(x.shape[1])
    factor = np.sqrt(np.where(i == j, 0.5, 1.0)).astype(x.dtype)
    return np.concatenate([np.ones((len(x), 1), x.dtype), x, x[:, i] * x[:, j] * factor], axis=1)


def materialised(Q: np.ndarray, K: np.ndarray, V: np.ndarray, scale: float) -> np.ndarray:
    """Return 1 + s + s^2/2 attention through feature maps of degree 2, BLOCK tokens at a time."""
    W = np.concatenate([V, np.ones((len(V), 1), V.dtype)], axis=1)
    root = Q.dtype.type(np.sqrt(scale))
    state: Any = 0.0
    for start in range(0, len(K), BLOCK):
        block = slice(start, start + BLOCK)
        state = state + _pairs(K[block] * root).T @ W[block]
    output = np.empty((len(Q), V.shape[1]), Q.dtype)
    for start in range(0, len(Q), BLOCK):
        block = slice(start, start + BLOCK)
        sums = _pairs(Q[block] * root) @ state
        output[block] = sums[:, :-1] / sums[:, -1:]
    return output


def linear_elu(Q: np.ndarray, K: np.ndarray, V: np.ndarray, scale: float) -> np.ndarray:
    """Return linear attention with the feature map elu + 1, in O((n + m) d d_v)."""
    root = Q.dtype.type(np.sqrt(scale))
    q, k = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (Q * root, K * root))
    return (q @ (k.T @ V)) / (q @ k.sum(axis=0))[:, None]


def ratios(rows: list[dict]) -> dict:
    """Return every way's median time over ours, by case."""
    return {
        row["case"]: {
            way: found["median"] / row["ways"]["ours"]["median"]
            for way, found in row["ways"].items()
        }
        for row in rows
    }


HEADER = (
    "case",
    "n",
    "way",
    "median s",
    "least s",
    "most s",
    "times ours",
    "bound",
    "measured",
    "Frobenius",
    "mean(V)",
    "mean(V) Frobenius",
    "first order",
)


def table_rows(record: dict) -> list[list]:
    """Return times and errors as a table under HEADER; only ours has a bound."""
    return [
        [
            r["case"],
            r["n"],
            way,
            w["median"],
            w["least"],
            w["most"],
            record["derived"][r["case"]][way],
            w["bound"],
            w["measured"],
            w["frobenius"],
            r["mean_v"]["measured"],
            r["mean_v"]["frobenius"],
            r["first_order"]["measured"],
        ]
        for r in record["rows"]
        for way, w in r["ways"].items()
    ]


def findings(record: dict) -> list[Finding]:
    """Return how the certified answer stands against the exact peer and against unproved ones."""
    found = []
    for row in record["rows"]:
        over, ways = record["derived"][row["case"]], row["ways"]
        rival = "SDPA" if "SDPA" in over else "NumPy softmax"
        told = "; ".join(way for way in over if over[way] < 1.0 and ways[way]["bound"] is None)
        found.append(
            Finding(
                f"a fifth of the peer, {row['case']}",
                graded(over[rival] >= 5.0, over[rival] <= 1.0),
                f"At {row['case']}, n = {row['n']:,}, a certified answer takes at most 1/5 of the "
                f"time of {rival}.",
                f"{row['chosen']}: {rival} takes {number(over[rival])} times as long. Faster and "
                f"unproved: {told or 'none'}; the chart has the error of each, and of mean(V).",
            )
        )
    return found


def about(record: dict) -> str:
    """Return the sizes in words."""
    return (
        "Ours, exact peers and baselines written anew, on the same data in turns: medians of "
        f"{record['settings']['repeats']}. The baselines prove nothing."
    )


FINDINGS = findings
KEPT = Kept(90, "The peers", ("speed_charts.peers",), about)
