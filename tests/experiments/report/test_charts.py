"""Figures of every committed record: each mark and colour in them is in the legend."""

import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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


def mark(line):
    return None if line.get_marker() in ("None", "", " ") else line.get_marker()


def colour(artist):
    if isinstance(artist, Line2D):
        return to_hex(artist.get_color())
    return to_hex(artist.get_facecolor())


@pytest.mark.parametrize(("name", "path"), CHARTS)
def test_every_mark_is_in_the_legend(name, path, drawn, monkeypatch):
    module = questions.load(name)
    monkeypatch.setattr(module, "KEPT", Kept(1, "one", (path,)))
    (made,) = sections.drawn({"name": name, "record": report.committed()[name]["record"]})
    assert made["caption"].endswith(".") and made["id"].endswith("-caption")
    (figure,) = drawn
    (legend,) = figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    assert len(told) == len(set(told)) > 0
    handles = legend.findobj(Line2D) + legend.get_patches()
    lines = [line for axes in figure.axes for line in axes.get_lines()]
    bars = [patch for axes in figure.axes for patch in axes.patches]
    assert lines or bars
    explained = {mark(handle) for handle in handles if isinstance(handle, Line2D)}
    assert {mark(line) for line in lines} <= explained | {None}
    spoken = {colour(handle) for handle in handles}
    spoken |= {to_hex(c) for x in legend.findobj(LineCollection) for c in x.get_color()}
    assert {colour(artist) for artist in (*lines, *bars)} <= spoken


def test_there_is_a_figure_for_every_record():
    assert {name for name, _ in CHARTS} == set(report.committed())


def test_every_method_has_a_mark_and_a_colour():
    names = {*error_vs_bound.VARIANTS, *crossover.OURS, *figures.PEERS}
    assert names <= figures.MARKERS.keys() & figures.PAINT.keys()
    methods = [figures.PAINT[name] for name in error_vs_bound.VARIANTS]
    assert len(set(methods)) == len(methods)
