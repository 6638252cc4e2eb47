"""The committed record of the fused passes: what is said of it, and its table in the README."""

import copy
import json
import sys
from types import SimpleNamespace

import pytest

from experiments.harness.finding import FAILS, HOLDS
from experiments.harness.store import RESULTS
from experiments.questions import gpu

PATH = RESULTS / "gpu.json"
README = PATH.parents[2] / "README.md"


@pytest.fixture
def record():
    return json.loads(PATH.read_text())


def test_rows_are_checked_before_they_are_timed(record):
    for row in record["rows"]:
        worst = max(row["own_polynomial"], row["checked_own_polynomial"])
        assert worst <= gpu.LARGEST_OWN[row["operands"]]
        assert (row["again"] is None) == (row["degree"] != 2)
        if row["again"]:
            assert row["again"]["measured"] <= row["again"]["bound"] <= row["again"]["tol"]


def test_the_table_of_runs_is_the_record(record):
    text = README.read_text()
    for row in record["rows"]:
        if not row["again"]:
            continue
        run, bare = (1e3 * row["again"]["seconds"][name] for name in ("run", "bare"))
        over, bound = row["again"]["over_bare"], row["again"]["bound"]
        assert f"| {row['key']} | {run:.2f} | {bare:.2f} | {over:.2f} | {bound:.1e} |" in text
        assert over == pytest.approx(run / bare)


def test_findings_follow_from_the_numbers(record):
    speed, own, again = gpu.findings(record)
    assert {speed.verdict, own.verdict, again.verdict} == {HOLDS}
    worse = copy.deepcopy(record)
    for row in worse["rows"]:
        if row["again"] and row["n"] == gpu.LENGTH:
            row["again"]["over_bare"] *= 1.3
        row["ratios"] = {name: 0.1 * ratio for name, ratio in row["ratios"].items()}
        row["own_polynomial"] *= 10.0
    assert {finding.verdict for finding in gpu.findings(worse)} == {FAILS}


@pytest.fixture
def without_device(monkeypatch):
    """Stand in for what needs a device, so that a row is put together without one."""
    pool = SimpleNamespace(free_all_blocks=lambda: None)
    fake = SimpleNamespace(get_default_memory_pool=lambda: pool)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(gpu, "drawn", lambda heads, n, m, seed: seed)
    monkeypatch.setattr(gpu, "check", lambda *shape: 1e-4)
    monkeypatch.setattr(gpu, "errors", lambda *given: {"own_polynomial": 1e-4})
    monkeypatch.setattr(gpu, "median_seconds", lambda calls: {"graph": 1.0, "sets": len(calls)})
    monkeypatch.setattr(gpu, "cudnn", lambda n: 7.0)


@pytest.mark.parametrize(("n", "heads", "sets"), [(4096, 1, 4), (65_536, 16, 2), (524_288, 1, 2)])
def test_a_row_says_how_many_inputs_it_was_timed_on(without_device, n, heads, sets):
    row = gpu._row((3, "bfloat16", n, heads), None)
    assert row["input_sets"] == row["seconds"]["sets"] == sets
    assert row["ratios"] == {"cuDNN, bfloat16": 7.0 * heads}


@pytest.mark.parametrize("at", range(len(gpu.ODD)))
@pytest.mark.parametrize("wrong", [float("nan"), 1e-2])
def test_one_wrong_check_is_enough(without_device, monkeypatch, at, wrong):
    found = [1e-4] * len(gpu.ODD)
    found[at] = wrong  # NaN: two runs differ in a bit
    monkeypatch.setattr(gpu, "check", lambda *shape: found[gpu.ODD.index(shape[2:])])
    with pytest.raises(AssertionError, match="no time is taken of a wrong answer"):
        gpu._row((3, "bfloat16", 4096, 1), None)


def test_a_row_of_the_table_has_all_columns(record):
    assert all(len(row) == len(gpu.HEADER) for row in gpu.table_rows(record))
