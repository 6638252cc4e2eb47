"""Softmax attention as a sum of polynomial attentions over buckets and degrees, measured.

On independent entries, on heavy tails, on outliers and on real heads: errors of weights and output
in l_1, l_2 and l_inf against the number of terms, beside one polynomial attention (q.k + t)^p with
the best p in 2, 4, 8 and the best t, mean(V) and first order. Dense and measured: no bound here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import numpy as np

import subquad

from ..harness import instances
from ..harness.kept import Kept
from ..harness.measure import first_order_answer, null_errors, oracle, value_radius
from ..harness.store import Experiment
from ..report import method_findings

QUESTION = "How many polynomial attentions make one softmax, and how near does a single one come?"
SEED = 0
BUCKETS = (1, 2, 4, 8)
DEGREE = 6
HEADS = ("minilm-l0-h11-smallest",)
FAMILIES: dict[str, Callable] = {
    "subgaussian(0.5)": partial(instances.subgaussian, sigma=0.5),
    "subgaussian(1)": partial(instances.subgaussian, sigma=1.0),
    "heavy_tail": partial(instances.heavy_tail, dof=3.0, factor=0.3),
    "outliers": partial(instances.outliers, beta=0.5, fraction=0.01, factor=20.0),
}


def experiment(
    quick: bool = False,
    *,
    n: int | None = None,
    d: int = 16,
    degree: int = DEGREE,
    buckets: tuple[int, ...] = BUCKETS,
    heads: tuple[str, ...] | None = None,
    families: tuple[str, ...] = tuple(FAMILIES),
) -> Experiment:
    """Return the experiment: one row per instance and number of buckets."""
    n = n or (256 if quick else 1024)
    heads = (HEADS if quick else instances.real_names()) if heads is None else heads
    made = {
        **{name: partial(FAMILIES[name], n, d, seed=SEED) for name in families},
        **{name: partial(instances.real, name) for name in heads},
    }
    cases = {
        f"{name}, {count} buckets": partial(_row, name, make, count, degree)
        for name, make in made.items()
        for count in buckets
    }
    settings = {
        "seed": SEED,
        "n": n,
        "d": d,
        "dtype": "float64",
        "degree": degree,
        "buckets": buckets,
        "families": families,
        "heads": heads,
        "powers": subquad.empirical.bridge.POWERS,
        "oracle": "float64 NumPy softmax",
    }
    return Experiment("bridge", QUESTION, settings, cases, verdict)


def _row(name: str, make: Callable, count: int, degree: int, rates) -> dict:
    """Return the errors of every degree with `count` buckets, and of what stands beside them."""
    Q, K, V, scale = make()
    found = subquad.softmax_as_polynomials(Q, K, V, buckets=count, degree=degree, scale=scale)
    exact = oracle(Q, K, V, scale)
    return {
        "instance": name,
        "buckets": count,
        "logit_bound": float(found.logit_bounds.max()),
        "sums": [asdict(x) for x in found.by_degree],
        "powers": [asdict(x) for x in found.powers],
        "best_power": asdict(found.best_power),
        "uniform": asdict(found.uniform),
        "first_order_output": _norms(first_order_answer(Q, K, V, scale) - exact, V),
        **null_errors(Q, K, V, scale, exact),
    }


def _norms(change: np.ndarray, V: np.ndarray) -> dict[str, float]:
    """Return the means of |change|^p, to the power 1/p, in units of value_radius."""
    radius = value_radius(V)
    change = np.abs(change) / np.where(radius > 0.0, radius, 1.0)
    return {
        "1": float(change.mean()),
        "2": float((change**2).mean() ** 0.5),
        "inf": float(change.max()),
    }


def verdict(rows: list[dict]) -> dict:
    """Return, by instance, the fewest terms that beat the best single one, and the largest gain."""
    found: dict[str, dict] = {}
    for row in rows:
        sums = row["sums"][1:]  # degree 0 sees no logit
        own = found.setdefault(row["instance"], {"fewest_terms": None, "gain": {}})
        for p in ("1", "2", "inf"):
            best = min(x["weights"][p] for x in sums)
            single = min(x["weights"][p] for x in row["powers"])
            gain = single / best if best > 0.0 else None
            own["gain"][p] = max(filter(None, (own["gain"].get(p), gain)), default=None)
        better = [
            x["terms"]
            for x in sums
            if x["weights"]["2"] < min(y["weights"]["2"] for y in row["powers"])
        ]
        own["fewest_terms"] = min(filter(None, (own["fewest_terms"], *better)), default=None)
    return {"by_instance": found}


HEADER = (
    "data",
    "buckets",
    "degree",
    "terms",
    "weights l1",
    "l2",
    "linf",
    "output l1",
    "l2 out",
    "linf out",
    "best (q.k+t)^p",
    "its linf out",
    "mean(V)",
    "first order",
)


def table_rows(record: dict) -> list[list]:
    """Return the errors under HEADER; output errors in value_radius, the last four in l_inf."""
    rows = []
    for r in record["rows"]:
        single = r["best_power"]
        for degree in sorted({2, 4, record["settings"]["degree"]}):
            if degree < len(r["sums"]):
                x = r["sums"][degree]
                rows.append(
                    [
                        r["instance"],
                        r["buckets"],
                        degree,
                        x["terms"],
                        *(x["weights"][p] for p in ("1", "2", "inf")),
                        *(x["output"][p] for p in ("1", "2", "inf")),
                        single["name"],
                        single["output"]["inf"],
                        r["mean_v"]["measured"],
                        r["first_order"]["measured"],
                    ]
                )
    return rows


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"Measured on the full matrix of weights, n = {s['n']:,}, d = {s['d']}, real heads 512 and "
        "32; a term is one power of the logits on one pair of buckets."
    )


def light(quick: bool) -> Experiment:
    """Return the experiment, small enough for the report."""
    if quick:
        return experiment(True, buckets=(1, 4), families=("subgaussian(1)", "heavy_tail"))
    return experiment(True, buckets=(1, 2, 4))


FINDINGS = method_findings.of_bridge
KEPT = Kept(
    60,
    "Softmax as a sum of polynomial attentions",
    ("bridge_charts.gains", "bridge_charts.bridge"),
    about,
)
