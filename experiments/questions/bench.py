"""The performance that is promised, measured.

d = 64, float32, logit bound 0.5, tol 1e-2; then the same data with 0.1 % of rows and keys 20 times
larger. All in turns in one run, medians after a warm-up, the errors of ours checked on sampled rows
before anything is timed. NumPy is timed on a share of the rows and scaled up.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import subquad
from subquad.head.problem import Problem
from subquad.methods.method import Refusal

from ..harness import instances
from ..harness.kept import Kept
from ..harness.measure import checked
from ..harness.store import Experiment
from ..harness.timing import COMPILED, gemm, interleaved, numpy_softmax, ours, sdpa, torch_available
from ..report import summary
from ..report.writing import tolerance

QUESTION = "How much faster than SDPA and NumPy is a certified answer, and do outliers hurt?"
SEED = 0
NUMPY_ROWS = 2048
GEMM, GEMM_SIZE = "GEMM alone, the floor", 4096
"""The matrix products of ours on clean data, at the rate of one large square product."""
SAMPLED = 256
PLANNING, CERTIFYING = "planning alone, clean", "certificate alone, clean"


def experiment(
    quick: bool = False,
    *,
    n: int | None = None,
    d: int = 64,
    tol: float = 1e-2,
    repeats: int | None = None,
) -> Experiment:
    """Return the experiment: one row, since everything is timed in turns with everything else."""
    n, repeats = n or (16_384 if quick else 65_536), repeats or (3 if quick else 5)
    settings = {
        "seed": SEED,
        "n": n,
        "d": d,
        "dtype": "float32",
        "tol": tol,
        "beta": 0.5,
        "outliers": "0.1 % of rows and keys, 20 times larger",
        "repeats": repeats,
        "compiled passes": f"on NumPy alone; and by numba where it is called{COMPILED}",
        "oracle": f"float64 NumPy softmax, {SAMPLED} rows: the largest and random ones",
    }
    cases = {"all": partial(_row, n, d, tol, repeats)}
    return Experiment("bench", QUESTION, settings, cases, ratios)


def peak_mib() -> float:
    """Return the largest memory this process has held so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _row(n: int, d: int, tol: float, repeats: int, rates) -> dict:
    """Return bounds, errors and times of ours and the peers, clean and with outliers."""
    common: dict[str, Any] = {"beta": 0.5, "seed": SEED, "dtype": np.float32}
    clean = instances.bounded(n, d, **common)
    spoiled = instances.outliers(n, d, **common)
    before = peak_mib()
    ways: dict[str, dict] = {}
    calls: dict[str, Callable[[], Any]] = {}
    norm = subquad.SupportBasis(criterion="norm")
    for name, data, method in (
        ("ours, clean", clean, "auto"),
        ("ours, outliers", spoiled, "auto"),
        ("support_basis by norm, outliers", spoiled, norm),
    ):
        for way, call in ours(name, partial(_ours, data, tol, method, rates)).items():
            answer: Any = call()
            calls[way], ways[way] = call, _checked(answer, data)
    calls |= _beside(clean, tol, rates)
    memory = {"before": before, "after_ours": peak_mib()}
    scaled = {
        "NumPy softmax": n / min(NUMPY_ROWS, n),
        GEMM: ways["ours, clean"]["product_flops"] / (2.0 * GEMM_SIZE**3),
    }
    peers: dict[str, Callable[[], Any]] = {
        "NumPy softmax": partial(_some_rows, clean),
        GEMM: gemm(GEMM_SIZE),
    }
    if torch_available():
        peers["SDPA"] = sdpa(*clean)
    for name, seconds in interleaved({**calls, **peers}, repeats).items():
        ways.setdefault(name, {})["seconds"] = seconds * scaled.get(name, 1.0)
    ways["NumPy softmax"]["timed_rows"] = min(NUMPY_ROWS, n)
    return {"ways": ways, "peak_mib": memory, "planned": _planned(spoiled, tol, rates)}


def _some_rows(data: instances.Instance) -> np.ndarray:
    Q, K, V, scale = data
    return numpy_softmax(Q[:NUMPY_ROWS], K, V, scale)


def _ours(data: instances.Instance, tol: float, method, rates) -> subquad.Result:
    Q, K, V, scale = data
    return subquad.attention(Q, K, V, tol=tol, scale=scale, method=method, rates=rates)


def _beside(
    data: instances.Instance, tol: float, rates: subquad.Rates
) -> dict[str, Callable[[], Any]]:
    """Return what a plan costs, all measuring in it, and the certificate of finished sums."""
    Q, K, V, scale = data
    plan = partial(subquad.plan, Q, K, V, tol=tol, scale=scale, rates=rates)
    chosen = plan().heads[0].chosen
    assert chosen is not None
    view = Problem(Q, K, V, scale=scale).heads[0].views[0]
    sums = chosen.method.run(view, chosen.parameters)
    return {PLANNING: plan, CERTIFYING: sums.certified}


def _checked(result: subquad.Result, data: instances.Instance) -> dict:
    """Return what was chosen, its bound, terms, errors and null models; refuse a broken bound."""
    found, null = checked(result, data, SAMPLED, SEED)
    chosen, d_v = result.plan.heads[0].chosen, result.output.shape[1]
    assert chosen is not None
    return {
        "method": chosen.method.name,
        **found,
        "product_flops": chosen.work.feature_tokens * 2.0 * (d_v + 1),
        "terms": {t.name: t.worst() for t in result.certificate.terms},
        "null": null,
    }


def _planned(data: instances.Instance, tol: float, rates) -> list[dict]:
    """Return what each method offers on the outlier data, predicted and not run."""
    Q, K, V, scale = data
    head = subquad.plan(Q, K, V, tol=tol, scale=scale, rates=rates).heads[0]
    rows: list[dict] = []
    for option in head.options:
        row = {"method": option.method.name, "parameters": str(option.parameters)}
        if isinstance(option, Refusal):
            rows.append({**row, "refused": option.reason, "predicted_seconds": None})
        else:
            pairs = option.work.pairs + option.work.wide_pairs
            rows.append(
                {
                    **row,
                    "predicted_seconds": head.seconds(option),
                    "share_of_pairs": pairs / (len(Q) * len(K)),
                }
            )
    return rows


def ratios(rows: list[dict]) -> dict:
    """Return every time over that of ours on clean data, our memory, and if polynomial refused."""
    ways = rows[0]["ways"]
    clean = {name: way["seconds"] for name, way in ways.items() if name.startswith("ours, clean")}
    memory = rows[0]["peak_mib"]
    return {
        "over_ours_clean": {
            name: way["seconds"] / clean["ours, clean"] for name, way in ways.items()
        },
        "over_ours_clean_fast": {
            name: way["seconds"] / clean["ours, clean" + COMPILED] for name, way in ways.items()
        }
        if len(clean) > 1
        else None,
        "polynomial_refuses_outliers": any(
            p["method"] == "polynomial" and "refused" in p for p in rows[0]["planned"]
        ),
        "share_of_the_floor": {name: ways[GEMM]["seconds"] / s for name, s in clean.items()},
        "share_of_planning_and_certificate": {
            name: (ways[PLANNING]["seconds"] + ways[CERTIFYING]["seconds"]) / s
            for name, s in clean.items()
        },
        "our_memory_mib": memory["after_ours"] - memory["before"],
    }


HEADER = (
    "way",
    "seconds",
    "times ours, clean",
    "SDPA / it",
    "floor / it",
    "bound",
    "measured",
    "mean(V)",
    "first order",
)


def table_rows(record: dict) -> list[list]:
    """Return the times as a table under HEADER."""
    over, ways = record["derived"]["over_ours_clean"], record["rows"][0]["ways"]
    peer, floor = (ways.get(name, {}).get("seconds") for name in ("SDPA", GEMM))
    null = {"mean_v": {"measured": None}, "first_order": {"measured": None}}
    return [
        [
            name,
            way["seconds"],
            over[name],
            peer and peer / way["seconds"],
            floor / way["seconds"],
            way.get("bound"),
            way.get("measured"),
            *(way.get("null", null)[k]["measured"] for k in ("mean_v", "first_order")),
        ]
        for name, way in ways.items()
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"One head, n = {s['n']:,}, d = {s['d']}, tol {tolerance(s['tol'])}; on outliers 0.1 % of "
        "rows and keys are 20 times larger."
    )


FINDINGS = summary.of_bench
KEPT = Kept(
    80, "Speed at 65,536 tokens", ("speed_charts.bench", "speed_charts.bench_errors"), about
)
