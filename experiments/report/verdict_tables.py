"""What the rows of `verdict` come to: wins and limits over all heads, and the tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from subquad.bounds.softmax import ratio_bound_inverse
from subquad.cost.rates import Work
from subquad.exp_poly.degree import reachable_logit_bound
from subquad.features import feature_dimension
from subquad.methods.polynomial.sums import LOGIT_BOUND_MIN

WIN = 1.05
"""How many times cheaper than exact counts as a win."""


def tally(rows: list[dict]) -> dict:
    """Return wins and best gains by tolerance and length, and what limits the heads."""
    return {
        "wins": {
            f"{tol:g}": {
                n: _wins([r for r in rows if r["tol"] == tol], n) for n in rows[0]["by_count"]
            }
            for tol in dict.fromkeys(r["tol"] for r in rows)
        },
        "sound": sum(r["run"]["sound"] for r in rows),
        "runs": len(rows),
        "keys_worth": {
            g: _keys_worth(rows[0]["d"], int(g)) for g in rows[0]["limits"]["exact_share"]
        },
        "limits": {
            f"{tol:g}": _limits_of([r for r in rows if r["tol"] == tol])
            for tol in dict.fromkeys(r["tol"] for r in rows)
        },
    }


def _keys_worth(d: int, degree: int) -> float:
    """Return how many exact pairs cost as many operations as a row's features in both passes."""
    work = Work(1.0, 2.0 * feature_dimension(d, degree), 0.0, d, d, "float32")
    pair = replace(work, feature_tokens=0.0).flops
    return (work.flops - pair) / pair


def _wins(rows: list[dict], n: str) -> dict:
    return {
        by: _tallied([(r[by][n]["gain"], r["head"], r[by][n]["method"]) for r in rows])
        for by in ("by_count", "by_rates")
    }


def _tallied(found: Iterable[tuple[float, str, str]]) -> dict:
    found = sorted(found, reverse=True)
    gain, head, method = found[0]
    return {
        "heads": len(found),
        "wins": sum(g > WIN for g, _, _ in found),
        "twice": sum(g > 2.0 for g, _, _ in found),
        "median": float(np.median([g for g, _, _ in found])),
        "best": gain,
        "head": head,
        "method": method,
    }


def _limits_of(rows: list[dict]) -> dict:
    """Return medians over the heads of their logits, degrees, and rows left to exact."""

    def median(values: Iterable[float]) -> float:
        return float(np.median(list(values)))

    return {
        "logit_bound": median(r["logit_bound"] for r in rows),
        "largest_logit": median(r["largest_logit"] for r in rows),
        "degree": median(r["limits"]["degree"] or np.inf for r in rows),
        "reach": {
            d: reachable_logit_bound(int(d), ratio_bound_inverse(rows[0]["tol"]), LOGIT_BOUND_MIN)
            for d in rows[0]["limits"]["exact_share"]
        },
        "exact_share": {
            d: median(r["limits"]["exact_share"][d] for r in rows)
            for d in rows[0]["limits"]["exact_share"]
        },
        "ratio": median(r["run"]["ratio"] for r in rows if r["run"]["ratio"] is not None),
    }


HEADER = (
    "head",
    "tol",
    "logit bound",
    "cheapest at 1M",
    "exact/it 4k",
    "64k",
    "1M",
    "by seconds, 1M",
    "rows exact",
    "bound",
    "measured",
    "ratio",
    "mean(V)",
    "first order",
)


def table_rows(record: dict) -> list[list]:
    """Return one line per head and tolerance under HEADER: gains by count, then by fixed rates."""
    return [
        [
            r["head"],
            r["tol"],
            r["logit_bound"],
            _words(last),
            *(x["gain"] for x in by_count),
            list(r["by_rates"].values())[-1]["gain"],
            *(r["run"][k] for k in ("rows_exact", "bound", "measured", "ratio")),
            r["mean_v"]["measured"],
            r["first_order"]["measured"],
        ]
        for r in record["rows"]
        for by_count in [list(r["by_count"].values())]
        for last in [by_count[-1]]
    ]


def _words(entry: dict) -> str:
    return f"{entry['method']} ({entry['parameters']})"


SUMMARY_HEADER = (
    "tol",
    "n",
    "heads ahead, by count",
    "by seconds",
    "twice ahead",
    "best gain, by count",
    "by seconds",
    "best head and its method",
)


def summary_rows(record: dict) -> list[list]:
    """Return one line per tolerance and length under SUMMARY_HEADER."""
    return [
        [
            tol,
            int(n),
            c["wins"],
            s["wins"],
            c["twice"],
            c["best"],
            s["best"],
            f"{c['head']}, {c['method']}" if c["wins"] else "",
        ]
        for tol, by_length in record["derived"]["wins"].items()
        for n, found in by_length.items()
        for c, s in [(found["by_count"], found["by_rates"])]
    ]


def beside(fresh: dict, kept: dict) -> str:
    """Return in words how many gains of a verdict made anew are those of the kept one."""
    same, both = agreement(fresh, kept)
    return f"{same} of {both} gains are within 1 % of those of the longer run."


def agreement(fresh: dict, kept: dict) -> tuple[int, int]:
    """Return how many gains of a verdict made anew are those of the kept one, and of how many."""

    def gains(record: dict) -> dict[tuple, float]:
        return {
            (same_head(row["head"]), row["tol"], n, by): entry["gain"]
            for row in record["rows"]
            for by in ("by_count", "by_rates")
            for n, entry in row[by].items()
        }

    before = gains(kept)
    both = [(gain, before[key]) for key, gain in gains(fresh).items() if key in before]
    return sum(abs(a - b) <= 0.01 * b for a, b in both), len(both)


def same_head(name: str) -> str:
    """Return layer and head of a name, without why it was shipped."""
    return "-".join(name.split("-")[:3])
