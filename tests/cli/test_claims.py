"""`subquad claims`: a run, its JSON, the tree; one claim shown; ids that there are not."""

import pytest

from proofs_checks import registry


def test_a_claim_is_shown(call, monkeypatch):
    monkeypatch.setattr(registry, "run", None)
    code, out, errors = call("claims", "show", "ratio-sharp")
    assert code == 0 and not errors
    words = " ".join(out.split())
    assert "steps 1. F(eps, eps) = 2(1 - sqrt(1 - eps^2))/eps 2. eps = 4t/(4 + t^2)" in words
    assert "twin the bound is 1 % smaller must be refuted" in words
    assert "rests on output-bound claims on it as23-2eps output-bound-gain" in words
    assert "functions on it subquad.bounds.softmax.ratio_bound " in words


def test_an_id_that_there_is_not(call):
    code, out, errors = call("claims", "show", "rato-sharp")
    assert code == 2 and not out
    assert "no claim has the id 'rato-sharp'; near it are ratio-sharp" in errors
    assert "`subquad claims --tree` prints all ids." in errors


def test_show_takes_an_id_alone(call, tmp_path):
    code, out, errors = call("claims", "--json", tmp_path / "x.json", "show", "ratio-sharp")
    assert code == 2 and not out
    assert "`claims show` takes an id and no options; leave out `--json`." in errors
    assert call("claims", "show")[0] == 2


def test_claims_by_id_and_as_a_tree(call, tmp_path):
    code, out, _ = call("claims", "--id", "ratio-sharp", "--json", tmp_path / "claims.json")
    assert code == 0 and "ratio-sharp" in out
    assert "ratio-sharp" in (tmp_path / "claims.json").read_text()
    code, out, _ = call("claims", "--tree")
    assert code == 0 and "output-bound" in out


def test_claims_that_could_not_be_written_are_not_run(call, tmp_path):
    folder = tmp_path / "none"
    code, out, errors = call("claims", "--id", "ratio-sharp", "--json", folder / "x.json")
    assert code == 2 and not out
    assert f"`--json` is {folder / 'x.json'}, but the folder {folder} does not exist." in errors
    code, out, errors = call("claims", "--tree", "--json", tmp_path / "x.json")
    assert code == 2 and "`--json` goes with a run, and `--tree` runs nothing" in errors and not out
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--source", "nosuch"), "no claim has source 'nosuch'\n"),
        (("--id", "nosuch"), "no claim has id 'nosuch'\n"),
        (("--id", "a", "--source", "nosuch"), "no claim has id 'a' and source 'nosuch'\n"),
    ],
)
def test_claims_that_there_are_not(call, tmp_path, words, said):
    code, _, errors = call("claims", *words, "--json", tmp_path / "x.json")
    assert code == 2 and errors == said
    assert not any(tmp_path.iterdir())
