"""Is the cost model right: each certified method's seconds against its prediction, on a grid.

Every cell is one head of `bounded(beta)`; each method that certifies is run by name, unless it is
predicted to take over 20 s, or over ten times as long as the one chosen. Exact is timed on a
share of the rows where there are many. The regret of a cell is the time of the chosen method over
that of the fastest one timed.

A choice is strictly right where its regret is at most SAME. But two methods often do the same
work: one bucket of `multi_threshold`, `support_basis` without a large row and `polynomial` differ
by gathering rows; and the same call, repeated, differs by 10-30 % between the phases of a shared
host. Where regret is at most NEAR nothing that a user could notice was lost, so those cells are
counted too, beside the strict ones and never in place of them, with the quantiles of the regret.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import subquad
from experiments import instances
from experiments.finding import Finding, graded
from experiments.store import Experiment
from experiments.timing import spread
from experiments.writing import number
from subquad.methods.method import Refusal

QUESTION = "Does the plan predict the seconds of each method, and pick the fastest?"
SEED = 0
LENGTHS = (1024, 4096, 16_384, 65_536, 262_144)
DIMENSIONS, BETAS = (8, 16, 32, 64), (0.2, 0.5, 1, 2)
LONGEST, HOPELESS = 20.0, 10.0
"""Seconds predicted above which nothing is run; and times the chosen one's."""
EXACT_ROWS = 4096
SAME, NEAR = 1.05, 1.1
"""Regret up to which a choice is right: strictly, and within what repeated calls differ by."""


def experiment(
    quick: bool = False, *, lengths: tuple[int, ...] | None = None,
    dimensions: tuple[int, ...] = DIMENSIONS, betas: tuple[float, ...] = BETAS, tol: float = 1e-2,
    repeats: int = 2,
) -> Experiment:  # fmt: skip
    """Return the experiment: one row per cell of the grid."""
    lengths = lengths or (LENGTHS[:3] if quick else LENGTHS)
    cases = {
        f"n = {n}, d = {d}, B = {beta}": partial(_row, n, d, beta, tol, repeats)
        for n in lengths for d in dimensions for beta in betas
    }  # fmt: skip
    settings = {
        "seed": SEED, "dtype": "float32", "tol": tol, "lengths": lengths, "repeats": repeats,
        "dimensions": dimensions, "betas": betas, "longest": LONGEST, "hopeless": HOPELESS,
        "exact rows": EXACT_ROWS, "same": SAME, "near": NEAR, "oracle": "none: times alone",
    }  # fmt: skip
    return Experiment("cost_model", QUESTION, settings, cases, tally)


def _row(n: int, d: int, beta: float, tol: float, repeats: int, rates) -> dict:
    """Return predicted and measured seconds of every certified method on one head."""
    Q, K, V, scale = instances.bounded(n, d, beta=beta, seed=SEED, dtype=np.float32)
    options = {"tol": tol, "scale": scale, "rates": rates}
    head = subquad.plan(Q, K, V, **options).heads[0]
    assert head.chosen is not None
    limit = min(LONGEST, HOPELESS * head.seconds(head.chosen))
    predicted = {
        o.method.name: head.seconds(o) for o in head.options
        if not isinstance(o, Refusal) and o.bound <= tol
    }
    calls: dict[str, Callable[[], Any]] = {}
    shares = dict.fromkeys(predicted, 1.0)
    for name, seconds in predicted.items():
        if not seconds <= limit:
            continue
        rows = Q
        if name == "exact" and n > 2 * EXACT_ROWS:
            rows, shares[name] = Q[:EXACT_ROWS], n / EXACT_ROWS
        made = subquad.plan(rows, K, V, method=name, **options)
        calls[name] = partial(made.run, rows, K, V)
        calls[name]()
    times = {k: shares[k] * x["least"] for k, x in spread(calls, repeats).items()}
    return {
        "n": n, "d": d, "beta": beta, "chosen": head.chosen.method.name, "predicted": predicted,
        "parameters": str(head.chosen.parameters), "seconds": times,
        "regret": times[head.chosen.method.name] / min(times.values()),
    }  # fmt: skip


def tally(rows: list[dict]) -> dict:
    """Return how many cells were chosen right, the regrets, and how far predictions were off."""
    off: dict[str, list[float]] = {}
    for row in rows:
        for name, seconds in row["seconds"].items():
            off.setdefault(name, []).append(row["predicted"][name] / seconds)
    regrets = [row["regret"] for row in rows]
    every = [x for ratios in off.values() for x in ratios]
    return {
        "cells": len(rows), "right": sum(regret <= SAME for regret in regrets),
        "nearly_right": sum(regret <= NEAR for regret in regrets),
        "regret": {"median": statistics.median(regrets), "worst": max(regrets),
                   **{f"{q} %": float(np.percentile(regrets, q)) for q in QUANTILES}},
        "within_1.5": sum(abs(math.log(x)) <= math.log(1.5) for x in every) / len(every),
        "predicted_over_measured": {
            name: {"least": min(x), "median": statistics.median(x), "most": max(x)}
            for name, x in off.items()
        },
    }  # fmt: skip


QUANTILES = (75, 90, 95)

HEADER = ("n", "d", "B", "chosen", "predicted s", "measured s", "fastest", "its s", "regret")


def table_rows(record: dict) -> list[list]:
    """Return the cells as a table under HEADER."""
    table = []
    for r in record["rows"]:
        fastest = min(r["seconds"], key=lambda name: r["seconds"][name])
        table.append([
            r["n"], r["d"], r["beta"], r["chosen"], r["predicted"][r["chosen"]],
            r["seconds"][r["chosen"]], fastest, r["seconds"][fastest], r["regret"],
        ])  # fmt: skip
    return table


def findings(record: dict) -> list[Finding]:
    """Return whether the plan picks the fastest, and how far its seconds are off."""
    d = record["derived"]
    share = d["right"] / d["cells"]
    return [
        Finding(
            graded(share >= 0.95, share < 0.5),
            "The plan picks the fastest certified method in 95 % of the cells.",
            f"In {d['right']} of {d['cells']} within 5 %, in {d['nearly_right']} within 10 %; "
            f"regret {number(d['regret']['median'])} in the median, "
            f"{number(d['regret']['90 %'])} and {number(d['regret']['95 %'])} at the quantiles of "
            f"90 % and 95 %, "
            f"{number(d['regret']['worst'])} at worst.",
        ),
        Finding(
            graded(d["within_1.5"] == 1.0, d["within_1.5"] < 0.5),
            "Predicted seconds are within a factor of 1.5 of the measured ones.",
            f"{100 * d['within_1.5']:.0f} % of the runs; " + ", ".join(
                f"{name} {number(x['least'])} to {number(x['most'])} times"
                for name, x in d["predicted_over_measured"].items()
            ) + ".",
        ),
    ]  # fmt: skip
