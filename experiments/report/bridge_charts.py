"""Figures of the bridge: softmax as a sum of polynomial attentions."""

from __future__ import annotations

from typing import Any

from .figures import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    TEAL,
    Chart,
    dots,
    figure,
    legend,
    plain_numbers,
    short,
)

NORMS = {"1": "l1", "2": "l2", "inf": "l_inf"}
LINES = (("^", "-", BLUE), ("o", "--", ORANGE), ("s", ":", PURPLE))
ZERO = 0.5
"""Where 0 terms stand on the logarithmic axis."""


def gains(record: dict) -> Chart:
    """Return by instance and norm how many times nearer the best sum comes than a single one."""
    found = record["derived"]["by_instance"]
    with figure("bridge-gains", 1, 1.6 + 0.26 * len(found)) as drawn:
        axes = drawn["axes"][0]
        dots(
            axes,
            [short(name) for name in found],
            [
                ([d["gain"][p] for d in found.values()], mark, colour, label)
                for (p, label), mark, colour in zip(
                    NORMS.items(), "^os", (BLUE, TEAL, ORANGE), strict=True
                )
            ],
        )
        axes.axvline(1.0, color=INK, linewidth=1, label="no nearer")
        axes.set(xscale="log", xlabel="error of the best single one / of the best sum, weights")
        plain_numbers(axes.xaxis)
        legend(drawn)
    return drawn["svg"], "How many times smaller the error of the weights is, in three norms."


def bridge(record: dict) -> Chart:
    """Return errors of weights and output in l1, l2, l_inf against terms, on three instances."""
    names = bridge_instances(record)
    with figure("bridge", 3, 5.8, rows=2, sharex=True, sharey="row") as drawn:
        for axes, part, p in (
            (drawn["grid"][i, j], part, p)
            for i, part in enumerate(("weights", "output"))
            for j, p in enumerate(NORMS)
        ):
            for name, style in zip(names, LINES, strict=False):
                rows = [r for r in record["rows"] if r["instance"] == name]
                _lines(axes, rows, part, p, style, short(name))
            axes.set(xscale="log", yscale="log")
            axes.set_title(f"{part}, {NORMS[p]}", fontsize=10)
            axes.set_xticks([ZERO, 1, 10, 100], ["0", "1", "10", "100"])
            axes.set_xticks([], minor=True)
        for axes in drawn["grid"][1]:
            axes.set_xlabel("polynomial attentions")
        drawn["grid"][0, 0].set_ylabel("relative to the weights")
        drawn["grid"][1, 0].set_ylabel("in value_radius")
        legend(drawn, 4)
    return drawn["svg"], (
        "Lines: the least error of any sum with at most so many terms. Hollow, at 1: the best "
        "single (q.k + t)^p, p in 2, 4, 8, t fitted. Grey, at 0: mean(V), and first order where it "
        "has an output; each mark has the shape of its instance's line."
    )


def bridge_instances(record: dict) -> list[str]:
    """Return the three instances drawn: independent entries, heavy tails, the first real head."""
    names = list(dict.fromkeys(row["instance"] for row in record["rows"]))
    real = [n for n in names if n.startswith("minilm")]
    return [n for n in ("subgaussian(1)", "heavy_tail") if n in names] + real[:1]


def _lines(
    axes: Any, rows: list[dict], part: str, p: str, style: tuple[str, str, str], label: str
) -> None:
    mark, line, colour = style
    least: list[tuple[int, float]] = []
    for terms, error in sorted((x["terms"], x[part][p]) for r in rows for x in r["sums"]):
        if not least or error < least[-1][1]:
            least.append((terms, error))
    axes.step(
        *zip(*least, strict=True),
        line,
        where="post",
        marker=mark,
        color=colour,
        markersize=4,
        linewidth=1.2,
        label=f"sum, {label}",
    )
    alone = [(1.0, min(x[part][p] for x in rows[0]["powers"]), colour, "none", "single")]
    alone += [(ZERO, rows[0]["uniform"][part][p], GREY, GREY, "mean(V)")]
    if part == "output":
        alone += [(ZERO, rows[0]["first_order_output"][p], GREY, "none", "first order")]
    for place, error, edge, face, name in alone:
        axes.plot(
            [place],
            [error],
            mark,
            color=edge,
            markerfacecolor=face,
            markersize=6,
            label=f"{name}, {label}",
        )
