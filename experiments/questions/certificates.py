"""Bounds proved before the run, bounds fitted to the data after it, and the errors measured.

Every family and real head at every degree whose State is not too large, by force and without rows
gone exact: the bound of the stock minimax polynomial, the row bounds of the fitted one, and the
measured row errors, median and worst. Beside them the null models, and what the planner would make
of it: exact over fitted by count, rows replicated to each of LENGTHS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np

from subquad.bounds.softmax import ratio_bound
from subquad.exp_poly import minimax
from subquad.features import feature_dimension
from subquad.head.problem import Head, Problem
from subquad.methods.fitted.choice import FITTED_LOGIT_BOUND_MAX, FittedParameters, group_edges
from subquad.methods.fitted.method import Fitted

from ..harness import instances
from ..harness.counting import cheapest
from ..harness.forced import bounds_and_errors
from ..harness.kept import Kept
from ..harness.measure import null_errors, oracle
from ..harness.store import Experiment
from ..report import method_findings

QUESTION = "How much smaller is a bound fitted to the data than one proved before the run?"
SEED = 0
FAMILIES: dict[str, tuple[str, int, dict]] = {
    "gauss(0.3), d = 64": ("subgaussian", 64, {"sigma": 0.3}),
    "gauss(0.5), d = 64": ("subgaussian", 64, {"sigma": 0.5}),
    "gauss(0.3), d = 16": ("subgaussian", 16, {"sigma": 0.3}),
    "gauss(0.5), d = 16": ("subgaussian", 16, {"sigma": 0.5}),
    "gauss(0.5), d = 8": ("subgaussian", 8, {"sigma": 0.5}),
    "bounded(1), d = 16": ("bounded", 16, {"beta": 1.0}),
    "bounded(4), d = 16": ("bounded", 16, {"beta": 4.0}),
    "heavy tail, d = 8": ("heavy_tail", 8, {}),
    "outliers, d = 8": ("outliers", 8, {"beta": 0.5}),
}
DEGREES = (2, 4, 6)
LARGEST_STATE = 60_000
"""Features above which a degree is not run."""
LENGTHS = (4096, 65_536, 1_048_576)


def experiment(
    quick: bool = False,
    *,
    n: int | None = None,
    degrees: tuple[int, ...] = DEGREES,
    families: tuple[str, ...] = tuple(FAMILIES),
    heads: tuple[str, ...] | None = None,
    tol: float = 1e-2,
) -> Experiment:
    """Return the experiment: one row per instance and degree."""
    n = n or (1024 if quick else 4096)
    heads = instances.real_names()[:: 12 if quick else 1] if heads is None else heads
    sources = {name: partial(_synthetic, name, n) for name in families}
    sources |= {name: partial(instances.real, name) for name in heads}
    cases = {}
    for name, source in sources.items():
        shared = cache(partial(_shared, source))
        for degree in degrees:
            d = FAMILIES[name][1] if name in families else 32
            if feature_dimension(d, degree) <= LARGEST_STATE:
                cases[f"{name}, degree {degree}"] = partial(
                    _row, name, name in heads, shared, degree, tol
                )
    settings = {
        "seed": SEED,
        "n": n,
        "dtype": "float64",
        "tol": tol,
        "degrees": degrees,
        "families": families,
        "heads": heads,
        "lengths": LENGTHS,
        "largest feature dimension": LARGEST_STATE,
        "oracle": "float64 NumPy softmax, all rows",
    }
    return Experiment("certificates", QUESTION, settings, cases, tally)


def _synthetic(name: str, n: int) -> instances.Instance:
    family, d, options = FAMILIES[name]
    return instances.FAMILIES[family](n, d, seed=SEED, **options)


def _shared(source: Callable[[], instances.Instance]) -> tuple:
    Q, K, V, scale = source()
    Q, K, V = (x.astype(np.float64) for x in (Q, K, V))
    exact = oracle(Q, K, V, scale)
    views = Problem(Q, K, V, scale=scale).heads[0].views
    head = min(views, key=lambda view: view.stats.logit_bound)
    return head, [view.stats for view in views], exact, null_errors(Q, K, V, scale, exact)


def _row(name: str, real: bool, shared: Callable, degree: int, tol: float, rates) -> dict:
    """Return the bounds and errors of one degree on one instance."""
    head, stats, exact, null = shared()
    bounds, errors = _forced(head, degree, exact)
    finite = np.isfinite(bounds)
    a_priori = _a_priori(head.stats.logit_bound, degree)
    fitted, measured = _spread(bounds[finite]), _spread(errors[finite])
    moved = finite & (errors > 1e-14)
    return {
        "instance": name,
        "real": real,
        "degree": degree,
        "n": head.stats.n,
        "d": head.stats.d,
        "logit_bound": head.stats.logit_bound,
        "a_priori": a_priori,
        "without_bound": float(1.0 - finite.mean()),
        "fitted": fitted,
        "measured": measured,
        "sound": bool(np.all(errors <= bounds)),
        "a_priori_over_fitted": _ratio(a_priori, fitted["worst"]),
        "fitted_over_measured": _spread(bounds[moved] / errors[moved]),
        "gains": {str(n): cheapest([Fitted()], stats, n, tol)[1] for n in LENGTHS},
        **null,
    }


def _forced(head: Head, degree: int, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's bound and measured error in value_radius, no row gone exact."""
    rows = head.rows
    low = float(np.quantile(rows.query_norms, 0.1))
    edges = group_edges(float(rows.query_norms.max()), low, float(rows.key_norms.max()))
    p = FittedParameters(degree, edges, "float64", 0, 0.0, 2.0)
    return bounds_and_errors(head, Fitted(), p, p.dtype, exact)


def _a_priori(logit_bound: float, degree: int) -> float:
    """Return the bound of the minimax polynomial, 2 at most; infinite past the fitted ones'."""
    if not logit_bound <= FITTED_LOGIT_BOUND_MAX:
        return math.inf
    return float(ratio_bound(min(minimax(degree, logit_bound).upper, 1.0)))


def _spread(values: np.ndarray) -> dict[str, float | None]:
    if values.size == 0:
        return {"median": None, "worst": None}
    return {"median": float(np.median(values)), "worst": float(np.max(values))}


def _ratio(a: float, b: float | None) -> float | None:
    return None if b is None or not b > 0.0 or not math.isfinite(a) else a / b


def tally(rows: list[dict]) -> dict:
    """Return whether every row kept its bound, and how much smaller the fitted bounds are."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["a_priori_over_fitted"] is not None:
            kind = "real heads" if row["real"] else "synthetic"
            at = f"{kind}, degree {row['degree']}"
            found.setdefault(at, []).append(row["a_priori_over_fitted"])
    slack = [row["fitted_over_measured"]["median"] for row in rows]
    return {
        "runs": len(rows),
        "sound": sum(row["sound"] for row in rows),
        "fitted_over_measured": float(np.median([x for x in slack if x is not None] or [np.inf])),
        "a_priori_over_fitted": {
            k: {"least": min(v), "median": float(np.median(v)), "most": max(v)}
            for k, v in found.items()
        },
        "winning": {
            str(n): sum((row["gains"][str(n)] or 1.0) > 1.05 for row in rows) for n in LENGTHS
        },
    }


HEADER = (
    "instance",
    "degree",
    "B",
    "a priori",
    "fitted median",
    "fitted worst",
    "measured median",
    "measured worst",
    "mean(V)",
    "first order",
    "a priori/fitted",
    "gain 4k",
    "64k",
    "1M",
)


def table_rows(record: dict) -> list[list]:
    """Return the instances as a table under HEADER; bounds and errors in value_radius."""
    return [
        [
            r["instance"],
            r["degree"],
            r["logit_bound"],
            r["a_priori"],
            r["fitted"]["median"],
            r["fitted"]["worst"],
            r["measured"]["median"],
            r["measured"]["worst"],
            r["mean_v"]["measured"],
            r["first_order"]["measured"],
            r["a_priori_over_fitted"],
            *r["gains"].values(),
        ]
        for r in record["rows"]
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    return (
        f"n = {record['settings']['n']:,}, real heads 512. One polynomial of each degree on all "
        "rows, none left to exact."
    )


def light(quick: bool) -> Experiment:
    """Return the experiment, small enough for the report."""
    return experiment(True) if quick else experiment(n=1024, heads=instances.real_names()[::6])


FINDINGS = method_findings.of_certificates
KEPT = Kept(
    50,
    "Before the run, after the run, measured",
    ("method_charts.certificate_gains", "method_charts.certificates"),
    about,
)
