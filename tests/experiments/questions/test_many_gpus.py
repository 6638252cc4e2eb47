"""The record of several GPUs against one: what was timed was right, and its table can be made."""

import json
import sys
from types import SimpleNamespace

import pytest

import subquad.engine
from experiments.harness.store import RESULTS
from experiments.questions import many_gpus

PATH = RESULTS / "many_gpus.json"


@pytest.fixture
def record():
    return json.loads(PATH.read_text())


def test_only_what_was_right_was_timed(record):
    assert record["complete"]
    assert {row["operands"] for row in record["rows"]} == set(many_gpus.LARGEST_OWN)
    for row in record["rows"]:
        assert max(row["own_polynomial"].values()) <= many_gpus.LARGEST_OWN[row["operands"]]
        efficiency = row["seconds"]["one"] / row["seconds"]["all"] / row["devices"]
        assert efficiency == pytest.approx(row["efficiency"])


def test_the_table_has_a_cell_for_every_heading(record):
    rows = many_gpus.table_rows(record)
    assert len(rows) == len(record["rows"])
    assert all(len(row) == len(many_gpus.HEADER) for row in rows)


@pytest.mark.parametrize("wrong", ["one", "all", "uneven", None])
def test_one_wrong_way_is_enough(monkeypatch, wrong):
    """NaN, where two runs differ in a bit, among ways that are right; nothing of it on a device."""
    pool = SimpleNamespace(free_all_blocks=lambda: None)
    fake = SimpleNamespace(get_default_memory_pool=lambda: pool)
    every = SimpleNamespace(label="all", _communicators=())
    fleets = SimpleNamespace(
        of_devices=lambda *numbers: SimpleNamespace(label="one") if len(numbers) == 1 else every,
        GpuFleet=lambda *given: SimpleNamespace(label="uneven"),
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "subquad.engine.shards.gpu_fleet", fleets)
    monkeypatch.setattr(subquad.engine, "gpu_fleet", fleets, raising=False)
    for name, value in {
        "drawn": lambda n: None,
        "oracle": lambda data, c: (None, None),
        "shards": lambda *x: None,
        "check": lambda fleet, *rest: float("nan") if fleet.label == wrong else 1e-7,
        "_seconds": lambda fleet, *rest: 1.0 if fleet.label == "one" else 0.625,
    }.items():
        monkeypatch.setattr(many_gpus, name, value)
    if wrong is None:
        assert many_gpus._row("float32", 64, 2, None)["efficiency"] == 0.8
        return
    with pytest.raises(AssertionError, match="no time is taken of a wrong answer"):
        many_gpus._row("float32", 64, 2, None)
