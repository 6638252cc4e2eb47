"""Showing a claim: true of the claim, and without running anything."""

import re
from dataclasses import replace
from functools import partial

import pytest

from proofs_checks import registry, showing, steps, used
from proofs_checks.claim import Finding, Twin, holds
from proofs_checks.proving import both, proved

IDS = list(registry.CLAIMS)


@pytest.mark.parametrize("name", IDS)
def test_the_steps_are_those_that_the_check_proves(records, name):
    """Names are read from the source; those of a refuted claim are its twin's."""
    record, shown = records[name], showing.sections(registry.CLAIMS[name])
    true = record.claim.expected == "holds"
    told = (record.found if true else record.twin_found).detail
    named = shown.get("steps" if true else "twin's steps", [])
    assert ("steps proved" in told) == bool(named)
    for i, step in enumerate(named, 1):
        number, _, text = step.partition(". ")
        assert number == str(i)
        assert re.search(re.sub(r"\\\{.*?\\\}", ".+?", re.escape(text)), told), step
    assert sum(int(x) for x in re.findall(r"(\d+) steps proved", told)) >= len(named)


@pytest.mark.parametrize("name", IDS)
def test_a_claim_is_shown_without_running_it(monkeypatch, name):
    def found(*_):
        pytest.fail("a check was run")

    monkeypatch.setattr(Finding, "__init__", found)
    claim = registry.CLAIMS[name]
    shown = showing.sections(claim)
    assert shown["statement"] == [claim.statement]
    assert claim.source in shown["source"][0] and claim.provenance in shown["source"][0]
    assert (
        shown["expected"][0].startswith(claim.expected) and claim.evidence in shown["expected"][0]
    )
    must = {"refuted": "must be refuted", "holds": "must hold"}[claim.twin.expected]
    assert shown["twin"] == [claim.twin.statement, must]
    assert shown["check"][0].startswith("proofs_checks.checks.")
    assert tuple(shown.get("rests on", ())) == claim.depends
    for above in shown.get("claims on it", ()):
        assert name in registry.CLAIMS[above].depends
    assert len(shown.get("functions on it", ())) == sum(claim == name for claim, _ in used.USED)
    assert all(shown.values())


def test_the_functions_and_terms_on_a_claim():
    shown = showing.sections(registry.CLAIMS["rounding-storage"])
    assert shown["functions on it"] == [
        "subquad.bounds.rounding.storage_error",
        "subquad.bounds.rounding.conversion_error",
    ]
    assert any(re.fullmatch(r"Term 'storage', subquad/methods/method.py:\d+", x)
               for x in shown["terms on it"])  # fmt: skip
    assert showing.sections(registry.CLAIMS["output-bound"])["claims on it"] == [
        name for name in IDS if "output-bound" in registry.CLAIMS[name].depends
    ]


def test_places_are_lines_that_name_the_claim():
    places = [*used.terms(), *used.mentions()]
    assert len({place.claim for place in places}) > 10
    for place in places:
        line = (used.HOUSE / place.file).read_text().splitlines()[place.line - 1]
        assert place.claim in line or "Term(" in line or "laim" in line, place
        assert place in [*used.terms(place.claim), *used.mentions(place.claim)]


def _inner(d):
    found = {}
    for k in range(d):
        found[f"degree {k} of {d + 1}"] = True
    return proved(found)


def _outer(d):
    """Say something.

    And more.
    """
    return both(proved({"one": True, "t" + "wo": True}), _inner(d))


def test_steps_of_what_a_check_refers_to_and_made_as_it_runs(monkeypatch):
    for function in (_inner, _outer):
        monkeypatch.setattr(function, "__module__", "proofs_checks.checks.planted")
    assert steps.step_names(partial(_outer, 2)) == ["one", "'t' + 'wo'", "degree {k} of {d + 1}"]
    assert steps.described(partial(_outer, 2)) == [
        "proofs_checks.checks.planted",
        "_outer(2)",
        "Say something.",
    ]
    claim = replace(
        registry.CLAIMS["softmax-jacobian"], check=_outer, twin=Twin("x", lambda: holds("1"))
    )
    assert showing.sections(claim)["steps"][0] == "1. one"


@pytest.mark.parametrize(
    ("id", "near"),
    [
        ("rato-sharp", "near it are ratio-sharp"),
        ("RATIO-SHARP", "near it are ratio-sharp"),
        ("rounding", "rounding-gamma"),
        ("qqqqqqqq", "none is near it"),
        ("", "none is near it"),
    ],
)
def test_an_unknown_id_names_those_near_it(id, near):
    with pytest.raises(ValueError, match=f"no claim has the id '{id}'; .*{near}.*--tree"):
        showing.find(id)
