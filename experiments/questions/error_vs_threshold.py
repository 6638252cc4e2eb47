"""The published threshold sweep, with what it never shows beside it.

The paper's timing script: N = 4096, d = 64, Q and K 0.1 N(0,1), V 0.05 N(0,1), scale 1/d, 29
thresholds T in (0.15, 0.5] on the entries. Rows and keys with an entry above T attend exactly, the
rest by polynomial. Beside it: one polynomial without a threshold, exact, mean(V), first order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from scipy.special import erf

import subquad
from subquad.methods.method import Method

from ..harness import instances
from ..harness.kept import Kept
from ..harness.measure import errors, null_errors, oracle
from ..harness.store import Experiment
from ..harness.timing import interleaved
from ..report import summary
from ..report.writing import tolerance

QUESTION = "What does the published threshold sweep approximate, and is its threshold of any use?"
SEED = 123
SIGMA = 0.1
TOL = 4e-4
"""The tolerance at which degree 2, the script's, is what the entry bound needs for most T."""


def thresholds(count: int = 29) -> list[float]:
    """Return `count` equidistant thresholds in (0.15, 0.5]."""
    return [round(float(t), 6) for t in np.linspace(0.15, 0.5, count + 1)[1:]]


def experiment(
    quick: bool = False,
    *,
    n: int = 4096,
    d: int = 64,
    count: int | None = None,
    every: int = 1,
    tol: float = TOL,
    repeats: int | None = None,
) -> Experiment:
    """Return the experiment: one row per threshold, `every` so many of them."""
    repeats = repeats or (1 if quick else 3)
    swept = thresholds(count or (7 if quick else 29))[::every]
    shared = cache(partial(_shared, n, d))
    cases = {f"T = {t:g}": partial(_row, shared, t, tol, repeats) for t in swept}
    settings = {
        "seed": SEED,
        "n": n,
        "d": d,
        "dtype": "float32",
        "tol": tol,
        "thresholds": swept,
        "repeats": repeats,
        "oracle": "float64 NumPy softmax, all rows",
    }
    return Experiment("error_vs_threshold", QUESTION, settings, cases, verdict)


def _shared(n: int, d: int) -> tuple:
    Q, K, V, scale = instances.reference(n, d, seed=SEED, dtype=np.float32)
    exact = oracle(Q, K, V, scale)
    return Q, K, V, scale, exact, null_errors(Q, K, V, scale, exact)


def share_above(threshold: float, d: int) -> float:
    """Return the expected share of rows of d normal entries with one beyond the threshold."""
    return 1.0 - float(erf(threshold / (SIGMA * 2**0.5))) ** d


def _row(shared: Callable, threshold: float, tol: float, repeats: int, rates) -> dict:
    """Return counts, bound, errors and times at one threshold, and the same without it."""
    Q, K, V, scale, exact, null = shared()
    chosen: dict[str, str | Method] = {
        "support_basis": subquad.SupportBasis(criterion="entry", threshold=threshold),
        "polynomial": "polynomial",
        "exact": "exact",
    }
    plans = {
        name: subquad.plan(Q, K, V, tol=tol, scale=scale, method=method, rates=rates)
        for name, method in chosen.items()
    }
    ways = {name: _errors(plan, (Q, K, V), exact) for name, plan in plans.items()}
    calls = {
        name: partial(subquad.attention, Q, K, V, tol=tol, scale=scale, method=method, rates=rates)
        for name, method in chosen.items()
        if ways[name]["bound"] is not None
    }
    for name, seconds in interleaved(calls, repeats, warm_up=0 if repeats == 1 else 1).items():
        ways[name]["seconds"] = seconds
    degrees = {name: _parameter(plan, "degree") for name, plan in plans.items()}
    return {
        "threshold": threshold,
        "expected_share": share_above(threshold, Q.shape[1]),
        "rows_above": float(np.mean(np.abs(Q).max(axis=1) > threshold)),
        "keys_above": float(np.mean(np.abs(K).max(axis=1) > threshold)),
        "large_rows": _parameter(plans["support_basis"], "large_queries"),
        "large_keys": _parameter(plans["support_basis"], "large_keys"),
        "degree": degrees["support_basis"],
        "polynomial_degree": degrees["polynomial"],
        **ways,
        **null,
    }


def _parameter(plan: subquad.Plan, name: str) -> int | None:
    """Return a parameter of what the plan will run; no degree where every row is exact."""
    chosen = plan.heads[0].chosen
    if chosen is None or (name == "degree" and chosen.work.feature_tokens == 0.0):
        return None
    small = getattr(chosen.parameters, "small", None)
    return getattr(chosen.parameters, name, getattr(small, name, None))


def _errors(plan: subquad.Plan, data: tuple, exact: np.ndarray) -> dict:
    """Return the bound and the errors of one plan; where it is timed once this is its warm-up."""
    if plan.heads[0].chosen is None:
        return {"bound": None, "measured": None, "frobenius": None, "seconds": None}
    result = plan.run(*data)
    return {"bound": result.certificate.bound, **errors(result.output, exact, data[2])}


def verdict(rows: list[dict]) -> dict:
    """Return the null models' errors, how often the threshold beat both others, and by what."""
    timed = [row for row in rows if row["support_basis"]["seconds"] is not None]
    gains = [
        min(row["polynomial"]["seconds"], row["exact"]["seconds"]) / row["support_basis"]["seconds"]
        for row in timed
    ]
    return {
        "mean_v_frobenius": rows[0]["mean_v"]["frobenius"],
        "first_order_frobenius": rows[0]["first_order"]["frobenius"],
        "best_gain": max(gains, default=None),
        "faster_than_both": sum(gain > 1.0 for gain in gains),
        "swept": len(rows),
    }


HEADER = (
    "T",
    "expected",
    "rows > T",
    "keys > T",
    "degree",
    "bound",
    "measured",
    "rel. Frob.",
    "mean(V)",
    "first order",
    "seconds",
    "no threshold",
    "exact",
)


def table_rows(record: dict) -> list[list]:
    """Return the sweep as a table under HEADER: errors in value_radius, then seconds."""
    return [
        [
            r["threshold"],
            r["expected_share"],
            r["rows_above"],
            r["keys_above"],
            r["degree"],
            *(r["support_basis"][k] for k in ("bound", "measured", "frobenius")),
            r["mean_v"]["measured"],
            r["first_order"]["measured"],
            *(r[k]["seconds"] for k in ("support_basis", "polynomial", "exact")),
        ]
        for r in record["rows"]
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"The published timing script: N = {s['n']:,}, d = {s['d']}, Q and K 0.1 N(0, 1), V 0.05 "
        "N(0, 1), scale 1/d, threshold T on the entries. Certified here at tol "
        f"{tolerance(s['tol'])}, where the bound from entries asks for about the script's degree 2."
    )


def light(quick: bool) -> Experiment:
    """Return the experiment, small enough for the report."""
    return experiment(True, count=29, every=7 if quick else 1)


FINDINGS = summary.of_sweep
KEPT = Kept(140, "The paper's sweep", ("charts.sweep",), about)
