"""The record of several GPUs against one: what was timed was right, and its table can be made."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import subquad.engine
from experiments.harness import many_gpus_passes
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
        "null_errors": lambda *x: {},
        "check": lambda fleet, *rest: float("nan") if fleet.label == wrong else 1e-7,
        "_seconds": lambda fleet, *rest: 1.0 if fleet.label == "one" else 0.625,
    }.items():
        monkeypatch.setattr(many_gpus, name, value)
    if wrong is None:
        assert many_gpus._row("float32", 64, 2, None)["efficiency"] == 0.8
        return
    with pytest.raises(AssertionError, match="no time is taken of a wrong answer"):
        many_gpus._row("float32", 64, 2, None)


def test_null_models_are_held_against_the_same_polynomial():
    """In NumPy: softmax by a polynomial of degree 2 whose first-order part is the expansion."""
    rng = np.random.default_rng(5)
    Q, K = (0.05 * rng.standard_normal((n, 64)) for n in (40, 300))
    W = np.concatenate([rng.uniform(0.5, 2.0, (300, 64)), np.ones((300, 1))], axis=1)
    logits = Q @ K.T
    sums = (1.0 + logits + logits**2 / 2.0) @ W
    expected, rows = sums[:, :64] / sums[:, 64:], np.array([3, 17, 39])
    found = many_gpus_passes.null_errors((Q, K, W), expected[rows], rows)
    away = W[:, :64].mean(axis=0) - expected[rows]
    sizes = [
        np.linalg.norm(away[:, c]) / np.linalg.norm(expected[rows][:, c])
        for c in (slice(0, 1), slice(1, None))
    ]
    assert found["mean_v"] == pytest.approx(max(sizes))
    assert 0.0 < found["first_order"] < 0.1 * found["mean_v"]
    assert {"mean(V)", "first order"} <= set(many_gpus.HEADER)
