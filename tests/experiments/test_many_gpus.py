"""The record of several GPUs against one: what was timed was right, and its table can be made."""

import json
from pathlib import Path

import pytest

from experiments import many_gpus

PATH = Path(many_gpus.__file__).parent / "results" / "many_gpus.json"


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
