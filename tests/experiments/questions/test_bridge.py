"""The bridge in small: the table has the null models, and says what the rows say."""

import math

import pytest

from experiments import questions
from experiments.harness import store
from experiments.questions import bridge
from experiments.report.writing import text_table
from subquad import TYPICAL

HEAD = "minilm-l0-h11-smallest"


@pytest.fixture(scope="module")
def record():
    small = bridge.experiment(True, n=96, d=6, degree=4, buckets=(1, 3), heads=(HEAD,))
    return store.run(small, rates=TYPICAL)


def test_every_instance_and_number_of_buckets_has_a_row(record):
    rows = record["rows"]
    assert {r["instance"] for r in rows} == {*bridge.FAMILIES, HEAD}
    assert [r["buckets"] for r in rows] == [1, 3] * 5
    for row in rows:
        pairs = row["sums"][0]["terms"]
        assert 1 <= pairs <= row["buckets"] ** 2
        assert [x["terms"] for x in row["sums"]] == [pairs * (g + 1) for g in range(5)]
        assert len(row["powers"]) == 6


def test_the_table_has_the_null_models(record):
    assert {"mean(V)", "first order"} <= set(bridge.HEADER)
    table = bridge.table_rows(record)
    assert len(table) == 2 * len(record["rows"])
    assert all(len(row) == len(bridge.HEADER) for row in table)
    assert text_table(bridge.HEADER, table)


def test_mean_v_is_the_uniform_answer(record):
    for row in record["rows"]:
        assert row["uniform"]["output"]["inf"] == pytest.approx(row["mean_v"]["measured"], rel=1e-6)
        assert row["first_order_output"]["inf"] == pytest.approx(
            row["first_order"]["measured"], rel=1e-9
        )


def test_the_verdict_follows_the_rows(record):
    for name, own in record["derived"]["by_instance"].items():
        rows = [r for r in record["rows"] if r["instance"] == name]
        best = min(x["weights"]["2"] for r in rows for x in r["sums"][1:])
        single = min(x["weights"]["2"] for r in rows for x in r["powers"])
        assert own["gain"]["2"] == pytest.approx(single / best)
        assert math.isfinite(own["gain"]["inf"])
        assert (own["fewest_terms"] is None) == (own["gain"]["2"] <= 1.0)


def test_it_is_registered():
    assert "bridge" in questions.names()
