"""The README tells the truth: its code runs, and its figures are those of the committed record."""

import json
import re
from pathlib import Path

import numpy as np

import subquad

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_code_runs_and_certifies(capsys):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102
    printed = capsys.readouterr().out
    assert "certified, cheapest   <- chosen" in printed
    res, Q, K, V = (names[name] for name in ("res", "Q", "K", "V"))
    assert res.certificate.bound <= 3e-3
    weights = np.exp(Q @ K.T / np.sqrt(8))
    radius = (V.max(axis=0) - V.min(axis=0)) / 2
    exact = weights @ V / weights.sum(axis=1, keepdims=True)
    assert np.max(np.abs(res.output - exact) / radius) <= res.certificate.bound
    told = subquad.attention(Q, K, V, tol=3e-3, method="polynomial")  # on any machine
    assert str(told.certificate) in TEXT
    error = np.max(np.abs(told.output - exact) / radius)
    assert f"the error is {error:.1e}, beside the proved bound of {told.certificate.bound:.1e}" in (
        " ".join(TEXT.split())
    )
    mean_error = np.max(np.abs(V.mean(axis=0) - exact) / radius)
    assert f"off by {mean_error:.1e}" in TEXT


def test_the_speed_table_is_the_committed_record():
    record = json.loads((ROOT / "experiments/results/bench.json").read_text())
    ways = record["rows"][0]["ways"]
    for name in (
        "ours, clean",
        "ours, clean, fast",
        "ours, outliers",
        "ours, outliers, fast",
        "SDPA",
        "NumPy softmax",
    ):
        seconds = ways[name]["seconds"]
        assert f"| {seconds:.2f} s | {ways['SDPA']['seconds'] / seconds:.1f} |" in TEXT
    share = record["derived"]["share_of_the_floor"]["ours, clean, fast"]
    assert f"with `fast` {share:.0%} of our time".replace("%", " %") in " ".join(TEXT.split())
    assert record["date"] in TEXT
    assert record["machine"]["processor"] in TEXT


def test_the_slopes_are_those_of_the_committed_record():
    record = json.loads((ROOT / "experiments/results/scaling.json").read_text())
    first, second = (fit["slope"] for fit in record["derived"].values())
    lengths, d = record["settings"]["lengths"], record["settings"]["d"]
    told = " ".join(TEXT.split())
    assert f"From {min(lengths):,} to {max(lengths):,} tokens (d = {d})" in told
    assert f"log n is {first:.2f} for one polynomial and {second:.2f} with 64 large rows" in told


def test_the_gpu_tables_are_the_committed_records():
    one, many = (
        json.loads((ROOT / f"experiments/results/{name}.json").read_text())
        for name in ("gpu", "many_gpus")
    )
    for row in one["rows"]:
        for peer, ratio in row["ratios"].items():
            time = 1e6 * row["seconds"]["graph"]
            assert f"| {row['key']} | {time:,.0f} | {peer} | {ratio:.1f} |" in TEXT
    for row in many["rows"]:
        alone, together = (1e3 * row["seconds"][name] for name in ("one", "all"))
        assert f"| {row['key']} | {alone:.1f} | {together:.1f} | {row['efficiency']:.2f} |" in TEXT
    for row in (row for row in one["rows"] if row["again"]):
        again = row["again"]
        run, bare = (1e3 * again["seconds"][name] for name in ("run", "bare"))
        cells = f"{run:.2f} | {bare:.2f} | {again['over_bare']:.2f} | {again['bound']:.1e}"
        assert f"| {row['key']} | {cells} |" in TEXT
    assert one["date"] == many["date"] and one["date"] in TEXT
    for record in (one, many):
        assert record["settings"]["device"].split(" 80GB")[0] in TEXT


def test_every_method_has_a_line():
    for name in subquad.METHODS:
        assert f"| `{name}` |" in TEXT
