"""Figures of the entries of Q and K: their tails beside what a sub-Gaussian law allows."""

from __future__ import annotations

import math
from typing import Any

from .figures import (
    INK,
    ORANGE,
    PURPLE,
    SMALL,
    Chart,
    dots,
    figure,
    intervals,
    legend,
    plain_numbers,
    short,
)

COLOURS = {"Q": PURPLE, "K": ORANGE}
MARKS = {"smallest": ("o", "head of the smallest logits"), "median": ("s", "of the median logits")}
PER_ROW = 4
REACH = (6.0, 10.0)
"""How many sigma a panel shows of real heads, and of heavy tails."""


def tails(record: dict) -> Chart:
    """Return the tails of Q and K, a panel a layer, beside the fitted sub-Gaussian curves."""
    from ..questions.entry_statistics import group

    panels: dict[str, list[dict]] = {}
    for row in record["rows"]:
        panels.setdefault(group(row), []).append(row)
    height = 2.6 * math.ceil(len(panels) / PER_ROW)
    with figure("entries", PER_ROW, 1.2 + height, -(-len(panels) // PER_ROW), sharey=True) as drawn:
        places = list(drawn["grid"].flat)
        for axes, (name, rows) in zip(places, panels.items(), strict=False):
            _panel(axes, rows)
            axes.set_title(name, fontsize=SMALL)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        for axes in drawn["grid"][:, 0]:
            axes.set_ylabel("share with |x| > t")
        legend(drawn, 3)
    return drawn["svg"], (
        "Entries less their column's mean; sigma is the root of their variance. Bars are 95 % "
        "intervals of the observed share; no mark where no entry is so large. Dashed: 2 exp(-t^2 "
        "/ (2 proxy)), the proxy fitted to the sample, the larger one of a layer's heads. A tail "
        "that is heavier than normal is above the black line."
    )


def sub_gaussian(t: float, proxy: float) -> float:
    """Return what a sub-Gaussian law of this variance proxy allows at most of |x| > t."""
    return min(1.0, 2.0 * math.exp(-(t**2) / (2.0 * proxy)))


def _panel(axes: Any, rows: list[dict]) -> None:
    """Draw the observed shares of some heads, the normal tail, and a fitted curve a matrix."""
    for row in rows:
        _observed(axes, row)
    reach = REACH[any(row["proxy_over_variance"]["value"] > 4.0 for row in rows)]
    grid = [reach * i / 100 for i in range(1, 101)]
    normal = [math.erfc(t / math.sqrt(2.0)) for t in grid]
    axes.plot(grid, normal, color=INK, linewidth=1.2, label="normal, the same variance")
    for matrix, colour in COLOURS.items():
        proxy = [r["proxy_over_variance"]["value"] for r in rows if r["matrix"] == matrix]
        allowed = [sub_gaussian(t, max(proxy)) for t in grid]
        label = f"{matrix}, fitted sub-Gaussian curve"
        axes.plot(grid, allowed, "--", color=colour, linewidth=1.2, label=label)
    axes.set(yscale="log", ylim=(1e-5, 1.5), xlim=(0.0, reach), xlabel="t / sigma")


def _observed(axes: Any, row: dict) -> None:
    """Draw the shares of one matrix above each threshold, with their intervals."""
    tail, matrix = row["tail"], row["matrix"]
    kind = row["instance"].rsplit("-", 1)[-1]
    mark, label = MARKS.get(kind, ("D", "of a control"))
    found = [
        (t / row["sigma"], x, max(0.0, x - low), max(0.0, high - x))
        for t, x, low, high in zip(
            tail["thresholds"], tail["observed"], tail["low"], tail["high"], strict=True
        )
        if x > 0.0
    ]
    sigmas, shares, *reach = zip(*found, strict=True)
    axes.errorbar(
        sigmas,
        shares,
        reach,
        fmt=mark,
        color=COLOURS[matrix],
        markerfacecolor="none",
        markersize=3.5,
        elinewidth=0.9,
        label=f"{matrix}, {label}",
    )


def figures_by_head(record: dict) -> Chart:
    """Return excess kurtosis and variance proxy of Q and K by head, with their intervals."""
    names = list(dict.fromkeys(row["instance"] for row in record["rows"]))
    with figure("entry-figures", 2, 1.7 + 0.3 * len(names), sharey=True) as drawn:
        for axes, key in zip(drawn["axes"], ("kurtosis", "proxy_over_variance"), strict=True):
            for matrix, mark, colour, shift in (
                ("Q", "o", PURPLE, -0.15),
                ("K", "s", ORANGE, 0.15),
            ):
                rows = [row for row in record["rows"] if row["matrix"] == matrix]
                places = [place + shift for place in range(len(rows))]
                found = [(row[key]["low"], row[key]["value"], row[key]["high"]) for row in rows]
                intervals(axes, places, found, mark, colour, f"{matrix}, with its 95 % interval")
        kurtosis, proxy = drawn["axes"]
        dots(kurtosis, [short(name) for name in names], ())
        kurtosis.axvline(0.0, color=INK, linewidth=1, label="normal entries")
        kurtosis.set(xscale="symlog", xlabel="excess kurtosis")
        proxy.axvline(1.0, color=INK, linewidth=1, label="normal entries")
        proxy.set(xscale="log", xlabel="variance proxy / variance")
        plain_numbers(proxy.xaxis)
        legend(drawn)
    return drawn["svg"], (
        "Left: 0 for normal entries, above it for heavier tails. Right: by how much a sub-Gaussian "
        "parameter must exceed the variance to cover the tails of the sample."
    )
