"""Figures of bounds, of times against n, and of the paper's sweep."""

from __future__ import annotations

from typing import Any

from .figures import (
    BLUE,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    PAINT,
    PEERS,
    TEAL,
    Chart,
    dots,
    figure,
    intervals,
    legend,
    plain_ticks,
    short,
)
from .writing import tolerance


def bound_against_measured(record: dict) -> Chart:
    """Return every run as a point: measured error across, proved bound up, with the diagonal."""
    from ..questions.error_vs_bound import runs

    flat = [run for run in runs(record["rows"]) if run["measured"] > 0.0]
    with figure("bounds", height=5.0) as drawn:
        axes = drawn["axes"][0]
        for name in dict.fromkeys(run["method"] for run in flat):
            for real, face in ((False, "none"), (True, PAINT[name])):
                own = [r for r in flat if r["method"] == name and r["real"] == real]
                label = name + (", real heads" if real else "")
                if own:
                    axes.plot(
                        [r["measured"] for r in own],
                        [r["bound"] for r in own],
                        MARKERS[name],
                        color=PAINT[name],
                        markerfacecolor=face,
                        markersize=6,
                        markeredgewidth=0.9,
                        alpha=0.8,
                        label=label,
                    )
        low = min((r["measured"] for r in flat), default=1e-8) / 2
        axes.plot([low, 1.0], [low, 1.0], color=INK, linewidth=1, label="bound = measured")
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="measured error, in value_radius",
            ylabel="proved bound, in value_radius",
        )
        legend(drawn, columns=3)
    tols = ", ".join(map(tolerance, record["settings"]["tols"]))
    return drawn["svg"], (
        f"Each mark is one run, {record['derived']['runs']} in all: every method that certifies on "
        f"every instance at tolerances {tols}; filled on real heads, hollow on synthetic data. No "
        "mark may lie below the line. Exact attention has a bound as well, that of rounding."
    )


def time_against_n(record: dict) -> Chart:
    """Return seconds against n, log-log, one panel per family."""
    from ..questions import crossover

    families = list(dict.fromkeys(row["family"] for row in record["rows"]))
    with figure("times", len(families), sharey=True) as drawn:
        for axes, family in zip(drawn["axes"], families, strict=True):
            for name, (lengths, seconds) in crossover.series(record["rows"], family).items():
                axes.plot(
                    lengths,
                    seconds,
                    MARKERS[name],
                    color=PAINT[name],
                    markersize=5,
                    linestyle="--" if name in (*PEERS, "exact") else "-",
                    linewidth=1.2,
                    label=name,
                )
            axes.set(xscale="log", yscale="log", xlabel="n", title=family)
            plain_ticks(axes, [row["n"] for row in record["rows"] if row["family"] == family])
        drawn["axes"][0].set_ylabel("seconds, median")
        legend(drawn)
    s = record["settings"]
    absent = "" if "torch" in record["versions"] else " PyTorch was not installed: no SDPA."
    return drawn["svg"], (
        f"Median of {s['repeats']} runs after a warm-up, all ways in turns, d = {s['d']}, tol "
        f"{tolerance(s['tol'])}, {s['dtype']}. On `outliers` 0.1 % of rows and keys are 20 times "
        f"larger; a way that refuses them has no line there.{absent}"
    )


def exponents(record: dict) -> Chart:
    """Return the exponent of n of every way, with its interval, by family."""
    families = record["derived"]
    names = list(dict.fromkeys(way for ways in families.values() for way in ways))
    with figure("exponents", height=1.5 + 0.36 * len(names)) as drawn:
        axes = drawn["axes"][0]
        for shift, (family, ways), mark, colour in zip(
            (-0.15, 0.15), families.items(), "o^", (BLUE, ORANGE), strict=False
        ):
            known = [name for name in names if ways.get(name, {}).get("slope") is not None]
            ends = [tuple(ways[name][end] for end in ("low", "slope", "high")) for name in known]
            places = [names.index(name) + shift for name in known]
            if known:
                intervals(axes, places, ends, mark, colour, family)
        dots(axes, names, ())
        for power, line in ((1.0, ":"), (2.0, "--")):
            label = f"time as n^{power:.0f}"
            axes.axvline(power, color=INK, linestyle=line, linewidth=1, label=label)
        axes.set(xlabel="exponent of n in the time")
        legend(drawn)
    return drawn["svg"], (
        "Least squares on the upper half of the lengths, with intervals of 95 %. Below 1 a part "
        "of the time does not grow with n."
    )


def null_models(record: dict) -> Chart:
    """Return by instance the errors of the two answers that prove nothing, and the tolerances."""
    first = {row["instance"]: row for row in reversed(record["rows"])}
    rows = list(reversed(first.values()))
    with figure("null-models", height=1.5 + 0.27 * len(rows)) as drawn:
        axes, names = drawn["axes"][0], [short(row["instance"]) for row in rows]
        for key, mark, face, label in (
            ("mean_v", "s", GREY, "mean(V)"),
            ("first_order", "D", "none", "first order"),
        ):
            errors = [row[key]["measured"] for row in rows]
            dots(axes, names, [(errors, mark, GREY, label)], markerfacecolor=face)
        tols = record["settings"]["tols"]
        for tol, line in zip(tols, ("-", "--", "-.", ":"), strict=False):
            label = f"tol {tolerance(tol)}"
            axes.axvline(tol, color=ORANGE, linestyle=line, linewidth=1.2, label=label)
        axes.set(xscale="log", xlabel="measured error, in value_radius")
        legend(drawn, 6)
    return drawn["svg"], (
        "What is asked is hard where mean(V) is right of the tolerance: left of it, the case is "
        "trivial, and a certified answer is worth its proof alone."
    )


def sweep(record: dict) -> Chart:
    """Return the paper's sweep over its threshold: share of exact rows, seconds, errors."""
    rows = record["rows"]
    swept = [row["threshold"] for row in rows]
    with figure("sweep", 3, height=3.8) as drawn:
        shares, seconds, errors = drawn["axes"]
        _shares(shares, swept, rows)
        for key, line in (("support_basis", "-"), ("polynomial", ":"), ("exact", "--")):
            label = {"support_basis": "with T", "polynomial": "without T"}.get(key, key)
            seconds.plot(
                swept,
                [r[key]["seconds"] for r in rows],
                line,
                color=PAINT[key],
                linewidth=1.4,
                label=f"seconds, {label}",
            )
        seconds.set_ylim(bottom=0.0)
        for way, key, style, colour, label in (
            ("support_basis", "bound", "^-", ORANGE, "bound, with T"),
            ("support_basis", "measured", "^:", ORANGE, "measured, with T"),
            ("mean_v", "measured", "s--", GREY, "mean(V)"),
            ("first_order", "measured", "x--", GREY, "first order"),
        ):
            errors.plot(
                swept,
                [r[way][key] for r in rows],
                style,
                color=colour,
                markersize=4,
                linewidth=1.2,
                label=label,
            )
        errors.set_yscale("log")
        titles = ("share of rows exact", "seconds", "error, in value_radius")
        for axes, title in zip(drawn["axes"], titles, strict=True):
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("threshold T")
        legend(drawn)
    return drawn["svg"], "Rows with an entry above T attend exactly; the rest by one polynomial."


def _shares(axes: Any, swept: list[float], rows: list[dict]) -> None:
    """Draw the share of rows above each threshold, counted and expected."""
    axes.plot(
        swept, [r["rows_above"] for r in rows], "o", color=TEAL, markersize=4, label="rows counted"
    )
    axes.plot(
        swept,
        [r["expected_share"] for r in rows],
        "-",
        color=GREY,
        linewidth=1,
        label="expected of normal entries",
    )
