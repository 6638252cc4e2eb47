"""Measured errors against proved bounds, on every family and every real head.

At several tolerances: what the planner chose, and each method that certifies, run and held against
a float64 oracle on all rows. What would leave every row exact, or is far too dear, is not run.
Where mean(V) alone meets the tolerance the row is flagged `trivial`: nothing hard is being
approximated there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np

import subquad
from subquad.methods.method import Refusal
from subquad.planning.choose import HeadPlan
from subquad.planning.words import table

from ..harness import instances
from ..harness.kept import Kept
from ..harness.measure import errors, null_errors, oracle
from ..harness.store import Experiment
from ..report import summary
from ..report.writing import tolerance

QUESTION = "How far below its bound is the measured error, and would mean(V) have done as well?"
SEED = 0
VARIANTS: dict[str, Callable[[], str | subquad.SupportBasis]] = {
    "exact": lambda: "exact",
    "polynomial": lambda: "polynomial",
    "support_basis by norm": lambda: subquad.SupportBasis(criterion="norm"),
    "support_basis by entry": lambda: subquad.SupportBasis(criterion="entry"),
    "multi_threshold by norm": lambda: "multi_threshold",
    "fitted": lambda: "fitted",
    "anisotropic": lambda: "anisotropic",
}
SYNTHETIC: dict[str, tuple[str, dict]] = {
    "reference": ("reference", {}),
    "bounded(0.5)": ("bounded", {"beta": 0.5}),
    "bounded(1)": ("bounded", {"beta": 1.0}),
    "bounded(2)": ("bounded", {"beta": 2.0}),
    "subgaussian(0.1)": ("subgaussian", {"sigma": 0.1}),
    "subgaussian(0.3)": ("subgaussian", {"sigma": 0.3}),
    "outliers": ("outliers", {"beta": 0.5}),
    "heavy_tail": ("heavy_tail", {}),
    "planted": ("planted", {}),
}
DEAREST = 30.0
"""Methods predicted to cost more than this many times exact are not run."""


def experiment(
    quick: bool = False,
    *,
    n: int | None = None,
    d: int = 16,
    heads: tuple[str, ...] | None = None,
    families: tuple[str, ...] = tuple(SYNTHETIC),
    tols: tuple[float, ...] | None = None,
    shown: float = 1e-2,
) -> Experiment:
    """Return the experiment: one row per instance and tolerance, at `shown` with its plan."""
    n = n or (1024 if quick else 4096)
    tols = tols or ((1e-1, 1e-2) if quick else (1e-1, 1e-2, 1e-3, 1e-4))
    heads = instances.real_names() if heads is None else heads
    sources = {name: partial(_synthetic, name, n, d) for name in families}
    sources |= {name: partial(instances.real, name) for name in heads}
    cases = {}
    for name, source in sources.items():
        shared = cache(partial(_with_oracle, source))
        for tol in tols:
            cases[f"{name} at {tol:g}"] = partial(
                _row, name, name in heads, shared, tol, tol == shown
            )
    settings = {
        "seed": SEED,
        "n": n,
        "d": d,
        "dtype": "float32",
        "tols": tols,
        "families": families,
        "heads": heads,
        "plans shown at": shown,
        "oracle": "float64 NumPy softmax, all rows",
        "not run above": f"{DEAREST:g} times the predicted cost of exact",
    }
    return Experiment("error_vs_bound", QUESTION, settings, cases, tally)


def _synthetic(name: str, n: int, d: int) -> instances.Instance:
    family, options = SYNTHETIC[name]
    return instances.FAMILIES[family](n, d, seed=SEED, dtype=np.float32, **options)


def _with_oracle(source: Callable[[], instances.Instance]) -> tuple:
    Q, K, V, scale = source()
    exact = oracle(Q, K, V, scale)
    return Q, K, V, scale, exact, null_errors(Q, K, V, scale, exact)


def _row(
    name: str, real: bool, shared: Callable, tol: float, shown: bool, rates: subquad.Rates
) -> dict:
    """Return the plan of one instance at one tolerance, and every method's bound and error."""
    Q, K, V, scale, exact, null = shared()
    head = subquad.plan(Q, K, V, tol=tol, scale=scale, rates=rates).heads[0]
    methods = [
        _method(variant, make(), (Q, K, V, scale, exact), tol, rates)
        for variant, make in VARIANTS.items()
    ]
    return {
        "instance": name,
        "real": real,
        "tol": tol,
        "n": len(Q),
        "d": Q.shape[1],
        "logit_bound": head.stats.logit_bound,
        **null,
        "trivial": null["mean_v"]["measured"] <= tol,
        "chosen": _chosen(head),
        "crossover": head.crossover if shown else None,
        "plan": table(head) if shown else None,
        "methods": methods,
    }


def _chosen(head: HeadPlan) -> str | None:
    """Return which of VARIANTS the planner chose."""
    if head.chosen is None:
        return None
    criterion = getattr(head.chosen.parameters, "criterion", None)
    return head.chosen.method.name + (f" by {criterion}" if criterion else "")


def _method(variant: str, method, data: tuple, tol: float, rates: subquad.Rates) -> dict:
    """Return the verdict on one method, with its bound and errors where it certifies and ran."""
    Q, K, V, scale, exact = data
    plan = subquad.plan(Q, K, V, tol=tol, scale=scale, method=method, rates=rates)
    head, option = plan.heads[0], plan.heads[0].options[0]
    blank = ("parameters", "bound", "measured", "ratio", "frobenius", "predicted_seconds")
    row: dict = {"method": variant, **dict.fromkeys(blank), "reason": ""}
    if isinstance(option, Refusal):
        return {**row, "verdict": "refused", "reason": option.reason}
    row |= {"parameters": str(option.parameters), "predicted_seconds": head.seconds(option)}
    if variant != "exact":
        pairs = float(len(Q) * len(K))
        work = replace(option.work, pairs=pairs, feature_tokens=0.0, wide_pairs=0.0)
        cost = head.seconds(option) / rates.seconds(work)
        if option.work.pairs + option.work.wide_pairs >= pairs:
            return {**row, "verdict": "not run", "reason": "every row would be exact"}
        if head.chosen is None:
            why = "takes more memory than a plan may" if option.bound <= tol else "bound above tol"
            return {**row, "verdict": "not run", "reason": why}
        if cost > DEAREST:
            return {**row, "verdict": "not run", "reason": f"{cost:.0e} times the cost of exact"}
    result = plan.run(Q, K, V)
    found = errors(result.output, exact, V)
    bound = result.certificate.bound
    ratio = bound / found["measured"] if found["measured"] > 0.0 else None
    return {**row, "verdict": "certified", "bound": bound, **found, "ratio": ratio}


def runs(rows: list[dict]) -> list[dict]:
    """Return every method that was run, flat, with its instance and the null models beside it."""
    return [
        {
            **method,
            **{k: row[k] for k in ("instance", "real", "tol", "trivial", "logit_bound")},
            "mean_v": row["mean_v"]["measured"],
            "first_order": row["first_order"]["measured"],
            "chosen": method["method"] == row["chosen"],
        }
        for row in rows
        for method in row["methods"]
        if method["verdict"] == "certified"
    ]


def tally(rows: list[dict]) -> dict:
    """Return how many runs there are, how many keep their bound and tolerance, and the ratios."""
    flat = runs(rows)
    ratios = sorted(run["ratio"] for run in flat if run["ratio"] is not None)
    return {
        "runs": len(flat),
        "within_bound": sum(run["measured"] <= run["bound"] for run in flat),
        "within_tol": sum(run["bound"] <= run["tol"] for run in flat),
        "smallest_ratio": ratios[0] if ratios else None,
        "median_ratio": ratios[len(ratios) // 2] if ratios else None,
        "trivial": sum(row["trivial"] for row in rows),
        "instances": len(rows),
    }


HEADER = ("instance", "tol", "method", "bound", "measured", "ratio", "mean(V)", "first order", "")


def table_rows(record: dict) -> list[list]:
    """Return the runs as a table under HEADER."""
    return [
        [
            r["instance"],
            r["tol"],
            r["method"],
            r["bound"],
            r["measured"],
            r["ratio"],
            r["mean_v"],
            r["first_order"],
            ", ".join(w for w in ("chosen", "trivial") if r[w]),
        ]
        for r in runs(record["rows"])
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    tols = ", ".join(map(tolerance, s["tols"]))
    return (
        f"{len(s['families'])} synthetic instances (n = {s['n']:,}, d = {s['d']}, {s['dtype']}, "
        f"seed {s['seed']}) and {len(s['heads'])} real heads at tolerances {tols}: every method "
        "that certifies, held against plain float64 softmax on all rows."
    )


def light(quick: bool) -> Experiment:
    """Return the experiment, small enough for the report."""
    if quick:
        return experiment(True, heads=instances.real_names()[::3])
    return experiment(n=2048, tols=(1e-1, 1e-2, 1e-3))


FINDINGS = summary.of_bounds
KEPT = Kept(
    10,
    "Measured error against bound",
    ("charts.bound_against_measured", "charts.null_models"),
    about,
)
