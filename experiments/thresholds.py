"""What several thresholds buy: error, bound and cost against their number, norm against entry.

Sub-Gaussian, Student t and outlier data (d = 8, scale 1/sqrt(d)) and two real heads at tol 1e-2.
One row per way: `support_basis` with its one threshold, `multi_threshold` with at most 0, 1, 2, 4
or any number of buckets that have a polynomial, by norm and by entry; mean(V) and first order, the
answers that need no attention, beside each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import subquad
from experiments import instances
from experiments.measure import errors, null_errors, oracle, sample_rows
from experiments.store import Experiment
from experiments.timing import interleaved
from subquad.methods.multi_threshold import MultiThreshold

QUESTION = "What do several thresholds buy over one, by norm or by entry, and on which data?"
SEED = 7
TOL = 1e-2
ROWS_CHECKED = 256
BUCKETS = (0, 1, 2, 4, None)
HEADS = ("minilm-l0-h11-smallest", "minilm-l3-h7-median")


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
        for c in ("norm", "entry") for most in (BUCKETS if c == "norm" else (1, None))
    }  # fmt: skip
    return {**single, **several}


def _most(most: int | None) -> str:
    return "any number" if most is None else f"at most {most}"


def experiment(
    quick: bool = False, *, n: int | None = None, d: int = 8, tol: float = TOL,
    repeats: int | None = None,
) -> Experiment:  # fmt: skip
    """Return the experiment: one row per instance and way."""
    n, repeats = n or (8192 if quick else 32_768), repeats or (1 if quick else 3)
    cases = {}
    for instance, make in sources(n, d).items():
        shared = cache(partial(_shared, make))
        for way in ways():
            cases[f"{instance}: {way}"] = partial(_row, shared, instance, way, tol, repeats)
    settings = {
        "seed": SEED, "n": n, "d": d, "dtype": "float64 (real heads float32, n = 512)",
        "tol": tol, "repeats": repeats,
        "oracle": f"float64 NumPy softmax, {ROWS_CHECKED} rows: half the largest, half random",
    }  # fmt: skip
    return Experiment("thresholds", QUESTION, settings, cases, verdict)


def _shared(make: Callable[[], instances.Instance]) -> tuple:
    Q, K, V, scale = make()
    rows = sample_rows(Q, ROWS_CHECKED)
    exact = oracle(Q, K, V, scale, rows)
    return Q, K, V, scale, rows, exact, null_errors(Q, K, V, scale, exact, rows)


def _row(
    shared: Callable, instance: str, way: str, tol: float, repeats: int, rates: subquad.Rates
) -> dict:
    """Return one way's parameters, bound, error, and its cost by count and by the clock."""
    Q, K, V, scale, rows, exact, null = shared()
    method = ways()[way]
    made, by_exact = (
        subquad.plan(Q, K, V, tol=tol, scale=scale, method=m, rates=rates)
        for m in (method, "exact")
    )
    chosen, beside = made.heads[0].chosen, by_exact.heads[0].chosen
    blank = dict.fromkeys(
        ("parameters", "buckets", "bound", "measured", "gain_by_count", "seconds", "exact_seconds")
    )
    start = {**blank, "instance": instance, "way": way, "real": instance in HEADS, **null}
    if chosen is None or beside is None:
        return start
    result = made.run(Q, K, V)
    calls = {"ours": partial(made.run, Q, K, V), "exact": partial(by_exact.run, Q, K, V)}
    seconds = interleaved(calls, repeats, warm_up=0)
    return {
        **start, "parameters": str(chosen.parameters), "bound": result.certificate.bound,
        "measured": errors(result.output[rows], exact, V)["measured"],
        "buckets": sum(bool(b.cells) for b in getattr(chosen.parameters, "buckets", ())),
        "gain_by_count": beside.work.flops / chosen.work.flops,
        "seconds": seconds["ours"], "exact_seconds": seconds["exact"],
    }  # fmt: skip


def verdict(rows: list[dict]) -> dict:
    """Return, by instance, the gain over exact by count of each way, and over the best single."""
    found: dict[str, dict] = {}
    for row in rows:
        if row["gain_by_count"] is not None:
            found.setdefault(row["instance"], {})[row["way"]] = row["gain_by_count"]
    return {
        instance: {
            "gains": gains,
            "several_over_single": _over(gains, "any number, norm", "single, norm"),
            "norm_over_entry": _over(gains, "any number, norm", "any number, entry"),
        }
        for instance, gains in found.items()
    }


def _over(gains: dict[str, float], one: str, other: str) -> float | None:
    return gains[one] / gains[other] if one in gains and other in gains else None


HEADER = ("instance", "way", "bound", "measured", "mean(V)", "first order", "exact/it, count",
          "exact/it, time", "parameters")  # fmt: skip


def table_rows(record: dict) -> list[list]:
    """Return one line per row under HEADER: errors in value_radius, then how many times cheaper."""
    return [
        [r["instance"], r["way"], r["bound"], r["measured"],
         r["mean_v"]["measured"], r["first_order"]["measured"], r["gain_by_count"],
         None if r["seconds"] is None else r["exact_seconds"] / r["seconds"], r["parameters"]]
        for r in record["rows"]
    ]  # fmt: skip
