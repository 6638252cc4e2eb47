"""A killed run loses one row, goes on with the rest, and starts anew when its ground has moved."""

import dataclasses
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.harness import store
from experiments.harness.store import Experiment
from subquad import TYPICAL


def counting(calls, fails_at=None, settings=None, keys="abcd"):
    def case(key):
        def run(rates):
            if key == fails_at:
                raise KeyboardInterrupt
            calls.append(key)
            return {"value": ord(key), "exact_flops": rates.float32.exact_flops}

        return run

    return Experiment(
        "counting",
        "Does it count?",
        {"seed": 0, **(settings or {})},
        {k: case(k) for k in keys},
        lambda rows: {"sum": sum(row["value"] for row in rows)},
    )


def killed(path, calls):
    with pytest.raises(KeyboardInterrupt):
        store.run(counting(calls, fails_at="c"), path, rates=TYPICAL)


def test_killed_run_keeps_its_finished_rows(tmp_path):
    path, calls = tmp_path / "deep" / "counting.json", []
    killed(path, calls)
    found = json.loads(path.read_text())
    assert [row["key"] for row in found["rows"]] == ["a", "b"]
    assert found["complete"] is False
    assert [p.name for p in path.parent.iterdir()] == ["counting.json"]


def test_resumed_run_makes_the_missing_rows_with_the_same_rates(tmp_path):
    path, calls = tmp_path / "counting.json", []
    killed(path, calls)
    said = []
    record = store.run(counting(calls), path, progress=said.append)
    assert calls == ["a", "b", "c", "d"]
    assert said == ["counting 3/4: c", "counting 4/4: d"]
    assert {row["exact_flops"] for row in record["rows"]} == {TYPICAL.float32.exact_flops}
    assert record["complete"] is True
    assert record["derived"] == {"sum": sum(map(ord, "abcd"))}
    assert record == json.loads(path.read_text())
    store.run(counting(calls), path)
    assert calls == ["a", "b", "c", "d"]


def test_fresh_makes_every_row_again(tmp_path):
    path, calls = tmp_path / "counting.json", []
    killed(path, calls)
    store.run(counting(calls), path, fresh=True, rates=TYPICAL)
    assert calls == ["a", "b", "a", "b", "c", "d"]


@pytest.mark.parametrize("change", ["settings", "versions", "machine", "schema", "name"])
def test_moved_ground_starts_anew(tmp_path, monkeypatch, change):
    path, calls = tmp_path / "counting.json", []
    killed(path, calls)
    experiment = counting(calls)
    if change == "settings":
        experiment = counting(calls, settings={"n": 8})
    elif change == "name":
        experiment = dataclasses.replace(experiment, name="other")
    elif change == "schema":
        monkeypatch.setattr(store, "SCHEMA", store.SCHEMA + 1)
    else:
        monkeypatch.setattr(store, change, lambda: {"numpy": "0"})
    store.run(experiment, path, rates=TYPICAL)
    assert calls == ["a", "b", "a", "b", "c", "d"]


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_broken_file_starts_anew(tmp_path, text):
    path, calls = tmp_path / "counting.json", []
    path.write_text(text)
    store.run(counting(calls), path, rates=TYPICAL)
    assert calls == ["a", "b", "c", "d"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    store.write_json({"a": 1}, path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_json({"a": math.nan}, path)
    assert json.loads(path.read_text()) == {"a": 1}


def test_plain_values():
    given = {1: (np.float32(0.5), np.int64(3), np.bool_(True)), "b": [math.inf, None, "text"]}
    assert store.plain(given) == {"1": [0.5, 3, True], "b": [None, None, "text"]}
    with pytest.raises(ValueError, match="a result is NaN"):
        store.plain([np.float64("nan")])


def test_rates_survive_json():
    assert store.rates_from(json.loads(json.dumps(TYPICAL.as_dict()))) == TYPICAL


def test_record_names_versions_and_machine_but_no_place(tmp_path):
    record = store.run(counting([]), tmp_path / "x.json", rates=TYPICAL)
    assert {"python", "subquad", "numpy", "scipy", "python-flint"} <= set(record["versions"])
    assert set(record["machine"]) == {"processor", "cores", "threads"}
    assert str(tmp_path) not in json.dumps(record)


def test_rates_of_the_experiment_come_first(tmp_path):
    fixed = dataclasses.replace(TYPICAL, overhead=0.5)
    experiment = dataclasses.replace(counting([]), rates=fixed)
    record = store.run(experiment, tmp_path / "x.json", rates=TYPICAL)
    assert store.rates_from(record["rates"]) == fixed


def test_infinite_rates_come_back(tmp_path):
    free = dataclasses.replace(TYPICAL.float64, elements=math.inf)
    fixed = dataclasses.replace(TYPICAL, float64=free)
    record = store.run(counting([]), tmp_path / "x.json", rates=fixed)
    assert record["rates"]["float64"]["elements"] is None
    assert store.rates_from(record["rates"]) == fixed


KILLED = """
import os, signal, sys
from pathlib import Path
from experiments.harness import store

moment, folder = int(sys.argv[1]), Path(sys.argv[2])
steps = iter(range(9))
whole, replace = Path.write_text, os.replace


def write(path, text, **options):
    if next(steps) == moment:
        whole(path, text[: len(text) // 2], **options)
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(path, text, **options)


def put(part, path):
    if next(steps) == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(part, path)


Path.write_text, os.replace = write, put
store.write_texts({folder / name: "the new text" for name in ("page", "numbers")})
"""


@pytest.mark.parametrize("moment", range(3))
def test_a_killed_run_leaves_the_old_files(moment, tmp_path):
    """Killed while it writes the first file or the second, and before it puts one in its place."""
    for name in ("page", "numbers"):
        (tmp_path / name).write_text("the old text")
    root = Path(store.__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(moment), str(tmp_path)]
    assert subprocess.run(command, cwd=root).returncode == -signal.SIGKILL
    assert {(tmp_path / name).read_text() for name in ("page", "numbers")} == {"the old text"}
    store.write_texts({tmp_path / name: "the next text" for name in ("page", "numbers")})
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"page": "the next text", "numbers": "the next text"}
