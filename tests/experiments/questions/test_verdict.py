"""The verdict on real heads: no clock decides, null models beside it, counts are of the rows."""

import json
import re
from functools import partial

import numpy as np
import pytest

from experiments import questions
from experiments.harness import capture, instances, store
from experiments.harness.counting import count_rates
from experiments.questions import verdict
from experiments.report import verdict_tables
from subquad import TYPICAL
from subquad.cost.rates import Work

HEADS = ("minilm-l5-h0-smallest", "minilm-l3-h7-median")
LENGTHS = verdict.LENGTHS


def small(heads=HEADS, tols=(1e-1, 1e-2)):
    made = {name: partial(instances.real, name) for name in heads}
    return verdict.experiment(heads=made, tols=tols, lengths=LENGTHS)


@pytest.fixture(scope="module")
def record():
    return store.run(small())


def test_a_row_per_head_and_tolerance_with_the_null_models(record):
    assert [(r["head"], r["tol"]) for r in record["rows"]] == [
        (name, tol) for name in HEADS for tol in (1e-1, 1e-2)
    ]
    for row in record["rows"]:
        assert row["mean_v"]["measured"] > 0.0 < row["first_order"]["measured"]
        assert set(row["by_count"]) == set(row["by_rates"]) == {str(n) for n in LENGTHS}
        assert row["largest_logit"] <= row["logit_bound"]
    assert {"mean(V)", "first order"} <= set(verdict.HEADER)


def test_exact_is_never_beaten_by_something_dearer(record):
    """A gain is at least 1, as exact is among the methods; 1 where exact is taken."""
    for row in record["rows"]:
        for by in ("by_count", "by_rates"):
            for entry in row[by].values():
                assert entry["gain"] >= 1.0
                assert entry["method"] != "exact" or entry["gain"] == 1.0
                assert 0.0 <= entry["exact_pairs"] <= 1.0 + 1e-9


def test_runs_are_within_their_bounds_and_the_tolerance(record):
    assert record["derived"]["sound"] == record["derived"]["runs"] == 4
    for row in record["rows"]:
        run = row["run"]
        assert run["method"] == row["by_count"][str(LENGTHS[-1])]["method"]
        if run["bound"] is not None:
            assert run["measured"] <= run["bound"] <= row["tol"]
            assert run["ratio"] == pytest.approx(run["bound"] / run["measured"])


def test_rows_computed_exactly_are_counted(record):
    """Those that the plan divides off, by its own words, and every row where exact is taken."""
    seen = set()
    for row in record["rows"]:
        entry, run = row["by_count"][str(LENGTHS[-1])], row["run"]
        seen.add(entry["method"])
        if entry["method"] == "exact":
            assert run["rows_exact"] == 1.0
        if entry["method"] == "multi_threshold":
            told = re.search(r"([\d,]+)(?: to [\d,]+)? rows exact", entry["parameters"])
            least = int(told[1].replace(",", "")) / LENGTHS[-1]
            assert run["rows_exact"] == pytest.approx(least) and least > 0.0
    assert seen >= {"exact", "multi_threshold"}


def test_the_committed_record_counts_them_too():
    for row in store.read_json(store.RESULTS / "verdict.json")["rows"]:
        entry = list(row["by_count"].values())[-1]
        if entry["method"] == "exact":
            assert row["run"]["rows_exact"] == 1.0
        if "; 921,600 rows exact" in entry["parameters"]:
            assert row["run"]["rows_exact"] == pytest.approx(921_600 / 2**20)


def test_the_gain_is_that_of_the_counted_work(record):
    """By hand: the gain of a fitted plan is exact's count over the plan's, from its own words."""
    row = record["rows"][0]
    entry = row["by_count"][str(2**20)]
    assert entry["method"] != "exact"
    n, d = 2.0**20, row["d"]
    pair = 2 * d + 2 * (d + 1) + 20
    features = (1.0 / entry["gain"] - entry["exact_pairs"]) * n * pair / (2 * (2 * (d + 1) + 1))
    work = Work(entry["exact_pairs"] * n * n, features * 2 * n, 0.0, d, d, "float32")
    assert count_rates(d).seconds(work) == pytest.approx(n * n * pair / entry["gain"])
    assert features > d


def test_the_rates_are_fixed(record):
    assert store.rates_from(record["rates"]) == TYPICAL
    (again,) = store.run(small(HEADS[:1], (1e-1,)))["rows"]
    assert again["by_rates"] == record["rows"][0]["by_rates"]


def test_wins_are_counted_from_the_rows(record):
    for tol, by_length in record["derived"]["wins"].items():
        for n, found in by_length.items():
            for by in ("by_count", "by_rates"):
                gains = [r[by][n]["gain"] for r in record["rows"] if r["tol"] == float(tol)]
                assert found[by]["wins"] == sum(g > verdict_tables.WIN for g in gains)
                assert found[by]["best"] == max(gains)
                assert found[by]["heads"] == len(gains) == 2
    rows = verdict_tables.summary_rows(record)
    assert len(rows) == 6
    assert all(len(row) == len(verdict_tables.SUMMARY_HEADER) for row in rows)
    assert all(len(row) == len(verdict.HEADER) for row in verdict.table_rows(record))
    json.dumps(record, allow_nan=False)


def test_findings_follow_the_numbers(record):
    first, second = questions.findings(record)
    assert first["verdict"] == "partly"
    assert second["verdict"] == "does not hold"
    none = json.loads(json.dumps(record))
    for by_length in none["derived"]["wins"].values():
        for found in by_length.values():
            found["by_count"]["wins"] = 0
    assert questions.findings(none)[0]["verdict"] == "does not hold"


def test_without_the_encoder_the_shipped_heads_are_taken(monkeypatch):
    def absent():
        msg = "capturing needs the weights"
        raise ModuleNotFoundError(msg)

    monkeypatch.setattr(capture, "all_heads", absent)
    full = verdict.experiment()
    assert full.settings["heads"] == 12
    assert "not installed" in full.settings["which heads"]
    quick = verdict.experiment(True)
    assert quick.settings["heads"] == 4
    assert len(quick.cases) == 12


def test_with_the_encoder_all_heads_are_taken(monkeypatch):
    parts = np.random.default_rng(3).standard_normal((2, 3, 5, 24, 8)).astype(np.float16)
    monkeypatch.setattr(capture, "all_heads", lambda: parts)
    full = verdict.experiment(tols=(1e-1,))
    assert list(full.cases)[6] == "minilm-l1-h1 at 0.1"
    Q, K, V, scale = verdict.every_head()[0]["minilm-l1-h1"]()
    assert scale == pytest.approx(8**-0.5)
    for found, part in zip((Q, K, V), range(3), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, parts[1, part, 1].astype(np.float32))


def test_it_runs_by_name():
    assert "verdict" in questions.names()
