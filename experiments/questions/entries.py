"""Whether the entries of Q and K are what the support-basis theorem takes them to be.

`subquad.entry_statistics` on every shipped head, and on two controls of the same size, normal and
Student t entries: tails, excess kurtosis and variance proxy with their intervals, and the tests of
the theorem's three hypotheses. Nothing is approximated here, so no row has an error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

import subquad

from ..harness import instances
from ..harness.finding import Finding, graded
from ..harness.kept import Kept
from ..harness.store import Experiment
from ..report.writing import number

QUESTION = "Are the entries of real heads sub-Gaussian and independent, as the paper assumes?"
SEED, N, D = 0, 512, 32
CONTROLS: dict[str, Callable[[], instances.Instance]] = {
    "normal entries": partial(instances.subgaussian, N, D, seed=SEED),
    "Student t entries": partial(instances.heavy_tail, N, D, seed=SEED, dof=3.0),
}
HYPOTHESES = ("gaussian_tail", "coordinates", "rows")


def experiment(
    quick: bool = False, *, heads: tuple[str, ...] | None = None, resamples: int = 400
) -> Experiment:
    """Return the experiment: one row for each of Q and K of every head and control."""
    heads = instances.real_names()[:: 3 if quick else 1] if heads is None else heads
    sources = {name: partial(instances.real, name) for name in heads} | CONTROLS
    cases = {
        f"{name}, {matrix}": partial(_row, name, matrix, source, resamples)
        for name, source in sources.items()
        for matrix in "QK"
    }
    settings = {
        "seed": SEED,
        "n": N,
        "d": D,
        "heads": heads,
        "resamples": resamples,
        "level": 0.95,
        "alpha": 0.01,
        "oracle": "none: nothing is approximated",
    }
    return Experiment("entries", QUESTION, settings, cases, tally, rates=subquad.TYPICAL)


def _row(name: str, matrix: str, source: Callable, resamples: int, rates) -> dict:
    """Return the figures of one matrix, their intervals, its tail and the p-values."""
    Q, K, V, scale = source()
    found = subquad.entry_statistics(Q, K, V, scale=scale, resamples=resamples, seed=SEED)
    one = found.of(matrix)
    variance = one.variance.value
    return {
        "instance": name,
        "matrix": matrix,
        "real": name not in CONTROLS,
        "sigma": variance**0.5,
        "psi_2": _estimate(one.psi_2),
        "psi_2_centred": _estimate(one.psi_2_centred),
        "proxy_over_variance": _estimate(one.proxy, 1.0 / variance),
        "kurtosis": _estimate(one.kurtosis),
        "tail": {
            part: np.asarray(getattr(one.tail, part)).tolist()
            for part in ("thresholds", "observed", "low", "high", "gaussian", "subgaussian")
        },
        "p_values": {test: float(getattr(one, test).p_value) for test in HYPOTHESES},
    }


def _estimate(x, factor: float = 1.0) -> dict[str, float]:
    return {part: factor * float(getattr(x, part)) for part in ("value", "low", "high")}


def tally(rows: list[dict]) -> dict:
    """Return by instance which hypotheses are rejected at 0.01 over its two matrices."""
    found: dict[str, dict] = {}
    for row in rows:
        own = found.setdefault(row["instance"], {"real": row["real"], "p_values": {}})
        for test, p in row["p_values"].items():
            own["p_values"][test] = min(1.0, 2.0 * p, own["p_values"].get(test, 1.0))
    for own in found.values():
        own["rejected"] = [test for test, p in own["p_values"].items() if p < 0.01]
    return {"by_instance": found}


HEADER = (
    "instance",
    "matrix",
    "psi_2",
    "low",
    "high",
    "excess kurtosis",
    "low",
    "high",
    "proxy / variance",
    "low",
    "high",
    "p, tails",
    "p, coordinates",
    "p, rows",
)


def table_rows(record: dict) -> list[list]:
    """Return one line for each matrix under HEADER: figures with 95 % intervals, p-values."""
    return [
        [
            row["instance"],
            row["matrix"],
            *(
                row[key][part]
                for key in ("psi_2", "kurtosis", "proxy_over_variance")
                for part in ("value", "low", "high")
            ),
            *(row["p_values"][test] for test in HYPOTHESES),
        ]
        for row in record["rows"]
    ]


def findings(record: dict) -> list[Finding]:
    """Return on how many real heads the theorem's hypotheses are rejected, and on the controls."""
    found = record["derived"]["by_instance"]
    real = {name: own for name, own in found.items() if own["real"]}
    rows = [row for row in record["rows"] if row["real"]]
    heavy = [name for name, own in real.items() if "gaussian_tail" in own["rejected"]]
    joined = [name for name, own in real.items() if {"coordinates", "rows"} & {*own["rejected"]}]
    kurtosis = [row["kurtosis"]["value"] for row in rows]
    proxy = [row["proxy_over_variance"]["value"] for row in rows]
    told = "; ".join(
        f"{name}: {', '.join(own['rejected']) or 'none'}"
        for name, own in found.items()
        if not own["real"]
    )
    return [
        Finding(
            "tails as light as normal ones",
            graded(not heavy, len(heavy) == len(real)),
            "The entries of Q and K of real heads have tails as light as their variance says.",
            f"Rejected at level 0.01 on {len(heavy)} of {len(real)} heads. Excess kurtosis "
            f"{number(min(kurtosis))} to {number(max(kurtosis))}, variance proxy "
            f"{number(min(proxy))} to {number(max(proxy))} times the variance. Rejected on the "
            f"controls: {told}.",
        ),
        Finding(
            "independent entries",
            graded(not joined, len(joined) == len(real)),
            "Rows of real heads are independent of one another, and so are a row's coordinates.",
            f"One or the other is rejected at level 0.01 on {len(joined)} of {len(real)} heads. "
            "The tests of tails take rows to be independent.",
        ),
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"`subquad.entry_statistics` on {len(s['heads'])} shipped heads and two controls, n = "
        f"{s['n']}, d = {s['d']}: intervals of 95 % from {s['resamples']} resamples of the rows."
    )


def light(quick: bool) -> Experiment:
    """Return the experiment, small enough for the report."""
    return experiment(True)


FINDINGS = findings
KEPT = Kept(
    30, "Are the entries sub-Gaussian?", ("head_charts.entries", "head_charts.entry_figures"), about
)
