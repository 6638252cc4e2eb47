"""Figures of the experiments on methods: thresholds, certificates, the bridge, the verdict."""

from __future__ import annotations

from typing import Any

from .charts import GREY, INK, figure

SMALL = 9
STYLES = {"norm": ("^", "-"), "entry": ("v", "--")}


def thresholds(record: dict) -> str:
    """Return, per instance, cost (exact over it, by count) and bound against how many thresholds.

    `multi_threshold` as lines by norm and by entry, `support_basis` as lone marks at one.
    """
    rows = [row for row in record["rows"] if row["way"] is not None]
    names = shown_instances(record)
    with figure("thresholds", len(names), 5.4, rows=2, sharex=True, sharey="row") as drawn:
        for name, (cost, error) in zip(names, drawn["grid"].T, strict=True):
            own = [row for row in rows if row["instance"] == name and row["bound"] is not None]
            for criterion, (mark, line) in STYLES.items():
                _threshold_lines(own, criterion, mark, line, cost, error)
            for key, label, line in (
                ("mean_v", "mean(V)", "--"),
                ("first_order", "first order", ":"),
            ):
                error.axhline(
                    own[0][key]["measured"], color=GREY, linestyle=line, linewidth=1.2, label=label
                )
            cost.set_title(_title(name, own[0]["real"]), fontsize=SMALL)
            cost.set(yscale="log")
            error.set(yscale="log", xlabel="thresholds, at most")
            error.set_xticks(range(len(MOST)), MOST, fontsize=SMALL)
        drawn["grid"][0, 0].set_ylabel("exact / it, by count")
        drawn["grid"][1, 0].set_ylabel("error, in value_radius")
        _legend(drawn)
    return drawn["svg"]


MOST = ("0", "1", "2", "4", "any")


def _threshold_lines(
    rows: list[dict], criterion: str, mark: str, line: str, cost: Any, error: Any
) -> None:
    """Draw one criterion: gains in `cost`, bounds and measured errors in `error`."""
    key = "gain_long" if rows[0]["real"] else "gain_by_count"
    several = [r for r in rows if r["way"].endswith(f", {criterion}") and "single" not in r["way"]]
    places = [
        MOST.index(r["way"].split(",")[0].split()[-1].replace("number", "any")) for r in several
    ]
    single = [r for r in rows if r["way"] == f"single, {criterion}"]
    style = {"color": INK, "markersize": 5, "linewidth": 1.2}
    cost.plot(
        places, [r[key] for r in several], mark + line, label=f"several, {criterion}", **style
    )
    cost.plot(
        [1] * len(single),
        [r[key] for r in single],
        mark,
        color=GREY,
        markersize=8,
        markerfacecolor="none",
        label=f"support_basis, {criterion}",
    )
    error.plot(
        places, [r["bound"] for r in several], mark + line, **style, label=f"bound, {criterion}"
    )
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


def _title(name: str, real: bool) -> str:
    return f"{name.rpartition('-')[0]}, rows to 1M" if real else name


def _legend(drawn: dict[str, Any]) -> None:
    """Put one legend for all panels under them."""
    labels: dict[str, Any] = {}
    for axes in drawn["grid"].flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    drawn["figure"].legend(
        labels.values(), labels.keys(), fontsize=SMALL, ncols=5, loc="outside lower center"
    )


MARKS = (
    ("a_priori", None, "^", INK, "proved before the run"),
    ("fitted", "worst", "o", INK, "fitted to the data, worst row"),
    ("fitted", "median", "o", "none", "fitted, median row"),
    ("measured", "worst", "x", INK, "measured, worst row"),
    ("measured", "median", "+", INK, "measured, median row"),
)


def certificates(record: dict) -> str:
    """Return, per degree, every instance as a line of marks: bounds before and after, errors."""
    degrees = sorted({row["degree"] for row in record["rows"]})
    names = list(dict.fromkeys(row["instance"] for row in record["rows"]))
    height = 1.4 + 0.3 * len(names)
    with figure("certificates", len(degrees), height, sharey=True) as drawn:
        for axes, degree in zip(drawn["axes"], degrees, strict=True):
            for row in (r for r in record["rows"] if r["degree"] == degree):
                place = names.index(row["instance"])
                _marks(axes, row, place)
            axes.axvline(2.0, color=GREY, linewidth=0.8)
            axes.set(xscale="log", xlabel="in value_radius")
            axes.set_title(f"degree {degree}", fontsize=10)
            axes.set_xlim(right=10.0)
        drawn["axes"][0].set_yticks(range(len(names)), [_short(n) for n in names], fontsize=SMALL)
        drawn["axes"][0].set_ylim(len(names) - 0.5, -0.5)
        _legend(drawn)
    return drawn["svg"]


def _short(name: str) -> str:
    return name.rpartition("-")[0] if name.startswith("minilm") else name


def _marks(axes: Any, row: dict, place: int) -> None:
    found = [
        (row[key] if part is None else row[key][part], mark, face, label)
        for key, part, mark, face, label in MARKS
    ]
    shown = [x for x, *_ in found if x is not None]
    if shown:
        axes.plot([min(shown), max(shown)], [place, place], color=GREY, linewidth=0.8)
    for x, mark, face, label in found:
        if x is not None:
            axes.plot(
                [x], [place], mark, color=INK, markerfacecolor=face, markersize=5, label=label
            )
    axes.plot([row["mean_v"]["measured"]], [place], "s", color=GREY, markersize=4, label="mean(V)")
    axes.plot(
        [row["first_order"]["measured"]],
        [place],
        "D",
        color=GREY,
        markersize=4,
        markerfacecolor="none",
        label="first order",
    )


NORMS = {"1": "l1", "2": "l2", "inf": "l_inf"}
LINES = (("^", "-"), ("o", "--"), ("s", ":"))


def bridge(record: dict) -> str:
    """Return errors of weights and output in l1, l2, l_inf against terms, on three instances.

    Lines: the least error of any sum with at most so many terms. Hollow marks at 1: the best
    single (q.k + t)^p. Grey marks at 0: mean(V), and first order where it has an output.
    """
    names = bridge_instances(record)
    with figure("bridge", 3, 5.6, rows=2, sharex=True, sharey="row") as drawn:
        for axes, part, p in (
            (drawn["grid"][i, j], part, p)
            for i, part in enumerate(("weights", "output"))
            for j, p in enumerate(NORMS)
        ):
            for name, (mark, line) in zip(names, LINES, strict=False):
                rows = [r for r in record["rows"] if r["instance"] == name]
                _bridge_lines(axes, rows, part, p, (mark, line), _short(name))
            axes.set(xscale="log", yscale="log")
            axes.set_title(f"{part}, {NORMS[p]}", fontsize=10)
            axes.set_xticks([ZERO, 1, 10, 100], ["0", "1", "10", "100"])
            axes.set_xticks([], minor=True)
        for axes in drawn["grid"][1]:
            axes.set_xlabel("polynomial attentions")
        drawn["grid"][0, 0].set_ylabel("relative to the weights")
        drawn["grid"][1, 0].set_ylabel("in value_radius")
        _legend(drawn)
    return drawn["svg"]


ZERO = 0.5
"""Where 0 terms stand on the logarithmic axis."""


def bridge_instances(record: dict) -> list[str]:
    """Return the three instances drawn: independent entries, heavy tails, the first real head."""
    names = list(dict.fromkeys(row["instance"] for row in record["rows"]))
    real = [n for n in names if n.startswith("minilm")]
    return [n for n in ("subgaussian(1)", "heavy_tail") if n in names] + real[:1]


def _bridge_lines(
    axes: Any, rows: list[dict], part: str, p: str, style: tuple[str, str], label: str
) -> None:
    mark, line = style
    first = style == LINES[0]  # one mark stands for all in the legend
    least: list[tuple[int, float]] = []
    for terms, error in sorted((x["terms"], x[part][p]) for r in rows for x in r["sums"]):
        if not least or error < least[-1][1]:
            least.append((terms, error))
    axes.step(
        *zip(*least, strict=True),
        line,
        where="post",
        marker=mark,
        color=INK,
        markersize=4,
        linewidth=1.1,
        label=f"sum, {label}",
    )
    single = min(x[part][p] for x in rows[0]["powers"])
    axes.plot(
        [1],
        [single],
        mark,
        color=INK,
        markerfacecolor="none",
        markersize=7,
        label="one (q.k + t)^p" if first else None,
    )
    axes.plot(
        [ZERO],
        [rows[0]["uniform"][part][p]],
        mark,
        color=GREY,
        markersize=5,
        label="mean(V)" if first else None,
    )
    if part == "output":
        axes.plot(
            [ZERO],
            [rows[0]["first_order_output"][p]],
            mark,
            color=GREY,
            markersize=5,
            markerfacecolor="none",
            label="first order" if first else None,
        )


def verdict(record: dict) -> str:
    """Return exact over each head's cheapest, by count, against its logit bound, by tolerance."""
    tols, lengths = record["settings"]["tols"], record["settings"]["lengths"]
    with figure("verdict", len(tols), 3.6, sharey=True) as drawn:
        for axes, tol in zip(drawn["axes"], tols, strict=True):
            rows = [r for r in record["rows"] if r["tol"] == tol]
            for n, mark, face in zip(lengths, "s^o", ("none", "none", INK), strict=False):
                axes.plot(
                    [r["logit_bound"] for r in rows],
                    [r["by_count"][str(n)]["gain"] for r in rows],
                    mark,
                    color=INK,
                    markerfacecolor=face,
                    markersize=4,
                    alpha=0.8,
                    label=f"n = {n:,}",
                )
            axes.axhline(1.0, color=GREY, linewidth=0.8)
            axes.set_title(f"tol {tol:g}", fontsize=10)
            axes.set(xscale="log", xlabel="logit bound")
            axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
            axes.set_xticks([], minor=True)
        drawn["axes"][0].set_ylabel("exact / cheapest, by count")
        _legend(drawn)
    return drawn["svg"]
