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

QUESTION = "Does the paper's premise hold: are entries of real heads sub-Gaussian and independent?"
SEED, N, D, ALPHA = 0, 512, 32, 0.01
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
        "alpha": ALPHA,
        "oracle": "none: nothing is approximated",
    }
    return Experiment("entry_statistics", QUESTION, settings, cases, tally, rates=subquad.TYPICAL)


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
    """Return by instance which hypotheses are rejected at ALPHA over its two matrices."""
    found: dict[str, dict] = {}
    for row in rows:
        own = found.setdefault(row["instance"], {"real": row["real"], "p_values": {}})
        for test, p in row["p_values"].items():
            own["p_values"][test] = min(1.0, 2.0 * p, own["p_values"].get(test, 1.0))
    for own in found.values():
        own["rejected"] = [test for test, p in own["p_values"].items() if p < ALPHA]
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


def group(row: dict) -> str:
    """Return the layer of a real head, or the control, whose tails a chart shows in one panel."""
    return f"layer {row['instance'].split('-')[1][1:]}" if row["real"] else row["instance"]


SUMMARY = (
    "layer or control",
    "matrix",
    "heaviest tails on",
    "proxy / variance",
    "low",
    "high",
    "excess kurtosis",
    "low",
    "high",
    "p, tails",
    "no heavier than normal",
)


def summary_rows(record: dict) -> list[list]:
    """Return under SUMMARY, for each layer and matrix, its head with the largest variance proxy."""
    heaviest: dict[tuple[str, str], dict] = {}
    for row in record["rows"]:
        key = (group(row), row["matrix"])
        if key not in heaviest or _proxy(row) > _proxy(heaviest[key]):
            heaviest[key] = row
    return [
        [
            *key,
            row["instance"],
            *(row[of][end] for of in FIGURES for end in ("value", "low", "high")),
            row["p_values"]["gaussian_tail"],
            "rejected" if 2.0 * row["p_values"]["gaussian_tail"] < ALPHA else "not rejected",
        ]
        for key, row in heaviest.items()
    ]


FIGURES = ("proxy_over_variance", "kurtosis")


def _proxy(row: dict) -> float:
    return row["proxy_over_variance"]["value"]


def findings(record: dict) -> list[Finding]:
    """Return on how many real heads each half of the premise is rejected, and on the controls."""
    return [_tails(record), _independence(record)]


def _tails(record: dict) -> Finding:
    found = record["derived"]["by_instance"]
    real = [name for name, own in found.items() if own["real"]]
    heavy = [name for name, own in found.items() if "gaussian_tail" in own["rejected"]]
    fallen = [name for name in real if name in heavy]
    proxy = [_proxy(row) for row in record["rows"] if row["real"]]
    controls = [row for row in record["rows"] if not row["real"]]
    told = "; ".join(
        f"{name}: {'rejected' if name in heavy else 'not rejected'}, up to "
        f"{number(max(_proxy(row) for row in controls if row['instance'] == name))} times"
        for name in dict.fromkeys(row["instance"] for row in controls)
    )
    return Finding(
        "tails as light as normal ones",
        graded(not fallen, len(fallen) == len(real)),
        "The premise holds for the tails: entries of Q and K of real heads are sub-Gaussian, their "
        "variance the parameter.",
        f"At level {ALPHA:g} it holds on {len(real) - len(fallen)} of {len(real)} heads"
        f"{'; it does not on ' + ', '.join(fallen) if fallen else ''}. To cover all tails of the "
        f"sample the parameter must be {number(min(proxy))} to {number(max(proxy))} times the "
        f"variance. Controls: {told}.",
    )


def _independence(record: dict) -> Finding:
    found = record["derived"]["by_instance"]
    real = [own for own in found.values() if own["real"]]
    joined = [own for own in real if {"coordinates", "rows"} & {*own["rejected"]}]
    return Finding(
        "independent entries",
        graded(not joined, len(joined) == len(real)),
        "The premise holds for independence: rows of real heads are independent of one another, "
        "and so are a row's coordinates.",
        f"One or the other is rejected at level {ALPHA:g} on {len(joined)} of {len(real)} heads. "
        "The tests of tails take rows to be independent, so their p-values are rough.",
    )


def about(record: dict) -> str:
    """Return the sizes in words, and what can be tested."""
    s = record["settings"]
    return (
        f"`subquad.entry_statistics` on {len(s['heads'])} shipped heads and two controls, n = "
        f"{s['n']}, d = {s['d']}: intervals of {100 * s['level']:.0f} % from {s['resamples']} "
        "resamples of the rows. Every sample is sub-Gaussian with some parameter; what is tested "
        "is whether the variance will do. The variance proxy is the parameter that the sample "
        "needs."
    )


def light(quick: bool) -> Experiment:
    """Return the experiment, small enough for the report."""
    return experiment(True)


FINDINGS = findings
KEPT = Kept(
    30,
    "Are the entries sub-Gaussian?",
    ("entry_charts.tails", "entry_charts.figures_by_head"),
    about,
    (SUMMARY, summary_rows),
)
