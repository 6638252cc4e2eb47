"""The experiment on certificates: every row within its bound, the null models in the table."""

import json

import pytest

import subquad
from experiments import questions
from experiments.harness import instances
from experiments.harness.store import run
from experiments.questions import certificates

SMALL = {
    "n": 256,
    "degrees": (2, 4),
    "families": ("gauss(0.5), d = 8", "outliers, d = 8"),
    "heads": instances.real_names()[:1],
}


@pytest.fixture(scope="module")
def record():
    return run(certificates.experiment(**SMALL), rates=subquad.TYPICAL)


def test_every_row_is_within_its_bound(record):
    assert record["complete"]
    assert record["derived"]["sound"] == record["derived"]["runs"] == len(record["rows"]) == 6
    for row in record["rows"]:
        assert row["sound"]
        if row["fitted"]["worst"] is not None:
            assert row["measured"]["worst"] <= row["fitted"]["worst"]
            assert row["fitted"]["median"] <= row["fitted"]["worst"]


def test_fitted_bounds_are_smaller_and_more_so_at_higher_degree(record):
    two, four = (r for r in record["rows"] if r["instance"].startswith("gauss"))
    assert (two["degree"], four["degree"]) == (2, 4)
    assert 1.0 < two["a_priori_over_fitted"] < four["a_priori_over_fitted"]
    assert two["a_priori"] / two["fitted"]["median"] > 5.0
    assert two["gains"]["1048576"] > two["gains"]["65536"] > 1.0


def test_the_table_has_the_null_models(record):
    rows = certificates.table_rows(record)
    assert all(len(row) == len(certificates.HEADER) for row in rows)
    at = certificates.HEADER.index("mean(V)")
    assert certificates.HEADER[at + 1] == "first order"
    assert all(row[at] > 0.0 for row in rows)
    json.dumps(record, allow_nan=False)


def test_the_finding_holds_only_where_every_bound_is_sound_and_smaller(record):
    smaller = record["derived"]["a_priori_over_fitted"]
    assert set(smaller) == {
        f"{kind}, degree {g}" for kind in ("synthetic", "real heads") for g in (2, 4)
    }

    def verdict(sound, least):
        other = json.loads(json.dumps(record))
        other["derived"]["sound"] = sound
        for found in other["derived"]["a_priori_over_fitted"].values():
            found["least"] = least
        return questions.findings(other)[0]["verdict"]

    assert [verdict(6, 1.1), verdict(6, 0.9), verdict(5, 1.1)] == [
        "holds",
        "partly",
        "does not hold",
    ]


def test_degrees_of_too_many_features_are_left_out():
    cases = certificates.experiment(n=64, families=("gauss(0.3), d = 64",), heads=()).cases
    assert list(cases) == ["gauss(0.3), d = 64, degree 2"]


def test_it_runs_by_name():
    assert "certificates" in questions.names()
