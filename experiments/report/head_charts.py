"""Figures of what real heads are like: what it costs to answer them, what stands in the way."""

from __future__ import annotations

from .figures import BLUE, INK, ORANGE, RED, TEAL, Chart, figure, legend


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
