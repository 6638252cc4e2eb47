"""What several thresholds buy: error, bound and cost against their number, norm against entry.

Sub-Gaussian, Student t and outlier data (d = 8, scale 1/sqrt(d)) and two real heads at tol 1e-2.
One row per way: `support_basis` with its one threshold, `multi_threshold` with at most 0, 1, 2, 4
or any number of buckets that have a polynomial, by norm and by entry; mean(V) and first order, the
answers that need no attention, beside each. The plan of least count is run for bound and error, and
costs the same on every machine; exact, one threshold and any number, by norm, are timed in turns,
each at its plan of least predicted time, the thresholds once more with their passes compiled where
numba is installed, and all of it in float64 too, where exact cannot win by a dtype. Real heads are
not timed, but planned with their rows replicated to a million.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache, partial

import numpy as np

import subquad
from subquad.head.problem import Head, Problem
from subquad.methods.method import Method
from subquad.methods.thresholds.multi_threshold import MultiThreshold

from ..harness import instances
from ..harness.counting import cheapest
from ..harness.forced import bounds_and_errors
from ..harness.kept import Kept
from ..harness.measure import null_errors, oracle, sample_rows
from ..harness.store import Experiment
from ..harness.timing import COMPILED, features_by, interleaved, on_numpy
from ..report import method_findings
from ..report.writing import tolerance

QUESTION = "What do several thresholds buy over one, by norm or by entry, and on which data?"
SEED = 7
TOL = 1e-2
ROWS_CHECKED = 256
BUCKETS = (0, 1, 2, 4, None)
TIMED = ("single, norm", "any number, norm")
WIDE = ", float64"
"""Ends the names of what is timed with every method in float64."""
HEADS = ("minilm-l5-h0-smallest", "minilm-l3-h7-median")
LONG = 2**20
"""Rows of a real head, replicated: a State does not pay at its own 512."""


def sources(n: int, d: int) -> dict[str, Callable[[], instances.Instance]]:
    """Return name -> a function that makes the instance."""
    made: dict[str, Callable[..., instances.Instance]] = {
        "subgaussian, sigma 0.3": partial(instances.subgaussian, sigma=0.3),
        "heavy_tail, t2 * 0.3": partial(instances.heavy_tail, dof=2.0, factor=0.3),
        "heavy_tail, t2 * 0.2": partial(instances.heavy_tail, dof=2.0, factor=0.2),
        "heavy_tail, t3 * 0.3": partial(instances.heavy_tail, dof=3.0, factor=0.3),
        "outliers": instances.outliers,
    }
    return {
        **{name: partial(family, n, d, seed=SEED) for name, family in made.items()},
        **{name: partial(instances.real, name) for name in HEADS},
    }


def ways() -> dict[str, subquad.SupportBasis | MultiThreshold]:
    """Return what is compared, by the name of its row."""
    single = {f"single, {c}": subquad.SupportBasis(criterion=c) for c in ("norm", "entry")}
    several = {
        f"{_most(most)}, {c}": MultiThreshold(criterion=c, buckets=most)
        for c in ("norm", "entry")
        for most in BUCKETS
    }
    return {**single, **several}


def _most(most: int | None) -> str:
    return "any number" if most is None else f"at most {most}"


def experiment(
    quick: bool = False,
    *,
    n: int | None = None,
    d: int = 8,
    tol: float = TOL,
    repeats: int | None = None,
    only: tuple[str, ...] | None = None,
) -> Experiment:
    """Return the experiment: one row per instance and way, one of times unless `repeats` is 0."""
    n = n or (8192 if quick else 32_768)
    repeats = (1 if quick else 7) if repeats is None else repeats
    cases, timings = {}, {}
    for instance, make in sources(n, d).items():
        if only is not None and instance not in only:
            continue
        shared = cache(partial(_shared, make))
        for way in ways():
            cases[f"{instance}: {way}"] = partial(_row, shared, instance, way, tol)
        if repeats > 0 and instance not in HEADS:
            timings[f"{instance}: times"] = partial(_times, shared, instance, tol, repeats)
    settings = {
        "seed": SEED,
        "n": n,
        "d": d,
        "dtype": "float64 (real heads float32, n = 512)",
        "tol": tol,
        "repeats": repeats,
        "only": only,
        "real heads counted at n": LONG,
        "oracle": f"float64 NumPy softmax, {ROWS_CHECKED} rows: half the largest, half random",
    }
    return Experiment("thresholds", QUESTION, settings, cases | timings, verdict)


@dataclass(frozen=True)
class _Shared:
    data: tuple[np.ndarray, np.ndarray, np.ndarray]
    scale: float
    views: tuple[Head, ...]
    rows: np.ndarray
    exact: np.ndarray
    null: dict


def _shared(make: Callable[[], instances.Instance]) -> _Shared:
    Q, K, V, scale = make()
    rows = sample_rows(Q, ROWS_CHECKED)
    exact = oracle(Q, K, V, scale, rows)
    views = Problem(Q, K, V, scale=scale).heads[0].views
    null = null_errors(Q, K, V, scale, exact, rows)
    return _Shared((Q, K, V), scale, views, rows, exact, null)


def _row(
    shared: Callable[[], _Shared], instance: str, way: str, tol: float, rates: subquad.Rates
) -> dict:
    """Return one way's parameters, bound, error, and its cost by count."""
    s = shared()
    n, method = len(s.data[0]), ways()[way]
    blank = dict.fromkeys(
        ("parameters", "buckets", "bound", "measured", "gain_by_count", "gain_long")
    )
    start = {**blank, "instance": instance, "way": way, "real": instance in HEADS, **s.null}
    stats = [view.stats for view in s.views]
    chosen, gain = cheapest([method], stats, n, tol)
    if chosen is None:
        return start
    bounds, errors = bounds_and_errors(
        s.views[chosen.view], method, chosen.parameters, chosen.work.dtype, s.exact, s.rows
    )
    return {
        **start,
        "parameters": str(chosen.parameters),
        "bound": float(bounds.max()),
        "measured": float(errors.max()),
        "sound": bool(np.all(errors <= bounds)),
        "buckets": sum(bool(b.cells) for b in getattr(chosen.parameters, "buckets", ())),
        "gain_by_count": gain,
        "gain_long": cheapest([method], stats, LONG, tol)[1] if instance in HEADS else None,
    }


def _times(
    shared: Callable[[], _Shared], instance: str, tol: float, repeats: int, rates: subquad.Rates
) -> dict:
    """Return median seconds of exact and of TIMED, in turns, each at its least predicted time.

    Predicted by rates of what it is run by: of NumPy alone as given, compiled measured here and
    kept beside the plans, None where there are none.
    """
    data, compiled_rates = shared().data, None
    planned = partial(_plans, shared(), tol)
    made = on_numpy(partial(planned, rates))
    calls = {name: partial(on_numpy, partial(plan.run, *data)) for name, plan in made.items()}
    if features_by() == "numba":
        compiled_rates = subquad.measured_rates()
        some = planned(compiled_rates)
        compiled = {name + COMPILED: x for name, x in some.items() if not name.startswith("exact")}
        calls |= {name: partial(plan.run, *data) for name, plan in compiled.items()}
        made |= compiled
    return {
        "instance": instance,
        "way": None,
        "seconds": interleaved(calls, repeats),
        "plans": {
            name: str(own.parameters)
            for name, plan in made.items()
            if (own := plan.heads[0].chosen) is not None
        },
        "rates_compiled": compiled_rates and compiled_rates.as_dict(),
    }


def _plans(shared: _Shared, tol: float, rates: subquad.Rates) -> dict[str, subquad.Plan]:
    """Return the plans of exact and of TIMED, and those of them with every method in float64."""
    methods: dict[str, str | Method] = {"exact": "exact", **{way: ways()[way] for way in TIMED}}
    half = {f.name: getattr(rates.float64, f.name) / 2.0 for f in fields(subquad.Speed)}
    wide = replace(rates, float32=subquad.Speed(**half))  # so that no plan takes float32
    return {
        name + kind: subquad.plan(
            *shared.data, tol=tol, scale=shared.scale, method=method, rates=own
        )
        for kind, own in (("", rates), (WIDE, wide))
        for name, method in methods.items()
    }


def verdict(rows: list[dict]) -> dict:
    """Return, by instance, each way's gain over exact by count, and the ratios between ways.

    For real heads at their longest, the rows replicated.
    """
    found: dict[str, dict] = {}
    times = {row["instance"]: row["seconds"] for row in rows if row["way"] is None}
    for row in by_way(rows):
        gain = row["gain_long"] if row["real"] else row["gain_by_count"]
        if gain is not None:
            found.setdefault(row["instance"], {})[row["way"]] = gain
    return {
        instance: {
            "gains": gains,
            "several_over_single": _over(gains, "any number, norm", "single, norm"),
            "norm_over_entry": _over(gains, "any number, norm", "any number, entry"),
            "faster_than_exact": _faster(times.get(instance), ""),
            "faster_in_float64": _faster(times.get(instance), WIDE),
            "faster_compiled": _faster(times.get(instance), "", COMPILED),
            "faster_in_float64_compiled": _faster(times.get(instance), WIDE, COMPILED),
        }
        for instance, gains in found.items()
    }


def _faster(seconds: dict[str, float] | None, kind: str, by: str = "") -> dict[str, float] | None:
    """Return how many times longer exact takes than each of TIMED, of one kind of plans."""
    if seconds is None or TIMED[0] + kind + by not in seconds:
        return None
    return {way: seconds[f"exact{kind}"] / seconds[way + kind + by] for way in TIMED}


def by_way(rows: list[dict]) -> list[dict]:
    """Return the rows that are of a way, without those of times."""
    return [row for row in rows if row["way"] is not None]


def _over(gains: dict[str, float], one: str, other: str) -> float | None:
    return gains[one] / gains[other] if one in gains and other in gains else None


HEADER = (
    "instance",
    "way",
    "bound",
    "measured",
    "mean(V)",
    "first order",
    "exact/it, count",
    "at 1M",
    "exact/it, time",
    "parameters",
)


def table_rows(record: dict) -> list[list]:
    """Return one line per row under HEADER: errors in value_radius, then how many times cheaper."""
    faster = {name: d["faster_than_exact"] or {} for name, d in record["derived"].items()}
    return [
        [
            r["instance"],
            r["way"],
            r["bound"],
            r["measured"],
            r["mean_v"]["measured"],
            r["first_order"]["measured"],
            r["gain_by_count"],
            r["gain_long"],
            faster.get(r["instance"], {}).get(r["way"]),
            r["parameters"],
        ]
        for r in by_way(record["rows"])
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"n = {s['n']:,}, d = {s['d']}, tol {tolerance(s['tol'])}; a real head of 512 rows is "
        f"counted with its rows replicated to {s['real heads counted at n']:,}."
    )


FEW = ("subgaussian, sigma 0.3", "heavy_tail, t3 * 0.3", "outliers", "minilm-l5-h0-smallest")
"""Instances that the report makes anew."""


def light(quick: bool) -> Experiment:
    """Return the experiment, small enough for the report."""
    return experiment(n=4096 if quick else 16_384, repeats=0, only=FEW)


FINDINGS = method_findings.of_thresholds
KEPT = Kept(
    40, "Several thresholds", ("method_charts.threshold_gains", "method_charts.thresholds"), about
)
