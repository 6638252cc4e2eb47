"""How time grows with the number of tokens, to a million: one polynomial, and a few large rows.

`bounded(0.5)`, where one polynomial certifies, and `outliers` with 64 rows and 64 keys 20 times
larger at every length, where a support basis does: its pairs left exact grow as n. Each length is
checked on sampled rows; then all lengths of a family are timed in turns, so that a slow phase of
the machine falls on all of them. Exact has no line here: at a million it takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import subquad
from subquad.methods.method import Method

from ..harness import instances
from ..harness.finding import Finding, graded
from ..harness.kept import Kept
from ..harness.measure import checked
from ..harness.store import Experiment
from ..harness.timing import features_by, interleaved
from ..report.writing import number, tolerance
from .crossover import slope

QUESTION = "Does our time grow as n, from 16,384 to 1,048,576 tokens?"
SEED = 0
LARGE = 64
"""Rows and keys that are 20 times larger, at every length."""
SAMPLED = 128
STEEPEST = 1.05
"""Slope of log time in log n up to which growth is called linear."""


def experiment(
    quick: bool = False,
    *,
    d: int = 32,
    tol: float = 1e-2,
    lengths: tuple[int, ...] | None = None,
    repeats: int = 5,
) -> Experiment:
    """Return the experiment: one row per family, all lengths in it."""
    octaves = range(12, 15) if quick else range(14, 21)
    lengths = lengths or tuple(2**k for k in octaves)
    cases = {name: partial(_row, name, d, tol, lengths, repeats) for name in FAMILIES}
    settings = {
        "seed": SEED,
        "d": d,
        "dtype": "float32",
        "tol": tol,
        "beta": 0.5,
        "lengths": lengths,
        "large rows and keys": LARGE,
        "repeats": repeats,
        "features by": features_by(),
        "oracle": f"float64 NumPy softmax, {SAMPLED} rows: the largest and random ones",
    }
    return Experiment("scaling", QUESTION, settings, cases, growth)


def _clean(n: int, d: int) -> instances.Instance:
    return instances.bounded(n, d, beta=0.5, seed=SEED, dtype=np.float32)


def _spoiled(n: int, d: int) -> instances.Instance:
    return instances.outliers(n, d, beta=0.5, fraction=LARGE / n, seed=SEED, dtype=np.float32)


FAMILIES: dict[str, tuple[Callable[[int, int], instances.Instance], str | Method]] = {
    "bounded(0.5), polynomial": (_clean, "polynomial"),
    f"{LARGE} outliers, support_basis": (_spoiled, subquad.SupportBasis(criterion="norm")),
}


def _row(
    family: str, d: int, tol: float, lengths: tuple[int, ...], repeats: int, rates: subquad.Rates
) -> dict:
    """Return bound, errors and seconds at every length."""
    make, method = FAMILIES[family]
    points: list[dict] = []
    calls: dict[str, Callable[[], Any]] = {}
    for n in lengths:
        data = make(n, d)
        call = partial(
            subquad.attention, *data[:3], tol=tol, scale=data[3], method=method, rates=rates
        )
        points.append({"n": n, **_checked(call(), data)})
        calls[str(n)] = call
    # Each call above was the warm-up.
    for point, seconds in zip(points, interleaved(calls, repeats, warm_up=0).values(), strict=True):
        point["seconds"] = seconds
    return {"family": family, "points": points}


def _checked(result: subquad.Result, data: instances.Instance) -> dict:
    """Return bound, errors and null models on sampled rows; refuse to time a broken bound."""
    found, null = checked(result, data, SAMPLED, SEED)
    return {**found, **null}


def growth(rows: list[dict]) -> dict:
    """Return, by family, the slope of log time in log n over all lengths."""
    return {
        row["family"]: slope(
            [p["n"] for p in row["points"]], [p["seconds"] for p in row["points"]], share=1.0
        )
        for row in rows
    }


HEADER = ("family", "n", "seconds", "ns per token", "bound", "measured", "mean(V)", "first order")


def table_rows(record: dict) -> list[list]:
    """Return one line per family and length under HEADER."""
    return [
        [
            row["family"],
            p["n"],
            p["seconds"],
            1e9 * p["seconds"] / p["n"],
            p["bound"],
            p["measured"],
            p["mean_v"]["measured"],
            p["first_order"]["measured"],
        ]
        for row in record["rows"]
        for p in row["points"]
    ]


def findings(record: dict) -> list[Finding]:
    """Return whether time grows as n."""
    fits = {name: fit for name, fit in record["derived"].items() if fit["slope"] is not None}
    flat = [name for name, fit in fits.items() if fit["slope"] <= STEEPEST]
    told = "; ".join(f"{name} {number(fit['slope'])}" for name, fit in fits.items())
    lengths = record["settings"]["lengths"]
    return [
        Finding(
            "grows as n",
            graded(bool(fits) and len(flat) == len(fits), not flat),
            f"Our time grows as n, from {min(lengths):,} to {max(lengths):,} tokens.",
            f"Slope of log time in log n, at most {STEEPEST} asked: {told}.",
        )
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"d = {s['d']}, tol {tolerance(s['tol'])}, all lengths of a family in turns, medians of "
        f"{s['repeats']}; {s['large rows and keys']} large rows and keys at every length in one."
    )


FINDINGS = findings
KEPT = Kept(110, "To a million tokens", ("speed_charts.scaling",), about)
