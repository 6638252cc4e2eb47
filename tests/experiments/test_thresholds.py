"""The experiment on several thresholds: rows sound, null models beside them, more never worse."""

import math

import pytest

from experiments import store, thresholds
from subquad import TYPICAL


@pytest.fixture(scope="module")
def record():
    return store.run(thresholds.experiment(True, n=512), rates=TYPICAL)


def test_every_way_on_every_instance_is_measured_below_its_bound(record):
    assert len(record["rows"]) == len(thresholds.sources(512, 8)) * len(thresholds.ways())
    for row in record["rows"]:
        assert row["measured"] <= row["bound"] <= thresholds.TOL
        assert math.isfinite(row["mean_v"]["measured"] + row["first_order"]["measured"])


def test_several_thresholds_cost_no_more_than_one(record):
    """By count it may be a little more: the plan is the cheapest by the rates."""
    for instance, found in record["derived"].items():
        assert set(found["gains"]) == set(thresholds.ways()), instance
        assert found["gains"]["at most 0, norm"] == pytest.approx(1.0)
        assert found["several_over_single"] > 0.9


def test_no_bucket_is_exact_and_limits_hold(record):
    for row in record["rows"]:
        if row["way"].startswith("at most"):
            assert row["buckets"] <= int(row["way"].split(",")[0].split()[-1])


def test_the_table_has_a_line_per_row_under_its_header(record):
    lines = thresholds.table_rows(record)
    assert len(lines) == len(record["rows"])
    assert all(len(line) == len(thresholds.HEADER) for line in lines)
