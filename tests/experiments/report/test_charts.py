"""Figures of every committed record: the legend has all that is drawn, no text lies on another."""

import itertools

import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from experiments import questions
from experiments.harness.kept import Kept
from experiments.questions import crossover, error_vs_bound
from experiments.report import figures, report, sections

CHARTS = [(name, path) for name in questions.names() for path in questions.load(name).KEPT.charts]


@pytest.fixture
def drawn(monkeypatch):
    """Return figures instead of rendering them, which takes most of the time."""
    found = []

    def kept(figure, text, **_):
        found.append(figure)
        text.write('<svg width="1" height="1"></svg>')

    monkeypatch.setattr(Figure, "savefig", kept)
    return found


def chart(name, path, drawn, monkeypatch):
    """Return the figure that a function of `report/` draws of the committed record."""
    monkeypatch.setattr(questions.load(name), "KEPT", Kept(1, "one", (path,)))
    (made,) = sections.drawn({"name": name, "record": report.committed()[name]["record"]})
    assert made["caption"].endswith(".") and made["id"].endswith("-caption")
    return drawn[-1]


def look(artist):
    """Return what a reader sees of it: mark, whether it is filled, kind of line, colour."""
    if not isinstance(artist, Line2D):
        return to_hex(artist.get_facecolor())
    mark, line = artist.get_marker(), artist.get_linestyle()
    mark = None if mark in ("none", "None", "", " ") else mark
    filled = mark and to_rgba(artist.get_markerfacecolor())[3] > 0.0
    return mark, filled, None if line == "None" else line, to_hex(artist.get_color())


def bars(within):
    """Return the colours of the bars of intervals."""
    return {to_hex(c) for x in within.findobj(LineCollection) for c in x.get_color()}


@pytest.mark.parametrize(("name", "path"), CHARTS)
def test_every_mark_line_and_colour_is_in_the_legend(name, path, drawn, monkeypatch):
    figure = chart(name, path, drawn, monkeypatch)
    (legend,) = figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    assert len(told) == len(set(told)) > 0
    seen = [x for axes in figure.axes for x in (*axes.get_lines(), *axes.patches)]
    assert seen
    assert {*map(look, seen)} <= {*map(look, [*legend.findobj(Line2D), *legend.get_patches()])}
    shown = {colour for axes in figure.axes for x in axes.collections for colour in bars(x)}
    assert shown <= bars(legend)


@pytest.mark.parametrize(("name", "path"), CHARTS)
def test_no_text_lies_on_another_or_beside_the_figure(name, path, drawn, monkeypatch):
    figure = chart(name, path, drawn, monkeypatch)
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    hidden = {id(text) for axes in figure.axes for text in undrawn(axes)}
    boxes = [(t.get_text(), box_of(t)) for t in texts if id(t) not in hidden]
    for told, box in boxes:
        assert box.x0 >= -GAP and box.x1 <= figure.bbox.x1 + GAP, told
        assert box.y0 >= -GAP and box.y1 <= figure.bbox.y1 + GAP, told
    for (told, box), (other, near) in itertools.combinations(boxes, 2):
        assert not box.overlaps(near), f"{told!r} and {other!r}"


GAP = 2.0
"""Half of what two words in a line must be apart, in points: text has about 10."""


def box_of(text):
    """Return the rectangle that a text takes, longer by GAP where its line begins and ends."""
    along = (GAP, 0.0) if text.get_rotation() == 0.0 else (0.0, GAP)
    return text.get_window_extent().padded(*along)


def undrawn(axes):
    """Yield the labels of ticks outside the view, which the figure has but does not show."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)


def test_there_is_a_figure_for_every_record():
    assert {name for name, _ in CHARTS} == set(report.committed())


def test_every_method_has_a_mark_and_a_colour():
    names = {*error_vs_bound.VARIANTS, *crossover.OURS, *figures.PEERS}
    assert names <= figures.MARKERS.keys() & figures.PAINT.keys()
    methods = [figures.PAINT[name] for name in error_vs_bound.VARIANTS]
    assert len(set(methods)) == len(methods)
