"""Figures of what real heads are like: what it costs to answer them, what stands in the way."""

from __future__ import annotations

from typing import Any

from .figures import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    RED,
    TEAL,
    Chart,
    dots,
    figure,
    intervals,
    legend,
    plain_numbers,
    short,
)


def verdict(record: dict) -> Chart:
    """Return exact over each head's cheapest, by count, against its logit bound, by tolerance."""
    tols, lengths = record["settings"]["tols"], record["settings"]["lengths"]
    with figure("verdict", len(tols), 3.6, sharey=True) as drawn:
        for axes, tol in zip(drawn["axes"], tols, strict=True):
            rows = [r for r in record["rows"] if r["tol"] == tol]
            for n, mark, colour in zip(lengths, "s^o", (TEAL, ORANGE, BLUE), strict=False):
                axes.plot(
                    [r["logit_bound"] for r in rows],
                    [r["by_count"][str(n)]["gain"] for r in rows],
                    mark,
                    color=colour,
                    markerfacecolor="none",
                    markersize=4,
                    label=f"n = {n:,}",
                )
            axes.axhline(1.0, color=INK, linewidth=0.8, label="exact is cheapest")
            axes.set_title(f"tol {tol:g}", fontsize=10)
            axes.set(xscale="log", xlabel="logit bound")
            axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
            axes.set_xticks([], minor=True)
        drawn["axes"][0].set_ylabel("exact / cheapest, by count")
        legend(drawn)
    return drawn["svg"], (
        "Each mark is a head: how many times more operations exact takes than the cheapest "
        "certified method, exact included."
    )


def limits(record: dict) -> Chart:
    """Return by degree what features cost, which logits they reach, and the rows left to exact."""
    d = record["derived"]
    tol, own = next(iter(d["limits"].items()))
    degrees = list(d["keys_worth"])
    with figure("limits", 3, 3.4) as drawn:
        cost, reach, left = drawn["axes"]
        for axes, values, title in (
            (cost, d["keys_worth"].values(), "cost of a row's features, in keys"),
            (reach, own["reach"].values(), "largest logit certified before the run"),
            (left, own["exact_share"].values(), "share of rows left to exact"),
        ):
            axes.bar(degrees, list(values), color=BLUE, width=0.6, alpha=0.8, label="of a degree")
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("degree")
            axes.grid(axis="x", visible=False)
        for n, line in zip(record["settings"]["lengths"], (":", "--", "-"), strict=False):
            cost.axhline(n, color=ORANGE, linestyle=line, linewidth=1.2, label=f"n = {n:,}")
        cost.set(yscale="log", ylim=(100, None))
        for key, line, label in (
            ("logit_bound", "--", "logit bound, median head"),
            ("largest_logit", "-", "largest logit, median head"),
        ):
            reach.axhline(own[key], color=RED, linestyle=line, linewidth=1.2, label=label)
        left.set_ylim(0.0, 1.05)
        legend(drawn, 3)
    return drawn["svg"], (
        f"At tol {tol}. Left: a degree can pay only where its bar stays below the length. Middle: "
        "it takes one polynomial for all rows only where its bar reaches the red lines. Right: the "
        "rows of the median head that even a polynomial fitted to the data leaves to exact."
    )


def entries(record: dict) -> Chart:
    """Return the tails of Q and K of each head, and three figures of each with their intervals."""
    names = list(dict.fromkeys(row["instance"] for row in record["rows"]))
    with figure("entries", 2, 4.4, sharey=True) as drawn:
        for axes, matrix in zip(drawn["axes"], "QK", strict=True):
            rows = [row for row in record["rows"] if row["matrix"] == matrix]
            for row in rows:
                _tail(axes, row)
            curve = rows[0]["tail"]
            sigmas = [t / rows[0]["sigma"] for t in curve["thresholds"]]
            axes.plot(
                sigmas, curve["gaussian"], color=INK, linewidth=2, label="normal, same variance"
            )
            axes.set(yscale="log", ylim=(3e-6, 1.5), xlabel="t / sigma", title=f"{matrix}")
        drawn["axes"][0].set_ylabel("share of entries with |x| > t")
        legend(drawn, 3)
    told = f"{len([n for n in names if n.startswith('minilm')])} real heads"
    return drawn["svg"], (
        f"Entries of {told} and of the controls, each less its column's mean; sigma is the root of "
        "their variance. Bars are 95 % intervals of the observed share; none is drawn where no "
        "entry is so large."
    )


def _tail(axes: Any, row: dict) -> None:
    """Draw the observed tail of one matrix, with its intervals."""
    colour, label = next(
        (colour, label)
        for start, colour, label in (
            ("minilm", BLUE, "real heads"),
            ("normal", GREEN, "control: normal entries"),
            ("", RED, "control: Student t entries"),
        )
        if row["instance"].startswith(start)
    )
    tail = row["tail"]
    points = sorted(
        (t / row["sigma"], x, x - low, high - x)
        for t, x, low, high in zip(
            tail["thresholds"], tail["observed"], tail["low"], tail["high"], strict=True
        )
        if x > 0.0
    )
    sigmas, share, down, up = zip(*points, strict=True)
    axes.errorbar(
        sigmas,
        share,
        ([max(0.0, x) for x in down], [max(0.0, x) for x in up]),
        color=colour,
        linewidth=1,
        elinewidth=0.7,
        alpha=0.7,
        label=label,
    )


def entry_figures(record: dict) -> Chart:
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
