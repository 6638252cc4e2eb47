"""Findings of the experiments on methods: thresholds, certificates, the bridge, the verdict."""

from __future__ import annotations

from ..harness.finding import Finding, graded
from .writing import number


def _several_thresholds(record: dict) -> Finding:
    """Return whether several thresholds are cheaper than one, by count."""
    by_name = record["derived"]
    over = {name: d["several_over_single"] for name, d in by_name.items()}
    gained = [name for name, ratio in over.items() if ratio > 1.05]
    best = max(over, key=lambda name: over[name])
    ways = "; ".join(
        f"{name}: {number(d['gains']['any number, norm'])} times cheaper than exact, with one "
        f"threshold {number(d['gains']['single, norm'])}"
        for name, d in by_name.items()
    )
    return Finding(
        "several thresholds",
        graded(len(gained) == len(over), not gained),
        "Several thresholds are cheaper than one, by count.",
        f"By more than 5 % on {len(gained)} of {len(over)} instances, most on {best}: "
        f"{number(over[best])} times. {ways}. Real heads are counted at rows replicated to "
        f"{record['settings']['real heads counted at n']:,}.{_timed(by_name)}",
    )


def _timed(by_name: dict) -> str:
    """Return the measured speed-ups over exact, empty where nothing was timed."""
    told = ""
    for key, said in (
        ("faster_than_exact", "Measured, times faster than exact"),
        ("faster_compiled", "With passes compiled by numba"),
    ):
        found = ", ".join(
            f"{name} {number(d[key]['any number, norm'])} (one threshold "
            f"{number(d[key]['single, norm'])})"
            for name, d in by_name.items()
            if d.get(key)
        )
        told += f" {said}: {found}." if found else ""
    return told


def _norm_against_entry(record: dict) -> Finding:
    """Return whether thresholds on norms are cheaper than the paper's on entries."""
    over = {name: d["norm_over_entry"] for name, d in record["derived"].items()}
    ahead = [name for name, ratio in over.items() if ratio > 1.05]
    ratios = ", ".join(f"{name} {number(ratio)}" for name, ratio in over.items())
    return Finding(
        "norm against entry",
        graded(len(ahead) == len(over), not ahead),
        "Thresholds on norms are cheaper than the paper's on entries, by count.",
        f"On {len(ahead)} of {len(over)} instances. Times cheaper: {ratios}.",
    )


def _fitted_bounds(record: dict) -> Finding:
    """Return whether every fitted bound held, and how much smaller it is."""
    d = record["derived"]
    smaller = d["a_priori_over_fitted"]
    gains = "; ".join(
        f"{name} {number(x['median'])} ({number(x['least'])} to {number(x['most'])})"
        for name, x in smaller.items()
    )
    sound = d["sound"] == d["runs"]
    return Finding(
        "fitted bounds",
        graded(sound and all(x["least"] > 1.0 for x in smaller.values()), not sound),
        "A bound fitted to the data holds, and is smaller than the one proved before the run.",
        f"{d['sound']} of {d['runs']} runs with every row below its bound. Times smaller in the "
        f"worst row, median and range over the instances: {gains}. In the median row the fitted "
        f"bound is {number(d['fitted_over_measured'])} times the measured error (median of the "
        "runs).",
    )


def _bridge(record: dict) -> Finding:
    """Return whether sums of polynomial attentions come nearer than a single one."""
    found = record["derived"]["by_instance"]
    beaten = {name: d for name, d in found.items() if d["gain"]["2"] and d["gain"]["2"] > 1.0}
    fewest = sorted(d["fewest_terms"] for d in beaten.values())
    told = "; ".join(
        f"l{p.replace('inf', '_inf')} {number(x[len(x) // 2])} ({number(x[0])} to {number(x[-1])})"
        for p in ("1", "2", "inf")
        for x in [sorted(d["gain"][p] or 0.0 for d in found.values())]
    )
    terms = f"in l2 from {fewest[len(fewest) // 2]} terms on in the median; " if fewest else ""
    return Finding(
        "sums of polynomials",
        graded(len(beaten) == len(found), not beaten),
        "A sum of polynomial attentions comes nearer to softmax than the best single (q.k + t)^p.",
        f"On {len(beaten)} of {len(found)} instances, {terms}times smaller the error of the "
        f"weights with the best of all sums tried, median and range: {told}. Measured on the full "
        "matrix of weights; nothing is proved here.",
    )


def _real_heads(record: dict) -> Finding:
    """Return on how many heads something beats exact, at which tolerance and length."""
    d, s = record["derived"], record["settings"]
    counts = [by_length[n]["by_count"] for by_length in d["wins"].values() for n in by_length]
    told = "; ".join(
        f"tol {tol}: "
        + ", ".join(
            f"{x['by_count']['wins']} at n = {int(n):,}"
            + (f" (at best {number(x['by_count']['best'])} times)" if x["by_count"]["wins"] else "")
            for n, x in by_length.items()
        )
        for tol, by_length in d["wins"].items()
    )
    return Finding(
        "cheaper on real heads",
        graded(all(c["wins"] == c["heads"] for c in counts), all(c["wins"] == 0 for c in counts)),
        "On real heads a certified method costs less than exact, rows replicated to length n.",
        f"Of {s['heads']} heads ({s['which heads']}), by count of operations: {told}. "
        f"{d['sound']} of {d['runs']} runs at the heads' own length have every row below its "
        "bound.",
    )


def _what_limits(record: dict) -> Finding:
    """Return what stands between the heads and a cheap polynomial, in medians over the heads."""
    d = record["derived"]
    tol, own = next(iter(d["limits"].items()))
    listed = ", ".join(
        f"degree {g}: {number(round(keys))} keys, reach {number(own['reach'][g])}, "
        f"{number(100.0 * own['exact_share'][g])} %"
        for g, keys in d["keys_worth"].items()
    )
    longest = max(record["settings"]["lengths"])
    paid = [g for g, keys in d["keys_worth"].items() if keys < longest]
    reach = max(own["reach"].values())
    within = own["logit_bound"] <= reach
    sharper = (
        "no sharper bound would do"
        if own["largest_logit"] > reach
        else "a sharper bound would help"
    )
    return Finding(
        "logits of real heads",
        graded(within, not within),
        "The logits of real heads are within what a polynomial of low degree can take.",
        f"At tol {tol} the median head has logit bound {number(own['logit_bound'])} and logits as "
        f"large as {number(own['largest_logit'])}: {sharper}, and one polynomial for all rows "
        f"needs degree {own['degree']:.0f}. What a row's features cost in exact keys, the largest "
        f"logit they certify before the run, and the rows (median head) that even a polynomial "
        f"fitted to the data leaves to exact: {listed}. So at n = {longest:,} the "
        f"highest of these degrees that may pay is {paid[-1] if paid else 'none'}.",
    )


def of_thresholds(record: dict) -> list[Finding]:
    """Return the findings of `thresholds`."""
    return [_several_thresholds(record), _norm_against_entry(record)]


def of_certificates(record: dict) -> list[Finding]:
    """Return the finding of `certificates`."""
    return [_fitted_bounds(record)]


def of_bridge(record: dict) -> list[Finding]:
    """Return the finding of `bridge`."""
    return [_bridge(record)]


def of_verdict(record: dict) -> list[Finding]:
    """Return the findings of `verdict`."""
    return [_real_heads(record), _what_limits(record)]
