"""The section on the paper's premise: tails, the fitted curve, intervals, words that follow."""

import copy

import pytest
from matplotlib.figure import Figure

from experiments.harness import finding
from experiments.questions import entry_statistics
from experiments.report import entry_charts, report


@pytest.fixture(scope="module")
def record():
    return report.committed()["entry_statistics"]["record"]


def judged(record):
    """Return verdict and evidence by claim, of what the rows say now."""
    again = {**record, "derived": entry_statistics.tally(record["rows"])}
    return {f.claim: f for f in entry_statistics.findings(again)}


def test_the_curve_drawn_is_the_one_that_the_library_fits(record):
    for row in record["rows"]:
        proxy = row["proxy_over_variance"]["value"]
        drawn = [
            entry_charts.sub_gaussian(t / row["sigma"], proxy) for t in row["tail"]["thresholds"]
        ]
        assert drawn == pytest.approx(row["tail"]["subgaussian"], rel=1e-9)


def test_there_is_a_panel_for_every_layer_and_control(record, monkeypatch):
    kept = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, text, **_: kept.append(figure) or text.write("<svg>")
    )
    entry_charts.tails(record)
    panels = [axes for axes in kept[0].axes if axes.axison]
    assert [axes.get_title() for axes in panels] == [
        *(f"layer {i}" for i in range(6)),
        "normal entries",
        "Student t entries",
    ]
    for axes in panels:
        shown = {label.split(",")[0] for label in axes.get_legend_handles_labels()[1]}
        assert {"Q", "K"} <= shown
        bars = len(axes.containers)  # one of marks with intervals for each matrix of each head
        assert bars == (4 if axes.get_title().startswith("layer") else 2)


def test_the_table_has_the_heaviest_head_of_every_layer_with_its_intervals(record):
    rows = entry_statistics.summary_rows(record)
    assert len(rows) == 2 * (6 + 2)
    for row in rows:
        own = dict(zip(entry_statistics.SUMMARY, row, strict=True))
        proxies = [
            r["proxy_over_variance"]["value"]
            for r in record["rows"]
            if (entry_statistics.group(r), r["matrix"]) == tuple(row[:2])
        ]
        assert own["proxy / variance"] == max(proxies)
        for value, low, high in (row[3:6], row[6:9]):
            assert low <= value <= high
    assert {row[-1] for row in rows if row[0] == "Student t entries"} == {"rejected"}


def test_the_words_say_where_the_premise_holds(record):
    claim = "tails as light as normal ones"
    told = judged(record)[claim]
    heavy = {
        row["instance"]
        for row in record["rows"]
        if row["real"] and 2.0 * row["p_values"]["gaussian_tail"] < 0.01
    }
    heads = record["settings"]["heads"]
    assert told.verdict == finding.PARTLY and 0 < len(heavy) < len(heads)
    assert f"holds on {len(heads) - len(heavy)} of {len(heads)} heads" in told.evidence
    assert all((name in told.evidence) == (name in heavy) for name in heads)
    for p_value, verdict in ((1.0, finding.HOLDS), (0.0, finding.FAILS)):
        other = copy.deepcopy(record)
        for row in other["rows"]:
            row["p_values"]["gaussian_tail"] = p_value
        assert judged(other)[claim].verdict == verdict
    assert judged(record)["independent entries"].verdict == finding.FAILS


def test_the_figures_are_those_of_the_public_function(record):
    """A head measured anew has the tail and the parameter of the committed record."""
    made = entry_statistics.experiment(heads=("minilm-l5-h0-smallest",), resamples=2)
    key = "minilm-l5-h0-smallest, Q"
    anew = made.cases[key](made.rates)
    (kept,) = (row for row in record["rows"] if row["key"] == key)
    assert anew["sigma"] == pytest.approx(kept["sigma"], rel=1e-9)
    assert anew["tail"]["observed"] == pytest.approx(kept["tail"]["observed"], abs=1e-9)
    for of in entry_statistics.FIGURES:
        assert anew[of]["value"] == pytest.approx(kept[of]["value"], rel=1e-6)
