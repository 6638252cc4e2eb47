"""Figures of times: against the peers, against n, and against what a plan predicts."""

from __future__ import annotations

from typing import Any

from .figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    PAINT,
    PURPLE,
    RED,
    TEAL,
    Chart,
    dots,
    figure,
    intervals,
    legend,
    plain_numbers,
    plain_ticks,
)


def bench(record: dict) -> Chart:
    """Return the seconds of every way as bars, ours apart from the peers and the parts."""
    ways = record["rows"][0]["ways"]
    names = sorted(ways, key=lambda name: ways[name]["seconds"])
    kinds = (
        (BLUE, "ours, certified", lambda name: ways[name].get("bound") is not None),
        (RED, "peer, exact", lambda name: name in ("SDPA", "NumPy softmax")),
        (GREY, "a part of it alone", lambda name: True),
    )
    with figure("bench", 1, 1.5 + 0.32 * len(names)) as drawn:
        axes = drawn["axes"][0]
        for place, name in enumerate(names):
            colour, label = next((colour, label) for colour, label, of in kinds if of(name))
            seconds = ways[name]["seconds"]
            axes.barh([place], [seconds], color=colour, alpha=0.85, height=0.6, label=label)
            axes.text(seconds * 1.1, place, f"{seconds:.3g} s", va="center", fontsize=9)
        dots(axes, names, ())
        longest = max(way["seconds"] for way in ways.values())
        axes.set(xscale="log", xlabel="seconds, median", xlim=(None, 3.0 * longest))
        plain_numbers(axes.xaxis)
        axes.grid(axis="y", visible=False)
        legend(drawn)
    return drawn["svg"], "All ways in turns in one run, on the same data."


def bench_errors(record: dict) -> Chart:
    """Return of every certified way its bound, its measured error and those of the null models."""
    ways = {k: w for k, w in record["rows"][0]["ways"].items() if w.get("bound") is not None}
    null = [way["null"] for way in ways.values()]
    series = (
        ([way["bound"] for way in ways.values()], "^", RED, "bound, proved"),
        ([way["measured"] for way in ways.values()], "o", BLUE, "measured"),
        ([x["mean_v"]["measured"] for x in null], "s", GREY, "mean(V)"),
        ([x["first_order"]["measured"] for x in null], "D", GREY, "first order"),
    )
    with figure("bench-errors", 1, 1.5 + 0.3 * len(ways)) as drawn:
        axes = drawn["axes"][0]
        dots(axes, list(ways), series[:3])
        dots(axes, list(ways), series[3:], markerfacecolor="none")
        tol = record["settings"]["tol"]
        axes.axvline(tol, color=INK, linewidth=1, label="tolerance")
        axes.set(xscale="log", xlabel="error, in value_radius")
        legend(drawn)
    return drawn["svg"], (
        "mean(V) and first order prove nothing. Where one of them is left of the tolerance, an "
        "answer that looks at next to nothing would have done as well."
    )


def peers(record: dict) -> Chart:
    """Return the time of every way over ours against its error, one panel for each case."""
    names = list(dict.fromkeys(way for row in record["rows"] for way in row["ways"]))
    paints = (BLUE, TEAL, RED, GREY, PURPLE, ORANGE, GREEN)
    with figure("peers", len(record["rows"]), 4.2, sharey=True) as drawn:
        for axes, row in zip(drawn["axes"], record["rows"], strict=True):
            for name, mark, colour in zip(names, "oPXs^vD", paints, strict=False):
                way = row["ways"].get(name)
                if way is not None:
                    over = record["derived"][row["case"]][name]
                    axes.plot([over], [way["measured"]], mark, color=colour, ms=8, label=name)
            bound = row["ways"]["ours"]["bound"]
            axes.axhline(bound, color=BLUE, linewidth=1.2, label="bound of ours, proved")
            null = row["mean_v"]["measured"]
            axes.axhline(null, color=GREY, linestyle="--", linewidth=1.2, label="error of mean(V)")
            axes.axvline(1.0, color=INK, linewidth=0.8, label="as long as ours")
            axes.set(xscale="log", yscale="log", xlabel="time / ours", title=row["case"])
            plain_numbers(axes.xaxis)
        drawn["axes"][0].set_ylabel("measured error, in value_radius")
        legend(drawn)
    return drawn["svg"], (
        "Left of the upright line is faster than ours, lower is nearer to exact attention. Only "
        "ours has a bound; what is left of the line proves nothing."
    )


def scaling(record: dict) -> Chart:
    """Return seconds against n to the longest length, with a line of slope 1 beside each."""
    with figure("scaling", height=4.2) as drawn:
        axes = drawn["axes"][0]
        for row, mark, colour in zip(record["rows"], "o^", (BLUE, ORANGE), strict=False):
            lengths = [p["n"] for p in row["points"]]
            seconds = [p["seconds"] for p in row["points"]]
            fit = record["derived"][row["family"]]
            told = "slope {slope:.2f} ({low:.2f} to {high:.2f})"
            slope = "" if fit["slope"] is None else ", " + told.format(**fit)
            axes.plot(lengths, seconds, mark + "-", color=colour, label=row["family"] + slope)
            straight = [seconds[-1] * n / lengths[-1] for n in lengths]
            axes.plot(lengths, straight, ":", color=GREY, linewidth=1.4, label="slope 1")
        axes.set(xscale="log", yscale="log", xlabel="n", ylabel="seconds, median")
        plain_ticks(axes, [p["n"] for row in record["rows"] for p in row["points"]])
        legend(drawn)
    return drawn["svg"], (
        "Dotted: what time in proportion to n would be, through the longest length. In brackets "
        "the interval of 95 % of a slope."
    )


def crossings(record: dict) -> Chart:
    """Return by dimension the length from which one polynomial is faster, a line a degree."""
    degrees = sorted({row["degree"] for row in record["rows"]})
    with figure("crossings", height=4.2) as drawn:
        axes = drawn["axes"][0]
        for degree, mark, colour in zip(
            degrees, "os^Dv", (TEAL, BLUE, ORANGE, RED, PURPLE), strict=False
        ):
            for key, line, face, label in (
                ("crossing", "-", colour, "measured"),
                ("predicted", ":", "none", "predicted"),
            ):
                rows = [r for r in record["rows"] if r["degree"] == degree and r[key] is not None]
                axes.plot(
                    [r["d"] for r in rows],
                    [r[key] for r in rows],
                    mark + line,
                    color=colour,
                    markerfacecolor=face,
                    label=f"degree {degree}, {label}",
                )
        longest = record["settings"]["longest"]
        axes.axhline(longest, color=INK, linewidth=1, label="longest tried")
        dimensions = sorted({r["d"] for r in record["rows"]})
        axes.set(xscale="log", yscale="log", xlabel="d", ylabel="faster than exact from n")
        axes.set_xticks(dimensions, [str(d) for d in dimensions])
        axes.set_xticks([], minor=True)
        plain_numbers(axes.yaxis)
        legend(drawn)
    return drawn["svg"], "No mark where exact was still faster at the longest length tried."


def cost_model(record: dict) -> Chart:
    """Return predicted over measured seconds by method, and the regret of the cells in order."""
    found = record["derived"]["predicted_over_measured"]
    regrets = sorted(r["regret"] for r in record["rows"] if r["regret"] is not None)
    with figure("cost-model", 2, 3.8) as drawn:
        ratio, regret = drawn["axes"]
        for place, (name, x) in enumerate(found.items()):
            colour = PAINT.get(name, PURPLE)
            ends = (x["least"], x["median"], x["most"])
            mark, label = MARKERS.get(name, "D"), f"{name}, median and range"
            intervals(ratio, [place], [ends], mark, colour, label, 2.2)
        dots(ratio, list(found), ())
        ratio.axvspan(1 / 1.5, 1.5, color=GREY, alpha=0.15, label="within a factor of 1.5")
        ratio.set(xscale="log", xlabel="predicted / measured seconds")
        plain_numbers(ratio.xaxis)
        _regrets(regret, regrets)
        legend(drawn, 3)
    return drawn[
        "svg"
    ], "Right: the time of the method chosen over that of the fastest, cell by cell."


def _regrets(axes: Any, regrets: list[float]) -> None:
    """Draw the regrets of all cells in ascending order."""
    shares = [100.0 * (i + 1) / len(regrets) for i in range(len(regrets))]
    axes.plot(shares, regrets, "-", color=BLUE, drawstyle="steps-mid", label="regret of the cells")
    axes.axhline(1.05, color=ORANGE, linewidth=1, label="right: within 5 %")
    axes.set(xlabel="% of the cells", ylabel="chosen / fastest")
