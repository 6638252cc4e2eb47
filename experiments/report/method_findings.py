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
    return Finding(
        "several thresholds",
        graded(len(gained) == len(over), not gained),
        "Several thresholds are cheaper than one, by count.",
        f"By more than 5 % on {len(gained)} of {len(over)} instances, most on {best}: "
        f"{number(over[best])} times.{_timed(by_name)}",
    )


def _timed(by_name: dict) -> str:
    """Return how often several thresholds were faster than exact, empty where nothing was timed."""
    gains = [
        d["faster_than_exact"]["any number, norm"]
        for d in by_name.values()
        if d.get("faster_than_exact")
    ]
    ahead = sum(gain > 1.0 for gain in gains)
    said = f" Measured, several are faster than exact on {ahead} of {len(gains)}."
    return said if gains else ""


def _norm_against_entry(record: dict) -> Finding:
    """Return whether thresholds on norms are cheaper than the paper's on entries."""
    over = {name: d["norm_over_entry"] for name, d in record["derived"].items()}
    ahead = [name for name, ratio in over.items() if ratio > 1.05]
    least, most = min(over, key=lambda name: over[name]), max(over, key=lambda name: over[name])
    return Finding(
        "norm against entry",
        graded(len(ahead) == len(over), not ahead),
        "Thresholds on norms are cheaper than the paper's on entries, by count.",
        f"On {len(ahead)} of {len(over)} instances, by {number(over[least])} times on {least} to "
        f"{number(over[most])} on {most}.",
    )


def _fitted_bounds(record: dict) -> Finding:
    """Return whether every fitted bound held, and how much smaller it is."""
    d = record["derived"]
    smaller = d["a_priori_over_fitted"]
    sound = d["sound"] == d["runs"]
    return Finding(
        "fitted bounds",
        graded(sound and all(x["least"] > 1.0 for x in smaller.values()), not sound),
        "A bound fitted to the data holds, and is smaller than the one proved before the run.",
        f"{d['sound']} of {d['runs']} runs with every row below its bound. In the worst row it is "
        f"{number(min(x['least'] for x in smaller.values()))} to "
        f"{number(max(x['most'] for x in smaller.values()))} times smaller; in the median row "
        f"{number(d['fitted_over_measured'])} times the measured error (median of the runs).",
    )


def _bridge(record: dict) -> Finding:
    """Return whether sums of polynomial attentions come nearer than a single one."""
    found = record["derived"]["by_instance"]
    beaten = {name: d for name, d in found.items() if d["gain"]["2"] and d["gain"]["2"] > 1.0}
    fewest = sorted(d["fewest_terms"] for d in beaten.values())
    terms = f"It takes {fewest[len(fewest) // 2]} terms in the median. " if fewest else ""
    return Finding(
        "sums of polynomials",
        graded(len(beaten) == len(found), not beaten),
        "A sum of polynomial attentions comes nearer to softmax than the best single (q.k + t)^p.",
        f"In l2 on {len(beaten)} of {len(found)} instances, by as much as the chart has. {terms}"
        "Nothing is proved here.",
    )


def _real_heads(record: dict) -> Finding:
    """Return on how many heads something beats exact, at which tolerance and length."""
    d, s = record["derived"], record["settings"]
    counts = [by_length[n]["by_count"] for by_length in d["wins"].values() for n in by_length]
    wins = [c["wins"] for c in counts]
    best = max(c["best"] for c in counts)
    return Finding(
        "cheaper on real heads",
        graded(all(c["wins"] == c["heads"] for c in counts), all(c["wins"] == 0 for c in counts)),
        "On real heads a certified method costs less than exact, rows replicated to length n.",
        f"Of {s['heads']} heads ({s['which heads']}), by count of operations: {min(wins)} to "
        f"{max(wins)} by tolerance and length, at best {number(best)} times cheaper. "
        f"{d['sound']} of {d['runs']} runs at the heads' own length have every row below its "
        "bound.",
    )


def _what_limits(record: dict) -> Finding:
    """Return what stands between the heads and a cheap polynomial, in medians over the heads."""
    d = record["derived"]
    tol, own = next(iter(d["limits"].items()))
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
        f"needs degree {own['degree']:.0f}. By the cost of their features, at n = {longest:,} the "
        f"highest of degrees {', '.join(d['keys_worth'])} that may pay is "
        f"{paid[-1] if paid else 'none'}.",
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
