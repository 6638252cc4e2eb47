"""What the cells of `cost_model` come to: right choices, regret, how far predictions are off.

A choice is strictly right where its regret is at most SAME. But two methods often do the same
work: one bucket of `multi_threshold`, `support_basis` without a large row and `polynomial` differ
by gathering rows; and the same call, repeated, differs by 10-30 % between the phases of a shared
host. Where regret is at most NEAR nothing that a user could notice was lost, so those cells are
counted too, beside the strict ones and never in place of them, with the quantiles of the regret.
"""

from __future__ import annotations

import math
import statistics

import numpy as np

from ..harness.finding import Finding, graded
from .writing import number

SAME, NEAR = 1.05, 1.1
"""Regret up to which a choice is right: strictly, and within what repeated calls differ by."""
QUANTILES = (75, 90, 95)


def tally(rows: list[dict]) -> dict:
    """Return how many cells were chosen right, the regrets, and how far predictions were off."""
    left_out = sum(row["regret"] is None for row in rows)
    rows = [row for row in rows if row["regret"] is not None]
    regrets = [row["regret"] for row in rows]
    off: dict[str, list[float]] = {}
    for row in rows:
        for name, seconds in row["seconds"].items():
            off.setdefault(name, []).append(row["predicted"][name] / seconds)
    every = [x for ratios in off.values() for x in ratios]
    pace = statistics.median(every)
    return {
        "cells": len(rows),
        "left_out": left_out,
        "right": sum(regret <= SAME for regret in regrets),
        "nearly_right": sum(regret <= NEAR for regret in regrets),
        "regret": {
            "median": statistics.median(regrets),
            "worst": max(regrets),
            **{f"{q} %": float(np.percentile(regrets, q)) for q in QUANTILES},
        },
        "within_1.5": _within(every),
        "pace": pace,
        "within_1.5_apart_from_pace": _within([x / pace for x in every]),
        "predicted_over_measured": {
            name: {
                "runs": len(x),
                "within_1.5": _within(x),
                "least": min(x),
                "median": statistics.median(x),
                "most": max(x),
            }
            for name, x in off.items()
        },
    }


def _within(ratios: list[float]) -> float:
    return sum(abs(math.log(x)) <= math.log(1.5) for x in ratios) / len(ratios)


HEADER = ("n", "d", "B", "chosen", "predicted s", "measured s", "fastest", "its s", "regret")


def table_rows(record: dict) -> list[list]:
    """Return the cells as a table under HEADER."""
    table = []
    for r in (row for row in record["rows"] if row["regret"] is not None):
        fastest = min(r["seconds"], key=lambda name: r["seconds"][name])
        table.append(
            [
                r["n"],
                r["d"],
                r["beta"],
                r["chosen"],
                r["predicted"][r["chosen"]],
                r["seconds"][r["chosen"]],
                fastest,
                r["seconds"][fastest],
                r["regret"],
            ]
        )
    return table


def findings(record: dict) -> list[Finding]:
    """Return whether the plan picks the fastest, and how far its seconds are off."""
    d = record["derived"]
    share = d["right"] / d["cells"]
    return [
        Finding(
            "fastest picked",
            graded(share >= 0.95, share < 0.5),
            "The plan picks the fastest certified method in 95 % of the cells.",
            f"In {d['right']} of {d['cells']} within 5 %, in {d['nearly_right']} within 10 %; "
            f"the one chosen takes {number(d['regret']['worst'])} times as long at worst.",
        ),
        Finding(
            "seconds predicted",
            graded(d["within_1.5"] == 1.0, d["within_1.5"] < 0.5),
            "Predicted seconds are within a factor of 1.5 of the measured ones.",
            f"{100 * d['within_1.5']:.0f} % of the runs. In the median predictions are "
            f"{number(d['pace'])} times the measured seconds, as the host's pace was while it was "
            f"measured; apart from this one factor {100 * d['within_1.5_apart_from_pace']:.0f} % "
            f"are. A calibration takes {number(d['calibration'])} s.",
        ),
    ]
