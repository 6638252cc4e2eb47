"""What holds and what does not, in sentences made from the numbers of a record, never by hand."""

from __future__ import annotations

import re

from ..harness.finding import FAILS, Finding, graded
from ..harness.timing import COMPILED
from .writing import number, tolerance


def of_bounds(record: dict) -> list[Finding]:
    """Return the findings of `error_vs_bound`."""
    return [_soundness(record), _real_heads(record), _triviality(record)]


def of_crossover(record: dict) -> list[Finding]:
    """Return the findings of `crossover`, one for each family."""
    return [_speed(record, family) for family in record["derived"]]


def of_sweep(record: dict) -> list[Finding]:
    """Return the finding of `error_vs_threshold`."""
    return [_sweep(record)]


def of_bench(record: dict) -> list[Finding]:
    """Return the findings of `bench`."""
    return [_bench_speed(record), _bench_outliers(record)]


def _soundness(record: dict) -> Finding:
    d = record["derived"]
    good = d["within_bound"] == d["runs"] == d["within_tol"]
    return Finding(
        "bounds hold",
        graded(good, not good),
        "Every measured error is below its proved bound, and every bound within the tolerance.",
        f"{d['within_bound']} of {d['runs']} runs below their bound, {d['within_tol']} within the "
        f"tolerance. Bounds are {number(d['median_ratio'])} times the measured error in the "
        f"median, {number(d['smallest_ratio'])} times at the tightest.",
    )


def planned(record: dict) -> list[dict]:
    """Return the rows that show a plan: one per instance."""
    return [row for row in record["rows"] if row["plan"] is not None]


def crossover_of(text: str) -> tuple[str, int, bool] | None:
    """Return (method, length, whether it holds too much memory) of a plan's crossover line."""
    found = re.match(r"(\w+) \(.*from n = ([\d,]+)", text)
    return (found[1], int(found[2].replace(",", "")), ", holding " in text) if found else None


def _real_heads(record: dict) -> Finding:
    heads = [row for row in planned(record) if row["real"]]
    fast = [row for row in heads if row["chosen"] not in (None, "exact")]
    tol = tolerance(record["settings"]["plans shown at"])
    lengths = {
        row["instance"]: found[1]
        for row in heads
        if (found := crossover_of(row["crossover"] or "")) is not None and not found[2]
    }
    nearest = min(lengths, key=lambda name: lengths[name], default=None)
    ahead = (
        f"Were the bounds to stay, another method that fits in memory would be cheaper on "
        f"{len(lengths)} of them at some length, soonest on {nearest} from n = "
        f"{lengths[nearest]:,}."
        if nearest
        else "At no length does the planner see another method win that fits in memory."
    )
    return Finding(
        "chosen on real heads",
        graded(bool(heads) and len(fast) == len(heads), not fast),
        f"On real heads at tol {tol} a method other than exact is certified and cheapest.",
        f"{len(fast)} of {len(heads)} heads; exact is chosen on {len(heads) - len(fast)}. {ahead}",
    )


def _triviality(record: dict) -> Finding:
    rows = record["rows"]
    counts = {
        real: (
            sum(r["trivial"] for r in rows if r["real"] == real),
            sum(r["real"] == real for r in rows),
        )
        for real in (False, True)
    }
    trivial = sum(count for count, _ in counts.values())
    return Finding(
        "cases are hard",
        graded(trivial == 0, trivial == len(rows)),
        "The cases are hard: answering mean(V) would not meet the tolerance.",
        f"mean(V), which looks at no query and proves nothing, is within the tolerance on "
        f"{counts[False][0]} of {counts[False][1]} synthetic cases and on {counts[True][0]} of "
        f"{counts[True][1]} with real heads; those rows are flagged trivial.",
    )


def _speed(record: dict, family: str) -> Finding:
    ways = record["derived"][family]
    ours = min(
        (name for name in ("polynomial", "support_basis") if name in ways),
        key=lambda name: -ways[name].get("times_faster_than_exact", 0.0),
        default=None,
    )
    statement = f"On `{family}` at tol {tolerance(record['settings']['tol'])} a certified "
    statement += "sub-quadratic method beats exact, and its time grows more slowly."
    if ours is None or "exact" not in ways:
        return Finding(
            f"faster on {family}", FAILS, statement, "No sub-quadratic method certifies."
        )
    fit, exact = ways[ours], ways["exact"]
    gain = fit.get("times_faster_than_exact", 0.0)
    known = fit["slope"] is not None and exact["slope"] is not None
    slower_growth = known and fit["high"] < exact["low"]
    since = f", ahead from n = {fit['faster_from']:,}" if fit.get("faster_from") else ""
    refusals = [] if "polynomial" in ways else ["`polynomial` refuses these data."]
    return Finding(
        f"faster on {family}",
        graded(gain > 1.0 and slower_growth, gain <= 1.0),
        statement,
        " ".join(
            [
                f"{ours}: {number(gain)} times the speed of exact at n = {fit['at_n']:,}{since}.",
                _growth(known, slower_growth),
                *refusals,
            ]
        ),
    )


def _growth(known: bool, slower: bool) -> str:
    if not known:
        return "The lengths are too few for exponents of n."
    told = "lies below" if slower else "does not lie below"
    return f"The 95 % interval of its exponent of n {told} that of exact."


def _sweep(record: dict) -> Finding:
    d, rows, tol = record["derived"], record["rows"], record["settings"]["tol"]
    trivial = rows[0]["mean_v"]["measured"] <= tol
    useful = d["faster_than_both"]
    return Finding(
        "published sweep",
        graded(useful == d["swept"] and not trivial, useful == 0 or trivial),
        "The published threshold sweep shows a threshold at work on a hard problem.",
        f"mean(V) alone has relative error {d['mean_v_frobenius']:.2e} there, first order "
        f"{number(d['first_order_frobenius'])}. The split is faster than both exact and no "
        f"threshold at {useful} of {d['swept']} thresholds.",
    )


def _bench_speed(record: dict) -> Finding:
    over, ways = record["derived"]["over_ours_clean"], record["rows"][0]["ways"]
    ours, s = ways["ours, clean"], record["settings"]
    peers = [
        f"{name} {number(over[name])} times that"
        for name in ("SDPA", "NumPy softmax")
        if name in over
    ]
    gain = over.get("SDPA", over["NumPy softmax"])
    against = "PyTorch's SDPA" if "SDPA" in over else "NumPy softmax (torch was not installed)"
    return Finding(
        "a tenth of the peer",
        graded(gain >= 10.0, gain <= 1.0),
        f"At n = {s['n']:,}, d = {s['d']}, a certified answer takes at most 1/10 of {against}.",
        f"{number(ours['seconds'])} s with {ours['parameters']}; {', '.join(peers)}."
        f"{_compiled(record)} Memory: {number(record['derived']['our_memory_mib'])} MiB beyond the "
        "data.",
    )


def _compiled(record: dict) -> str:
    """Return what compiled passes made of it, where numba was there."""
    name = "ours, clean" + COMPILED
    if record["derived"].get("over_ours_clean_fast") is None:
        return ""
    return f" Compiled by numba: {number(record['rows'][0]['ways'][name]['seconds'])} s."


def _bench_outliers(record: dict) -> Finding:
    d, name = record["derived"], "support_basis by norm, outliers"
    over = d["over_ours_clean"][name]
    refuses = d["polynomial_refuses_outliers"]
    entry = [p for p in record["rows"][0]["planned"] if p["parameters"].startswith("by entry")]
    told = "".join(
        f" By entry, predicted and not run: {number(p['share_of_pairs'])} of all pairs exact, "
        f"{number(p['predicted_seconds'])} s."
        for p in entry
        if "refused" not in p
    )
    return Finding(
        "outliers stay cheap",
        graded(refuses and over <= 1.5, over > 10.0),
        "With 0.1 % of rows and keys 20 times larger, support_basis stays within 1.5 times.",
        f"By norm it takes {number(over)} times the clean time; `polynomial` "
        f"{'refuses' if refuses else 'still certifies'}.{told}",
    )
