"""From which length one polynomial beats exact, measured for each dimension and degree.

Heads of `bounded(beta)`, beta such that the degree is the least certified; lengths double until
the polynomial is faster twice running, or is predicted to take over SECONDS. The crossing is read
off between two lengths, straight in log n and log ratio; beside it, that which the plan predicts.
Exact is timed on a share of the rows where there are many.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

import subquad

from ..harness import instances
from ..harness.finding import Finding, graded
from ..harness.kept import Kept
from ..harness.store import Experiment
from ..harness.timing import features_by, spread
from ..report.writing import number, tolerance

QUESTION = "From which length is one polynomial faster than exact, by dimension and degree?"
SEED = 0
BETAS = {1: 0.12, 2: 0.5, 3: 1.0, 4: 1.5}
"""Degree aimed at, and the logit bound that asks for it at tol 1e-2."""
DIMENSIONS = (8, 16, 32, 64)
SHORTEST, LONGEST, SECONDS = 256, 65_536, 10.0
"""Lengths tried, and the seconds predicted for the polynomial above which none is."""
EXACT_ROWS = 4096


def experiment(
    quick: bool = False,
    *,
    dimensions: tuple[int, ...] | None = None,
    degrees: tuple[int, ...] = tuple(BETAS),
    longest: int | None = None,
    tol: float = 1e-2,
    repeats: int = 3,
) -> Experiment:
    """Return the experiment: one row per dimension and degree."""
    dimensions = dimensions or (DIMENSIONS[:2] if quick else DIMENSIONS)
    longest = longest or (8192 if quick else LONGEST)
    cases = {
        f"d = {d}, degree {degree}": partial(_row, d, degree, longest, tol, repeats)
        for d in dimensions
        for degree in degrees
    }
    settings = {
        "seed": SEED,
        "dtype": "float32",
        "tol": tol,
        "betas": BETAS,
        "dimensions": dimensions,
        "shortest": SHORTEST,
        "longest": longest,
        "seconds": SECONDS,
        "repeats": repeats,
        "exact rows": EXACT_ROWS,
        "features by": features_by(),
        "oracle": "none: times alone",
    }
    return Experiment("crossover_lengths", QUESTION, settings, cases, tally)


def _row(d: int, degree: int, longest: int, tol: float, repeats: int, rates) -> dict:
    """Return the lengths tried, exact over polynomial at each, and where it passes 1."""
    n, found = SHORTEST, {}
    tried: list[dict] = []
    while n <= longest and not (len(tried) > 1 and min(t["gain"] for t in tried[-2:]) > 1.0):
        one = _timed(n, d, BETAS[degree], tol, repeats, rates)
        if one is None:
            break
        found = one
        tried.append(one)
        n *= 2
    return {
        "d": d,
        "beta": BETAS[degree],
        "degree": found.get("degree", degree),
        "tried": tried,
        "crossing": crossing([(t["n"], t["gain"]) for t in tried]),
        "predicted": crossing([(t["n"], t["predicted_gain"]) for t in tried]),
    }


def _timed(n: int, d: int, beta: float, tol: float, repeats: int, rates) -> dict | None:
    """Return times of both at one length; None where the polynomial is too slow to try."""
    Q, K, V, scale = instances.bounded(n, d, beta=beta, seed=SEED, dtype=np.float32)
    rows = Q[:EXACT_ROWS]
    options = {"tol": tol, "scale": scale, "rates": rates}
    made = subquad.plan(Q, K, V, method="polynomial", **options)
    whole = subquad.plan(Q, K, V, method="exact", **options)
    exact = subquad.plan(rows, K, V, method="exact", **options)
    chosen, full = made.heads[0].chosen, whole.heads[0].chosen
    assert chosen is not None and full is not None
    predicted = made.heads[0].seconds(chosen)
    if not predicted <= SECONDS:
        return None
    calls = {"polynomial": partial(made.run, Q, K, V), "exact": partial(exact.run, rows, K, V)}
    for call in calls.values():
        call()
    times = {name: x["least"] for name, x in spread(calls, repeats).items()}
    times["exact"] *= n / len(rows)
    return {
        "n": n,
        "degree": chosen.parameters.degree,
        **times,
        "gain": times["exact"] / times["polynomial"],
        "predicted_gain": whole.heads[0].seconds(full) / predicted,
    }


def crossing(gains: list[tuple[int, float]]) -> float | None:
    """Return the length from which the gain stays above 1, None where it is not so at the last.

    The first length where it is above 1 from the start; else between two, straight in logarithms.
    """
    if not gains or not gains[-1][1] > 1.0:
        return None
    below = [i for i, (_, gain) in enumerate(gains) if not gain > 1.0]
    if not below:
        return float(gains[0][0])
    (n, low), (m, high) = gains[below[-1]], gains[below[-1] + 1]
    share = -math.log(low) / (math.log(high) - math.log(low))
    return n * (m / n) ** share


def tally(rows: list[dict]) -> dict:
    """Return every crossing, and how far the predicted ones are off."""
    off = [r["predicted"] / r["crossing"] for r in rows if r["predicted"] and r["crossing"]]
    return {
        "crossings": {f"d = {r['d']}, degree {r['degree']}": r["crossing"] for r in rows},
        "predicted_over_measured": {"least": min(off), "most": max(off)} if off else None,
    }


HEADER = ("d", "degree", "B", "measured crossing", "predicted", "longest tried", "gain there")


def table_rows(record: dict) -> list[list]:
    """Return the crossings as a table under HEADER; None where exact stayed faster."""
    return [
        [
            r["d"],
            r["degree"],
            r["beta"],
            r["crossing"],
            r["predicted"],
            *((r["tried"][-1]["n"], r["tried"][-1]["gain"]) if r["tried"] else (None, None)),
        ]
        for r in record["rows"]
    ]


def findings(record: dict) -> list[Finding]:
    """Return where one polynomial is ahead of exact."""
    rows = [r for r in record["rows"] if r["crossing"] is not None]
    crossings = [r["crossing"] for r in rows]
    return [
        Finding(
            "crossings",
            graded(len(rows) == len(record["rows"]), not rows),
            f"Below n = {record['settings']['longest']:,} one certified polynomial becomes faster "
            "than exact at every dimension and degree tried.",
            f"{len(rows)} of {len(record['rows'])}, from n = "
            f"{number(min(crossings, default=None))} to {number(max(crossings, default=None))}.",
        )
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"Logit bounds such that a degree is the least certified at tol {tolerance(s['tol'])}; "
        "lengths double until the polynomial is ahead twice running."
    )


FINDINGS = findings
KEPT = Kept(100, "From which length", ("speed_charts.crossings",), about)
