"""Running claims: the table, the JSON, the exit code, and a check that breaks."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from proofs_checks import __main__ as command
from proofs_checks import registry
from proofs_checks.claim import Twin, decide, holds, refuted, undecided

FIELDS = {
    "id",
    "statement",
    "source",
    "provenance",
    "evidence",
    "depends",
    "verdict",
    "expected",
    "detail",
    "twin",
    "as_expected",
    "seconds",
}


def planted(found, twin_found=refuted, **changes):
    twin = Twin("the planted twin", lambda: twin_found("2 < 1"))
    blank = replace(registry.CLAIMS["ratio-sharp"], id="planted", twin=twin, depends=())
    return replace(blank, check=lambda: found("1 < 2"), **changes)


def exit_code(monkeypatch, claim, *arguments):
    monkeypatch.setattr(registry, "CLAIMS", {claim.id: claim})
    return command.main(["--id", claim.id, *arguments])


def test_exit_0_when_all_is_as_expected(monkeypatch, capsys):
    assert exit_code(monkeypatch, planted(holds)) == 0
    assert "1 of 1 claims as expected" in capsys.readouterr().out


@pytest.mark.parametrize(
    "claim",
    [
        planted(refuted),
        planted(undecided),
        planted(holds, holds),
        planted(holds, undecided),
        planted(holds, expected="refuted"),
    ],
)
def test_exit_1_on_a_wrong_claim_or_twin(monkeypatch, capsys, claim):
    assert exit_code(monkeypatch, claim) == 1
    out = capsys.readouterr().out
    assert "not as expected planted" in out
    assert "0 of 1 claims as expected" in out


def test_exit_2_when_nothing_is_selected(capsys):
    assert command.main(["--id", "no-such-claim"]) == 2
    assert "no claim has id 'no-such-claim'" in capsys.readouterr().err


def test_an_exception_in_a_check_is_undecided_and_never_true():
    def breaks():
        return holds(str(1 / 0))

    record = decide(replace(planted(holds), check=breaks))
    assert record.found.verdict == "undecided"
    assert "ZeroDivisionError" in record.found.detail
    assert not record.as_expected


def test_json_has_one_record_per_claim(monkeypatch, tmp_path, capsys):
    file = tmp_path / "claims.json"
    assert exit_code(monkeypatch, planted(holds), "--json", str(file)) == 0
    (record,) = json.loads(file.read_text())
    assert set(record) == FIELDS
    assert record["verdict"] == "holds" and record["twin"]["verdict"] == "refuted"
    assert set(record["twin"]) == {"statement", "verdict", "expected", "detail"}


@pytest.mark.parametrize("name", registry.CLAIMS)
def test_json_of_a_claim(records, name):
    (found,) = json.loads(registry.to_json([records[name]]))
    assert set(found) == FIELDS and found["id"] == name and found["as_expected"]


def test_json_keeps_the_order(records):
    names = ["softmax-jacobian", "sb-eq44", "ratio-sharp"]
    found = json.loads(registry.to_json(records[name] for name in names))
    assert [record["id"] for record in found] == names


def test_the_counterexample_is_printed(records):
    console = Console(width=200, file=io.StringIO())
    command.show([records["sb-eq44"]], console)
    assert "D = 0.270671 < 5.436564" in console.file.getvalue()


def test_the_tree_runs_nothing(capsys):
    assert command.main(["--tree", "--id", "sb-eq44"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sb-eq44")
    assert lines[1].startswith("  normaliser-centred")


def test_progress_is_told_each_claim_before_it_runs():
    told = []
    claims = [planted(holds), replace(planted(holds), id="second")]
    registry.run(claims, lambda claim: told.append(claim.id))
    assert told == ["planted", "second"]
