"""Figures of the experiments on methods: thresholds, and bounds before and after the run."""

from __future__ import annotations

from typing import Any

from .figures import (
    BLUE,
    GOLD,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SMALL,
    Chart,
    dots,
    figure,
    intervals,
    legend,
    plain_numbers,
    short,
)

STYLES = {"norm": ("^", "-", PURPLE), "entry": ("v", "--", GOLD)}


def threshold_gains(record: dict) -> Chart:
    """Return, per instance, exact over one and over several thresholds, counted and timed."""
    found = record["derived"]
    names = list(found)

    def gains(way: str) -> list[float | None]:
        return [d["gains"].get(way) for d in found.values()]

    def timed(key: str) -> list[float | None]:
        return [(d.get(key) or {}).get("any number, norm") for d in found.values()]

    with figure("threshold-gains", 1, 1.7 + 0.34 * len(names)) as drawn:
        axes = drawn["axes"][0]
        dots(
            axes,
            [short(name) for name in names],
            (
                (gains("single, norm"), "^", ORANGE, "one threshold, norm"),
                (gains("single, entry"), "v", GOLD, "one threshold, entry"),
                (gains("any number, norm"), "D", PURPLE, "any number, norm"),
                (gains("any number, entry"), "s", BLUE, "any number, entry"),
            ),
        )
        dots(
            axes,
            [short(name) for name in names],
            (
                (timed("faster_than_exact"), "o", GREEN, "any number, norm, timed"),
                (timed("faster_compiled"), "P", GREEN, "the same, compiled"),
            ),
            markerfacecolor="none",
        )
        _from_one(axes)
        legend(drawn, 4)
    return drawn["svg"], (
        "How many times more exact attention takes: filled marks by count of operations (real "
        "heads with their rows replicated), hollow ones in measured seconds, where it was timed."
    )


def _from_one(axes: Any) -> None:
    axes.axvline(1.0, color=INK, linewidth=1, label="as dear as exact")
    axes.set(xscale="log", xlabel="exact / it")
    plain_numbers(axes.xaxis)


def thresholds(record: dict) -> Chart:
    """Return, per instance, cost (exact over it, by count) and bound against how many thresholds.

    `multi_threshold` as lines by norm and by entry, `support_basis` as lone marks at one.
    """
    rows = [row for row in record["rows"] if row["way"] is not None]
    names = shown_instances(record)
    with figure("thresholds", len(names), 5.4, rows=2, sharex=True, sharey="row") as drawn:
        for name, (cost, error) in zip(names, drawn["grid"].T, strict=True):
            own = [row for row in rows if row["instance"] == name and row["bound"] is not None]
            for criterion in STYLES:
                _threshold_lines(own, criterion, cost, error)
            for key, label, line in (
                ("mean_v", "mean(V)", "--"),
                ("first_order", "first order", ":"),
            ):
                error.axhline(
                    own[0][key]["measured"], color=GREY, linestyle=line, linewidth=1.2, label=label
                )
            cost.set_title(f"{short(name)}, to 1M" if own[0]["real"] else name, fontsize=SMALL)
            cost.set(yscale="log")
            error.set(yscale="log", xlabel="thresholds, at most")
            error.set_xticks(range(len(MOST)), MOST, fontsize=SMALL)
        plain_numbers(drawn["grid"][0, 0].yaxis)
        drawn["grid"][0, 0].set_ylabel("exact / it, by count")
        drawn["grid"][1, 0].set_ylabel("error, in value_radius")
        legend(drawn)
    return drawn["svg"], (
        "Above: how many times more operations exact takes. Below: certified bound and measured "
        "error, with the two answers that prove nothing; for the real head at its own length, "
        "where every pair is exact. At most so many buckets of keys have a polynomial, each row at "
        "its own degree in each; `support_basis` has one threshold and one degree."
    )


MOST = ("0", "1", "2", "4", "any")


def _threshold_lines(rows: list[dict], criterion: str, cost: Any, error: Any) -> None:
    """Draw one criterion: gains in `cost`, bounds and measured errors in `error`."""
    mark, line, colour = STYLES[criterion]
    key = "gain_long" if rows[0]["real"] else "gain_by_count"
    several = [r for r in rows if r["way"].endswith(f", {criterion}") and "single" not in r["way"]]
    places = [
        MOST.index(r["way"].split(",")[0].split()[-1].replace("number", "any")) for r in several
    ]
    single = [r for r in rows if r["way"] == f"single, {criterion}"]
    style = {"color": colour, "markersize": 5, "linewidth": 1.2}
    gains = [r[key] for r in several]
    cost.plot(places, gains, mark + line, label=f"several, {criterion}", **style)
    cost.plot(
        [1] * len(single),
        [r[key] for r in single],
        mark,
        color=ORANGE,
        markersize=8,
        markerfacecolor="none",
        label=f"support_basis, {criterion}",
    )
    bounds = [r["bound"] for r in several]
    error.plot(places, bounds, mark + line, **style, label=f"bound, {criterion}")
    error.plot(
        places,
        [r["measured"] for r in several],
        mark + line,
        **style,
        markerfacecolor="none",
        label=f"measured, {criterion}",
    )


def shown_instances(record: dict) -> list[str]:
    """Return the instances that the figure has room for: the first of each of four kinds."""
    names = dict.fromkeys(row["instance"] for row in record["rows"])
    kinds = ("subgaussian", "heavy_tail, t3", "outliers", "minilm")
    return [
        next(n for n in names if n.startswith(kind))
        for kind in kinds
        if any(n.startswith(kind) for n in names)
    ]


MARKS = (
    ("a_priori", None, "^", RED, RED, "proved before the run"),
    ("fitted", "worst", "o", GREEN, GREEN, "fitted to the data, worst row"),
    ("fitted", "median", "o", GREEN, "none", "fitted, median row"),
    ("measured", "worst", "x", BLUE, BLUE, "measured, worst row"),
    ("measured", "median", "+", BLUE, BLUE, "measured, median row"),
    ("mean_v", "measured", "s", GREY, GREY, "mean(V)"),
    ("first_order", "measured", "D", GREY, "none", "first order"),
)


def certificates(record: dict) -> Chart:
    """Return, per degree, every instance as a line of marks: bounds before and after, errors."""
    degrees = sorted({row["degree"] for row in record["rows"]})
    names = list(dict.fromkeys(row["instance"] for row in record["rows"]))
    with figure("certificates", len(degrees), 1.7 + 0.3 * len(names), sharey=True) as drawn:
        for axes, degree in zip(drawn["axes"], degrees, strict=True):
            for row in (r for r in record["rows"] if r["degree"] == degree):
                _marks(axes, row, names.index(row["instance"]))
            axes.axvline(2.0, color=INK, linewidth=0.8, label="no two outputs differ by more")
            axes.set(xscale="log", xlabel="in value_radius")
            axes.set_title(f"degree {degree}", fontsize=10)
            axes.set_xlim(right=10.0)
        drawn["axes"][0].set_yticks(range(len(names)), [short(n) for n in names], fontsize=SMALL)
        drawn["axes"][0].set_ylim(len(names) - 0.5, -0.5)
        legend(drawn, 4)
    return drawn["svg"], (
        "A line joins the bounds and the measured errors of an instance. Where a mark is "
        "missing there is no finite bound, or the degree has too many features to run."
    )


def _marks(axes: Any, row: dict, place: int) -> None:
    found = [
        (row[key] if part is None else row[key][part], mark, colour, face, label)
        for key, part, mark, colour, face, label in MARKS
    ]
    shown = [x for x, *_ in found[:5] if x is not None]
    if shown:
        ends = [min(shown), max(shown)]
        axes.plot(ends, [place, place], color=GREY, linewidth=0.8, label="its range")
    for x, mark, colour, face, label in found:
        if x is not None:
            axes.plot(
                [x], [place], mark, color=colour, markerfacecolor=face, markersize=5, label=label
            )


def certificate_gains(record: dict) -> Chart:
    """Return by kind and degree how many times smaller the fitted bounds are."""
    found = record["derived"]["a_priori_over_fitted"]
    with figure("certificate-gains", 1, 1.5 + 0.3 * len(found)) as drawn:
        axes = drawn["axes"][0]
        ends = [(x["least"], x["median"], x["most"]) for x in found.values()]
        label = "median, from least to most"
        intervals(axes, range(len(found)), ends, "o", GREEN, label, 2.2)
        dots(axes, list(found), ())
        axes.axvline(1.0, color=INK, linewidth=1, label="no smaller")
        axes.set(xscale="log", xlabel="bound proved before the run / fitted bound, worst row")
        plain_numbers(axes.xaxis)
        legend(drawn)
    return drawn["svg"], (
        "How many times smaller the fitted bound is in the worst row, over the instances that have "
        "both."
    )
