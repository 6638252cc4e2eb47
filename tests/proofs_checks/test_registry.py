"""The registry as a whole: ids, what rests on what, and every verdict as it should be."""

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proofs_checks import checks, registry
from proofs_checks.claim import Twin, holds, refuted

IDS = list(registry.CLAIMS)


@pytest.mark.parametrize("name", IDS)
def test_every_claim_and_twin_is_as_expected(records, name):
    record = records[name]
    assert record.found.verdict == record.claim.expected, record.found.detail
    assert record.twin_found.verdict == record.claim.twin.expected, record.twin_found.detail


def test_no_verdict_stands_for_undecided():
    for claim in registry.CLAIMS.values():
        assert claim.expected in ("holds", "refuted")
        assert {claim.expected, claim.twin.expected} == {"holds", "refuted"}, claim.id


def test_ids_are_stable_words():
    for name in IDS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)


@pytest.mark.parametrize("name", IDS)
def test_evidence_and_verdict_go_together(records, name):
    """What is refuted shows a counterexample in numbers; what is statistical its confidence."""
    record = records[name]
    claim = record.claim
    if claim.evidence == "counterexample":
        assert claim.expected == "refuted"
    if claim.expected == "refuted":
        assert claim.evidence != "statistical"
        assert re.search(r"\d|oo", record.found.detail)
    if claim.evidence == "statistical":
        assert "confidence" in record.found.detail
    assert record.twin_found.detail and record.found.detail


def test_literature_is_apart_from_ours():
    theirs = {claim.id for claim in registry.LITERATURE}
    ours = {claim.id for claim in registry.DERIVED}
    assert not theirs & ours
    assert theirs | ours == set(IDS)
    assert all(claim.provenance in ("derived", "recalled") for claim in registry.DERIVED)


def test_recalled_papers_are_never_said_to_be_read():
    """Papers whose text nobody here has read: see the provenance tags of the theory notes."""
    unread = ("2302.13214", "2205.06249", "2505.14840", "2410.04271", "2310.01655")
    for claim in registry.CLAIMS.values():
        if any(number in claim.source for number in unread) and "abstract" not in claim.source:
            assert claim.provenance != "read", claim.id
        if "2510.01643" in claim.source and "README" not in claim.source:
            assert claim.provenance != "read", claim.id  # its code and README were read


def claim(name, depends=()):
    twin = Twin("not so", lambda: refuted("1"))
    blank = replace(registry.CLAIMS["ratio-sharp"], id=name, depends=tuple(depends), twin=twin)
    return replace(blank, check=lambda: holds("1"))


def test_two_claims_of_one_id_are_refused():
    with pytest.raises(ValueError, match="two claims have the id 'one'"):
        registry.by_id([claim("one"), claim("one")])


def test_what_is_no_claim_cannot_be_rested_on():
    with pytest.raises(ValueError, match="'one' depends on 'two', which is no claim"):
        registry.by_id([claim("one", ["two"])])


def test_a_circle_is_named():
    circle = [claim("one", ["two"]), claim("two", ["three"]), claim("three", ["one"])]
    with pytest.raises(ValueError, match="one -> two -> three -> one"):
        registry.by_id(circle)


def test_order_puts_each_claim_after_those_it_rests_on():
    order = registry.in_order(registry.CLAIMS)
    assert sorted(order) == sorted(IDS)
    for name, found in registry.CLAIMS.items():
        assert all(order.index(below) < order.index(name) for below in found.depends)


def test_the_tree_prints_what_a_claim_rests_on():
    claims = registry.by_id(
        [claim("top", ["left", "right"]), claim("left", ["low"]), claim("right"), claim("low")]
    )
    lines = registry.tree("top", claims).splitlines()
    assert [line.split()[0] for line in lines] == ["top", "left", "low", "right"]
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 4, 2]
    assert registry.roots(claims) == ["top"]


def test_select_by_source_and_by_id():
    assert [c.id for c in registry.select(id="sb-eq44")] == ["sb-eq44"]
    assert all("Aliakbarpour" in c.source for c in registry.select(source="aliakbarpour"))
    assert len(registry.select()) == len(IDS)
    assert registry.select(id="no such claim") == []


def test_no_claim_is_forgotten():
    """Every Claim that a file of checks makes, under whatever name, is in the registry."""
    made = []
    for path in Path(checks.__file__).parent.rglob("*.py"):
        calls = [x for x in ast.walk(ast.parse(path.read_text())) if isinstance(x, ast.Call)]
        for call in calls:
            if getattr(call.func, "id", getattr(call.func, "attr", "")) == "Claim":
                (name,) = (k.value for k in call.keywords if k.arg == "id")
                made.append(ast.literal_eval(name))
    assert sorted(made) == sorted(IDS)


def test_a_file_of_claims_is_found_by_being_there(tmp_path, monkeypatch):
    room = tmp_path / "planted"
    room.mkdir()
    (room / "__init__.py").touch()
    (room / "claims.py").write_text("DERIVED = ('ours',)\nLITERATURE = ('theirs', 'too')\n")
    (room / "help.py").write_text("NUMBER = 3\n")
    monkeypatch.setattr(checks, "__path__", [*checks.__path__, str(tmp_path)])
    assert tuple(registry.listed("DERIVED")) == (*registry.DERIVED, "ours")
    assert tuple(registry.listed("LITERATURE")) == (*registry.LITERATURE, "theirs", "too")


def test_the_order_is_that_of_the_files():
    """Literature, then ours, by room and file: the same in every process."""
    code = "from proofs_checks import registry; print(*registry.CLAIMS)"
    code += "; import sys; assert 'scipy.stats' not in sys.modules, 'a second to import'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == IDS
    assert IDS == [c.id for c in (*registry.LITERATURE, *registry.DERIVED)]
