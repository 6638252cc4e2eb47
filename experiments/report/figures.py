"""The report's figures as SVG text, in the colours of the page: light or dark."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

INK, GREY, RULE = "#101010", "#808080", "#d0d0d0"
BLUE, ORANGE, GREEN, PURPLE, RED, TEAL, GOLD = (f"#0000c{i}" for i in range(1, 8))
"""Stand-ins, one a variable of the page's style sheet."""
COLOURS = {
    INK: "currentColor",
    GREY: "var(--grey)",
    RULE: "var(--rule)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    RED: "var(--red)",
    TEAL: "var(--teal)",
    GOLD: "var(--gold)",
}
Chart = tuple[str, str]
"""A figure as an <svg> element, and its caption."""
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
PAINT = {
    "exact": INK,
    "polynomial": BLUE,
    "support_basis by norm": ORANGE,
    "support_basis by entry": GOLD,
    "multi_threshold by norm": PURPLE,
    "fitted": GREEN,
    "anisotropic": TEAL,
    "support_basis": ORANGE,
    "NumPy softmax": GREY,
    "SDPA": RED,
}
SMALL = 9
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
    "axes.axisbelow": True,
    "axes.titlesize": 10,
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


def legend(drawn: dict[str, Any], columns: int = 5) -> None:
    """Put one legend for all panels under them."""
    labels: dict[str, Any] = {}
    for axes in drawn["grid"].flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    drawn["figure"].legend(
        labels.values(), labels.keys(), fontsize=SMALL, ncols=columns, loc="outside lower center"
    )


def dots(
    axes: Any,
    names: list[str],
    series: Iterable[tuple[Sequence[float | None], str, str, str]],
    **style: Any,
) -> None:
    """Draw a line of marks for each name, from the top down: (values, mark, colour, label)."""
    for values, mark, colour, label in series:
        found = [(x, place) for place, x in enumerate(values) if x is not None]
        if found:
            axes.plot(
                *zip(*found, strict=True), mark, color=colour, markersize=6, label=label, **style
            )
    axes.set_yticks(range(len(names)), names, fontsize=SMALL)
    axes.set_ylim(len(names) - 0.5, -0.5)


def intervals(
    axes: Any,
    places: Sequence[float],
    found: Sequence[tuple[float, float, float]],
    mark: str,
    colour: str,
    label: str,
    width: float = 1.4,
) -> None:
    """Draw a mark and a bar at each height: (least, value, most), in one line of the legend."""
    least, values, most = zip(*found, strict=True)
    reach = [[max(0.0, x - low) for x, low in zip(values, least, strict=True)]]
    reach += [[max(0.0, high - x) for x, high in zip(values, most, strict=True)]]
    style = {"color": colour, "markersize": 5, "elinewidth": width, "label": label}
    axes.errorbar(values, places, xerr=reach, fmt=mark, **style)


def plain_numbers(axis: Any) -> None:
    """Write the ticks of a logarithmic axis as plain numbers: 0.5, 20, 1,000.

    1, 2 and 5 of each decade, over more than three decades 1 alone.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0,) if high > 1e3 * low else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 10 else f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def short(name: str) -> str:
    """Return layer and head of a real head's name, without why it was shipped."""
    return "-".join(name.split("-")[:3]) if name.startswith("minilm") else name


def plain_ticks(axes: Any, lengths: list[int]) -> None:
    """Write lengths that are powers of two, at most six, and seconds as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.set_yticks([], minor=True)
    powers = sorted({n for n in lengths if n & (n - 1) == 0}) or sorted(set(lengths))
    shown = powers[:: -(-len(powers) // 6)]
    axes.set_xticks(shown, [f"{n:,}" for n in shown])
    axes.set_xticks([], minor=True)
