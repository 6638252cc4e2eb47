"""The report's figures as SVG text: ink and grey only, so that they follow the page's colours."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..questions import crossover
from ..questions.error_vs_bound import runs

INK, GREY, RULE = "#101010", "#808080", "#d0d0d0"
COLOURS = {INK: "currentColor", GREY: "var(--grey)", RULE: "var(--rule)"}
WIDTH, HEIGHT = 9.0, 4.4
MARKERS = {
    "exact": "s",
    "polynomial": "o",
    "support_basis by norm": "^",
    "support_basis by entry": "v",
    "multi_threshold by norm": "D",
    "fitted": "P",
    "anisotropic": "*",
    "support_basis": "^",
    "NumPy softmax": "x",
    "SDPA": "+",
}
PEERS = ("NumPy softmax", "SDPA")
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
}


@contextmanager
def figure(
    name: str, columns: int = 1, height: float = HEIGHT, rows: int = 1, **shared: Any
) -> Iterator[dict[str, Any]]:
    """Yield {"axes": a row of them, "grid": all}; afterwards "svg" holds the figure.

    No window is opened and no global state kept. `shared` goes to matplotlib's `subplots`.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        page = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(page)
        grid = page.subplots(rows, columns, squeeze=False, **shared)
        drawn: dict[str, Any] = {"axes": grid[0], "grid": grid, "figure": page}
        yield drawn
        text = io.StringIO()
        blank = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        page.savefig(text, format="svg", transparent=True, metadata=blank)
    drawn["svg"] = _inline(text.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    """Return the <svg> element alone, its ids its own, its colours the page's."""
    svg = svg[svg.index("<svg") :]
    for before in ('id="', "url(#", 'href="#'):
        svg = svg.replace(before, f"{before}{name}-")
    for colour, value in COLOURS.items():
        svg = svg.replace(colour, value)
    start = svg.index(">")
    head = svg[:start].replace('width="', 'data-width="').replace('height="', 'data-height="')
    return f'{head} class="chart" role="img" aria-labelledby="{name}-caption"{svg[start:]}'


def bound_against_measured(record: dict) -> str:
    """Return every run as a point: measured error across, proved bound up, with the diagonal."""
    flat = [run for run in runs(record["rows"]) if run["measured"] > 0.0]
    with figure("bounds") as drawn:
        axes = drawn["axes"][0]
        for name in dict.fromkeys(run["method"] for run in flat):
            for real, face in ((False, "none"), (True, INK)):
                own = [r for r in flat if r["method"] == name and r["real"] == real]
                label = name + (", real heads" if real else "")
                if own:
                    axes.plot(
                        [r["measured"] for r in own],
                        [r["bound"] for r in own],
                        MARKERS[name],
                        color=INK,
                        markerfacecolor=face,
                        markersize=6,
                        markeredgewidth=0.9,
                        alpha=0.8,
                        label=label,
                    )
        low = min((r["measured"] for r in flat), default=1e-8) / 2
        axes.plot([low, 1.0], [low, 1.0], color=INK, linewidth=1)
        axes.annotate(
            "bound = measured: no point may lie below",
            (1e-5, 1e-5),
            (10, -12),
            textcoords="offset points",
            color=INK,
            fontsize=9,
        )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="measured error, in value_radius",
            ylabel="proved bound, in value_radius",
        )
        axes.legend(loc="lower right", fontsize=9)
    return drawn["svg"]


def time_against_n(record: dict) -> str:
    """Return seconds against n, log-log, one panel per family with its legend."""
    families = list(dict.fromkeys(row["family"] for row in record["rows"]))
    with figure("times", len(families)) as drawn:
        for axes, family in zip(drawn["axes"], families, strict=True):
            for name, (lengths, seconds) in crossover.series(record["rows"], family).items():
                peer = name in PEERS
                axes.plot(
                    lengths,
                    seconds,
                    MARKERS[name],
                    color=GREY if peer else INK,
                    markersize=5,
                    linestyle="--" if peer or name == "exact" else "-",
                    linewidth=1.2,
                    markerfacecolor="none" if name == "exact" else None,
                    label=name,
                )
            axes.set(xscale="log", yscale="log", xlabel="n", title=family)
            _plain_ticks(axes, [row["n"] for row in record["rows"] if row["family"] == family])
            axes.legend(fontsize=9)
        drawn["axes"][0].set_ylabel("seconds, median")
    return drawn["svg"]


def _plain_ticks(axes, lengths: list[int]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.set_yticks([], minor=True)
    shown = [n for n in lengths if n & (n - 1) == 0]
    axes.set_xticks(shown, [f"{n:,}" for n in shown])
    axes.set_xticks([], minor=True)


def sweep(record: dict) -> str:
    """Return the paper's sweep over its threshold: share of exact rows, seconds, errors."""
    rows = record["rows"]
    swept = [row["threshold"] for row in rows]
    with figure("sweep", 3, height=3.8) as drawn:
        shares, seconds, errors = drawn["axes"]
        shares.plot(
            swept, [r["rows_above"] for r in rows], "o", color=INK, markersize=4, label="counted"
        )
        shares.plot(
            swept,
            [r["expected_share"] for r in rows],
            "-",
            color=GREY,
            linewidth=1,
            label="expected of\nnormal entries",
        )
        for key, line in (("support_basis", "-"), ("polynomial", ":"), ("exact", "--")):
            label = {"support_basis": "threshold T", "polynomial": "no threshold"}.get(key, key)
            seconds.plot(
                swept,
                [r[key]["seconds"] for r in rows],
                line,
                color=INK,
                linewidth=1.4,
                label=label,
            )
        seconds.set_ylim(bottom=0.0)
        for way, key, style in (
            ("support_basis", "bound", "^-"),
            ("support_basis", "measured", "^:"),
            ("mean_v", "measured", "s--"),
            ("first_order", "measured", "x--"),
        ):
            label = {"mean_v": "mean(V)", "first_order": "first order"}.get(way, "threshold T")
            colour = INK if way == "support_basis" else GREY
            errors.plot(
                swept,
                [r[way][key] for r in rows],
                style,
                color=colour,
                markersize=4,
                linewidth=1.2,
                label=f"{label}, {key}",
            )
        errors.set_yscale("log")
        titles = ("share of rows exact", "seconds", "error, in value_radius")
        for axes, title in zip(drawn["axes"], titles, strict=True):
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("threshold T")
        shares.legend(fontsize=9)
        for axes in (seconds, errors):
            axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return drawn["svg"]
