"""Time and error against n, for ours and for the exact peers.

On `bounded(0.5)` (one polynomial certifies) and on `outliers` (0.1 % of rows and keys 20 times
larger: of `polynomial` and `support_basis` only the latter does), with exact, plain NumPy softmax,
and PyTorch's SDPA where torch is installed, up to `quadratic_up_to`, in turns in the same run. The
slope of log time in log n is fitted on the upper half of the lengths, with a 95 % confidence
interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import subquad
from subquad.methods.method import Method

from ..harness import instances
from ..harness.kept import Kept
from ..harness.measure import errors, errors_within, null_errors, oracle, sample_rows
from ..harness.store import Experiment
from ..harness.timing import features_by, interleaved, numpy_softmax, sdpa, torch_available
from ..report import summary
from ..report.writing import tolerance

QUESTION = "From which length is a certified answer faster than exact, and how does it scale?"
SEED = 0
FAMILIES = {"bounded(0.5)": instances.bounded, "outliers": instances.outliers}
OURS: dict[str, str | Method] = {
    "polynomial": "polynomial",
    "support_basis": subquad.SupportBasis(criterion="norm"),
    "exact": "exact",
}
SAMPLED = 512


def experiment(
    quick: bool = False,
    *,
    d: int = 32,
    tol: float = 1e-2,
    lengths: tuple[int, ...] | None = None,
    repeats: int = 3,
    quadratic_up_to: int = 32_768,
) -> Experiment:
    """Return the experiment: one row per family and length."""
    if lengths is None:
        halves = range(20, 26) if quick else range(20, 33)  # to 5793, or to 65,536
        lengths = tuple(round(2 ** (k / 2)) for k in halves)
    cases = {
        f"{family} n = {n}": partial(_row, family, n, d, tol, repeats, quadratic_up_to)
        for family in FAMILIES
        for n in lengths
    }
    settings = {
        "seed": SEED,
        "d": d,
        "dtype": "float32",
        "tol": tol,
        "beta": 0.5,
        "lengths": lengths,
        "repeats": repeats,
        "quadratic_up_to": quadratic_up_to,
        "features by": features_by(),
        "oracle": f"float64 NumPy softmax, {SAMPLED} rows: the largest and random ones",
    }
    return Experiment("crossover", QUESTION, settings, cases, scaling)


def _row(family: str, n: int, d: int, tol: float, repeats: int, quadratic_up_to: int, rates):
    """Return time, bound and errors of every way at one length; correctness is checked first."""
    Q, K, V, scale = FAMILIES[family](n, d, beta=0.5, seed=SEED, dtype=np.float32)
    rows = sample_rows(Q, SAMPLED, SEED)
    exact = oracle(Q, K, V, scale, rows)
    methods: dict[str, dict] = {}
    calls: dict[str, Callable[[], Any]] = {}
    for name, method in OURS.items():
        if name == "exact" and n > quadratic_up_to:
            continue
        call = partial(subquad.attention, Q, K, V, tol=tol, scale=scale, method=method, rates=rates)
        try:
            result = call()
        except subquad.ToleranceError as error:
            methods[name] = {"bound": None, "refused": str(error)}
            continue
        chosen = result.plan.heads[0].chosen
        bound = result.certificate.bound
        methods[name] = {
            "bound": bound,
            **errors_within(bound, result.output[rows], exact, V),
            "parameters": str(chosen and chosen.parameters),
        }
        calls[name] = call
    if n <= quadratic_up_to:
        peers: dict[str, Callable[[], Any]] = {}
        peers["NumPy softmax"] = partial(numpy_softmax, Q, K, V, scale)
        if torch_available():
            peers["SDPA"] = sdpa(Q, K, V, scale)
        for name, peer in peers.items():
            methods[name] = {"bound": None, **errors(peer()[rows], exact, V)}
        calls |= peers
    # Every call above was the warm-up.
    for name, seconds in interleaved(calls, repeats, warm_up=0).items():
        methods[name]["seconds"] = seconds
    null = null_errors(Q, K, V, scale, exact, rows)
    return {"family": family, "n": n, "methods": methods, **null}


def slope(lengths: list[int], seconds: list[float], share: float = 0.5) -> dict:
    """Return the slope of log time in log n on the upper `share` of the lengths, with its interval.

    The interval is of 95 % confidence. At least five points are used, or all; below three there
    is no slope.
    """
    from scipy.stats import linregress, t

    points = sorted(zip(lengths, seconds, strict=True))
    points = points[-max(5, math.ceil(len(points) * share)) :]
    if len(points) < 3:
        return {"slope": None, "low": None, "high": None, "points": len(points)}
    fit = linregress(*(np.log(x) for x in zip(*points, strict=True)))
    half = float(t.ppf(0.975, len(points) - 2) * fit.stderr)
    return {
        "slope": float(fit.slope),
        "low": float(fit.slope) - half,
        "high": float(fit.slope) + half,
        "points": len(points),
        "from_n": points[0][0],
        "to_n": points[-1][0],
    }


def series(rows: list[dict], family: str) -> dict[str, tuple[list[int], list[float]]]:
    """Return lengths and seconds of every way that was timed on a family."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        for name, way in row["methods"].items():
            if row["family"] == family and way.get("seconds") is not None:
                lengths, seconds = found.setdefault(name, ([], []))
                lengths.append(row["n"])
                seconds.append(way["seconds"])
    return found


def scaling(rows: list[dict]) -> dict:
    """Return, per family, each way's slope and where ours first stays faster than exact."""
    result = {}
    for family in dict.fromkeys(row["family"] for row in rows):
        timed = series(rows, family)
        result[family] = {
            name: {**slope(*points), **_against_exact(points, timed.get("exact"))}
            for name, points in timed.items()
        }
    return result


def _against_exact(points: tuple, exact: tuple | None) -> dict:
    """Return the first length from which `points` stays below exact, and the last speed-up."""
    times = dict(zip(*exact, strict=True)) if exact else {}
    gains = [(n, times[n] / s) for n, s in zip(*points, strict=True) if n in times]
    if not gains:
        return {}
    slower = [n for n, gain in gains if gain <= 1.0]
    wins = [n for n, _ in gains if not slower or n > slower[-1]]
    return {
        "faster_from": wins[0] if wins else None,
        "at_n": gains[-1][0],
        "times_faster_than_exact": gains[-1][1],
    }


HEADER = ("family", "n", "way", "seconds", "bound", "measured", "mean(V)", "first order")


def table_rows(record: dict) -> list[list]:
    """Return times and errors as a table under HEADER; ways that refused have no numbers."""
    return [
        [
            r["family"],
            r["n"],
            name,
            way.get("seconds"),
            way["bound"],
            way.get("measured"),
            r["mean_v"]["measured"],
            r["first_order"]["measured"],
        ]
        for r in record["rows"]
        for name, way in r["methods"].items()
    ]


SLOPES_HEADER = (
    "family",
    "way",
    "exponent of n",
    "low",
    "high",
    "points",
    "ahead of exact from n",
    "times faster than exact",
)


def slopes(record: dict) -> list[list]:
    """Return the fitted exponents and the speed-ups of every way."""
    return [
        [
            family,
            name,
            fit["slope"],
            fit.get("low"),
            fit.get("high"),
            fit["points"],
            fit.get("faster_from"),
            fit.get("times_faster_than_exact"),
        ]
        for family, ways in record["derived"].items()
        for name, fit in ways.items()
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"n = {min(s['lengths']):,} to {max(s['lengths']):,}, d = {s['d']}, tol "
        f"{tolerance(s['tol'])}. Exponents: least squares on the upper half of the lengths, with "
        "intervals of 95 % confidence."
    )


def light(quick: bool) -> Experiment:
    """Return the experiment, small enough for the report."""
    halves = tuple(round(2 ** (k / 2)) for k in range(19, 28))  # 724 to 11,585
    return experiment(True) if quick else experiment(lengths=halves)


FINDINGS = summary.of_crossover
KEPT = Kept(
    70,
    "Speed against exact, and the slope of time in n",
    ("charts.time_against_n", "charts.exponents"),
    about,
    (SLOPES_HEADER, slopes),
)
