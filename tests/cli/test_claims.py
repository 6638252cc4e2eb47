"""`subquad claims show`: one claim on the screen, and what is said of ids that there are not."""

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
