"""What `make lint` asks of docstrings is asked of all of them, and a poor one is seen."""

import inspect

import pytest

import subquad
import subquad.cluster
from subquad.bounds.partial import Partial
from subquad.head.frame import Frame
from subquad.methods.method import Method, Proposal
from tests.docstrings import errors, explained


def test_every_public_name_is_checked():
    checked = [*explained().values()]
    for room in (subquad, subquad.cluster):
        for name in room.__all__:
            thing = getattr(room, name)
            kind = inspect.isclass(thing) or inspect.isroutine(thing)
            assert thing in checked if kind else name in ("METHODS", "TYPICAL")
    named = {name.removeprefix("subquad.") for name in explained()}
    assert {f"methods.method.Method.{verb}" for verb in ("fit", "certify", "work", "run")} <= named
    assert {"bounds.partial.Partial.finish", "head.stats.Stats.logit_bound"} <= named


@pytest.mark.parametrize(
    ("thing", "docstring", "seen"),
    [
        (Frame.queries, "Return the queries.", ("PR01", "no Returns section")),
        (Method.run, "Return the sums.", ("PR01", "no Returns section")),
        (Proposal, "A way.", ("PR01",)),
        (Partial.finish, None, ("GL08", "no Returns section")),
        (subquad.attention, "Return it.\n\nParameters\n----------\nq : array\n", ("PR02", "PR07")),
    ],
)
def test_a_poor_docstring_is_seen(thing, docstring, seen, monkeypatch):
    name = f"{thing.__module__}.{thing.__qualname__}"
    assert [*errors(name, thing)] == []
    monkeypatch.setattr(thing, "__doc__", docstring)
    found = " ".join(errors(name, thing))
    assert all(words in found for words in seen)
