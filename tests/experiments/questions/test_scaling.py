"""The experiment on growth: its rows, its slope, and what it refuses to time."""

import dataclasses

import numpy as np
import pytest

from experiments import questions
from experiments.harness import store
from experiments.questions import bench, crossover, scaling
from subquad import TYPICAL


def test_a_record_of_growth():
    record = store.run(scaling.experiment(d=4, lengths=(256, 512, 1024), repeats=1), rates=TYPICAL)
    names = [row["family"] for row in record["rows"]]
    assert names == list(scaling.FAMILIES)
    for row in record["rows"]:
        assert [p["n"] for p in row["points"]] == [256, 512, 1024]
        assert all(0 < p["measured"] <= p["bound"] <= 1e-2 for p in row["points"])
    spoiled = record["rows"][1]["points"]
    assert all("64 rows and 64 keys exact" in p["parameters"] for p in spoiled)
    assert len(scaling.table_rows(record)) == 6
    assert {len(line) for line in scaling.table_rows(record)} == {len(scaling.HEADER)}
    (finding,) = questions.findings(record)
    assert "from 256 to 1,024 tokens" in finding["statement"]


@pytest.mark.parametrize(("power", "verdict"), [(1.0, "holds"), (1.2, "does not hold")])
def test_the_verdict_is_of_the_slope_over_all_lengths(power, verdict):
    lengths = [2**k for k in range(14, 21)]
    rows = [
        {"family": name, "points": [{"n": n, "seconds": 1e-7 * n**power} for n in lengths]}
        for name in ("a", "b")
    ]
    derived = scaling.growth(rows)
    assert derived["a"]["slope"] == pytest.approx(power)
    assert derived["a"]["points"] == 7
    record = {"derived": derived, "settings": {"lengths": lengths}}
    assert scaling.findings(record)[0].verdict == verdict
    # Bent at the upper end: half of the lengths would not see the lower one.
    bent = [1e-7 * max(n, 2**17) for n in lengths]
    steep, flat = crossover.slope(lengths, bent), crossover.slope(lengths, bent, share=1.0)
    assert steep["points"] == 5 and flat["points"] == 7
    assert flat["slope"] < steep["slope"]


@pytest.mark.parametrize("module", [scaling, bench])
def test_a_broken_bound_is_not_timed(module):
    data = scaling._clean(64, 4)
    result = scaling.subquad.attention(*data[:3], tol=1e-2, scale=data[3])
    found = module._checked(result, data)
    assert found["measured"] <= found["bound"] == result.certificate.bound
    assert found["parameters"] == str(result.plan.heads[0].chosen.parameters)
    null = found.get("null", found)
    assert null["mean_v"]["measured"] > null["first_order"]["measured"] > 0.0
    wrong = dataclasses.replace(result, output=result.output + np.float32(1.0))
    with pytest.raises(AssertionError, match="no time is taken of a wrong answer"):
        module._checked(wrong, data)
