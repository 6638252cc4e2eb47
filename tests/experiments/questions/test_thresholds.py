"""The experiment on several thresholds: rows sound, null models beside them, more never worse."""

import copy
import dataclasses
import math

import pytest

import subquad
from experiments import questions
from experiments.harness import store
from experiments.harness.timing import COMPILED
from experiments.questions import thresholds
from subquad import TYPICAL

INSTANCES = ("subgaussian, sigma 0.3", "heavy_tail, t2 * 0.2", "outliers", *thresholds.HEADS[:1])
"""One of a kind; the heaviest tail."""


@pytest.fixture(scope="module")
def record():
    small = thresholds.experiment(True, n=256, repeats=0, only=INSTANCES)
    return store.run(small, rates=TYPICAL)


@pytest.fixture(scope="module")
def timed():
    small = thresholds.experiment(n=256, repeats=1, only=("outliers",))
    return store.run(small, rates=TYPICAL)


def test_every_way_on_every_instance_is_measured_below_its_bound(record):
    assert len(record["rows"]) == len(INSTANCES) * len(thresholds.ways())
    for row in record["rows"]:
        assert row["sound"]
        assert row["measured"] <= row["bound"] <= thresholds.TOL
        assert math.isfinite(row["mean_v"]["measured"] + row["first_order"]["measured"])


def test_several_thresholds_cost_no_more_than_one_and_more_never_more(record):
    """By count both are planned for the count, so that the larger space has the smaller least."""
    for instance, found in record["derived"].items():
        gains = found["gains"]
        assert set(gains) == set(thresholds.ways()), instance
        assert gains["at most 0, norm"] == pytest.approx(1.0)
        for criterion in ("norm", "entry"):
            steps = [
                gains[f"{x}, {criterion}"]
                for x in ("at most 0", "at most 1", "at most 2", "at most 4", "any number")
            ]
            assert all(a <= b * 1.001 for a, b in zip(steps, steps[1:], strict=False)), instance
            assert steps[1] >= 0.999 * gains[f"single, {criterion}"], instance


def test_limits_hold(record):
    for row in record["rows"]:
        if row["way"].startswith("at most"):
            assert row["buckets"] <= int(row["way"].split(",")[0].split()[-1])


def test_real_heads_alone_are_counted_at_a_million(record):
    for row in record["rows"]:
        assert row["real"] == (row["instance"] in thresholds.HEADS)
        assert (row["gain_long"] is not None) == row["real"]


def test_times_are_a_row_of_their_own(record, timed):
    assert all(row["way"] for row in record["rows"])
    assert thresholds.by_way(record["rows"]) == record["rows"]
    times = [row for row in timed["rows"] if row["way"] is None]
    assert [row["instance"] for row in times] == ["outliers"]
    seconds = times[0]["seconds"]
    names = {"exact", *thresholds.TIMED}
    wide = {name + thresholds.WIDE for name in names}
    assert set(times[0]["plans"]) == set(seconds)
    compiled = {name for name in seconds if name.endswith(COMPILED)}
    assert set(seconds) - compiled == names | wide
    assert len(compiled) in (0, 2 * len(thresholds.TIMED))  # without numba, and with it
    wide |= {name for name in compiled if thresholds.WIDE in name}
    assert all(times[0]["plans"][name].endswith("float64") for name in wide)
    for key, kind in (("faster_than_exact", ""), ("faster_in_float64", thresholds.WIDE)):
        faster = timed["derived"]["outliers"][key]["single, norm"]
        assert faster == pytest.approx(seconds["exact" + kind] / seconds["single, norm" + kind])
        assert record["derived"]["outliers"][key] is None
    assert "Measured, several are faster" in questions.findings(timed)[0]["evidence"]
    assert "Measured, several are faster" not in questions.findings(record)[0]["evidence"]


def test_compiled_plans_are_made_by_rates_that_are_kept(timed, monkeypatch):
    """numba or not, and a record from before they were kept says the same."""
    (row,) = (row for row in timed["rows"] if row["way"] is None)
    compiled = any(name.endswith(COMPILED) for name in row["plans"])
    assert (row["rates_compiled"] is not None) == compiled
    fixed = dataclasses.replace(TYPICAL, overhead=0.25)
    monkeypatch.setattr(thresholds, "features_by", lambda: "numba")
    monkeypatch.setattr(subquad, "measured_rates", lambda: fixed)
    small = thresholds.experiment(n=128, repeats=1, only=("outliers",))
    case = small.cases["outliers: times"]
    found = store.plain(case(TYPICAL))
    assert store.rates_from(found["rates_compiled"]) == fixed != TYPICAL
    assert sum(name.endswith(COMPILED) for name in found["plans"]) == 2 * len(thresholds.TIMED)
    old = copy.deepcopy(timed)
    for row in old["rows"]:
        row.pop("rates_compiled", None)
    assert questions.findings(old) == questions.findings(timed)
    assert thresholds.table_rows(old) == thresholds.table_rows(timed)
    assert thresholds.verdict(old["rows"]) == timed["derived"]


def test_the_table_has_a_line_per_way_under_its_header(record, timed):
    for made in (record, timed):
        lines = thresholds.table_rows(made)
        assert len(lines) == len(thresholds.by_way(made["rows"]))
        assert all(len(line) == len(thresholds.HEADER) for line in lines)
    assert {"mean(V)", "first order"} <= set(thresholds.HEADER)
