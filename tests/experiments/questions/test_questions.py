"""An experiment is one file: found by walking the folder, with all that the others ask of it."""

import sys

import pytest

from experiments import __main__, questions
from experiments.harness.kept import Kept
from experiments.harness.store import RESULTS, Experiment
from experiments.report import report

PLANTED = """
from ..harness.finding import Finding
from ..harness.kept import Kept
from ..harness.store import Experiment
from subquad import TYPICAL

QUESTION = "Is one one?"
HEADER = ("x",)


def experiment(quick=False):
    cases = {"only": lambda rates: {"x": 1.0}}
    return Experiment("planted", QUESTION, {"seed": None}, cases, rates=TYPICAL)


def table_rows(record):
    return [[row["x"]] for row in record["rows"]]


def light(quick):
    return experiment(quick)


def FINDINGS(record):
    return [Finding("one", "holds", "One is one.", "By counting.")]


KEPT = Kept(15, "One")
"""


@pytest.mark.parametrize("name", questions.names())
def test_a_question_exports_what_is_asked_of_it(name):
    module = questions.load(name)
    assert module.QUESTION.endswith("?")
    assert callable(module.FINDINGS) and callable(module.experiment)
    assert module.KEPT is None or isinstance(module.KEPT, Kept)
    assert len(module.HEADER) > 1
    if hasattr(module, "light"):
        for quick in (False, True):
            made = module.light(quick)
            assert isinstance(made, Experiment)
            assert (made.name, made.question) == (name, module.QUESTION)


def test_all_committed_records_are_of_a_question():
    assert {path.stem for path in RESULTS.glob("*.json")} <= set(questions.names())
    assert set(report.committed()) == {path.stem for path in RESULTS.glob("*.json")}


def test_places_are_apart():
    places = [questions.load(name).KEPT.place for name in questions.names()]
    assert places == sorted(set(places))


def test_one_file_is_all_that_an_experiment_needs(tmp_path, monkeypatch, capsys):
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.setattr(questions, "__path__", [*questions.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "experiments.questions.planted", raising=False)
    try:
        assert "planted" in questions.names()
        assert questions.names()[1] == "planted"  # by its place
        assert __main__.main(["planted", "--out", str(tmp_path / "x.json")]) == 0
        assert "Is one one?" in capsys.readouterr().out
        assert "planted" in {made.name for made in report.light(True)}
        record = report.read_json(tmp_path / "x.json")
        assert questions.findings(record)[0]["claim"] == "one"
    finally:
        sys.modules.pop("experiments.questions.planted", None)
