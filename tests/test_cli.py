"""The command line, from its words to its exit code: numbers against an oracle, errors in words."""

import json
import re
import sys

import numpy as np
import pytest

import subquad
from subquad import cli
from tests import oracle


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function: words -> (exit code, standard output, errors)."""

    def called(*words):
        monkeypatch.setattr(sys, "argv", ["subquad", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return called


def arrays(**others):
    rng = np.random.default_rng(3)
    Q, K = (0.3 * rng.standard_normal((rows, 5)).astype(np.float32) for rows in (40, 33))
    return {"Q": Q, "K": K, "V": rng.uniform(-1, 3, (33, 2)).astype(np.float32)} | others


@pytest.fixture
def head(tmp_path):
    """Return a function that writes arrays to a .npz and returns its path."""

    def written(**own):
        np.savez(tmp_path / "head.npz", **own)
        return tmp_path / "head.npz"

    return written


@pytest.mark.parametrize("others", [
    {}, {"scale": 0.7}, {"key_mask": np.arange(33) % 4 != 1},
], ids=["plain", "scale", "key_mask"])  # fmt: skip
def test_attend_checks_and_writes(call, head, tmp_path, others):
    given = arrays(**others)
    code, out, _ = call("attend", head(**given), "--tol", 1e-3, "--check", "--out", tmp_path / "o")
    assert code == 0
    kept = others.get("key_mask", np.ones(33, bool))
    scale = others.get("scale", 5**-0.5)
    with np.load(tmp_path / "o.npz") as written:
        errors = oracle.row_errors(
            written["output"], given["Q"], given["K"][kept], given["V"][kept], scale
        )
        assert np.all(errors <= written["row_bounds"]) and np.all(written["row_bounds"] <= 1e-3)
        certificate = json.loads(str(written["certificate"]))
        assert str(written["plan"]) in out
    bound = float(re.search(r"bound (\S+) of value_radius", out)[1])
    assert certificate["bound"] == pytest.approx(bound, rel=1e-3)
    measured = float(re.search(r"measured (\S+) of value_radius", out)[1])
    assert measured == pytest.approx(errors.max(), rel=1e-3)


def test_attend_at_a_tolerance_that_nothing_certifies(call, head):
    code, out, errors = call("attend", head(**arrays()), "--tol", 1e-3, "--method", "polynomial")
    assert code == 0 and "polynomial" in out
    large = arrays()
    large["Q"] *= 4000.0
    code, _, errors = call("attend", head(**large), "--tol", 1e-3, "--method", "polynomial")
    assert code == 3 and "tolerance not certifiable" in errors


def test_plan_by_sizes_and_by_file(call, head):
    code, out, _ = call("plan", "--n", 4096, "--d", 8, "--logit-bound", 0.5, "--tol", 1e-3)
    assert code == 0 and "polynomial" in out
    code, out, _ = call("plan", head(**arrays()), "--tol", 1e-3)
    assert code == 0 and "40" in out
    code, _, errors = call("plan", head(**arrays()), "--tol", 1e-3, "--dtype", "float64")
    assert code == 2 and "`--dtype` goes with sizes" in errors


def test_stats(call, head):
    given = arrays()
    code, out, _ = call("stats", head(**given))
    assert code == 0
    assert out.strip() == str(subquad.entry_statistics(*(given[x] for x in "QKV"))).strip()
    code, _, errors = call("stats", head(**arrays(key_mask=np.ones(33, bool))))
    assert code == 2 and "key_mask" in errors


def test_claims_by_id_and_as_a_tree(call, tmp_path):
    code, out, _ = call("claims", "--id", "ratio-sharp", "--json", tmp_path / "claims.json")
    assert code == 0 and "ratio-sharp" in out
    assert "ratio-sharp" in (tmp_path / "claims.json").read_text()
    code, out, _ = call("claims", "--tree")
    assert code == 0 and "output-bound" in out


def test_doctor_names_every_package_and_rate(call):
    code, out, _ = call("doctor")
    assert code == 0
    for name in (*cli._PACKAGES, "cupy", "polynomial_flops"):
        assert name in out
    assert re.search(rf"numpy +{re.escape(np.__version__)} +core", out)
    assert float(re.search(r"exact_flops +(\S+)", out)[1]) > 1e6


@pytest.mark.parametrize(("others", "words"), [
    ({"Q": None}, "no array Q"),
    ({"Q": None, "V": None}, "no array Q, V"),
    ({"attn_mask": np.ones(3)}, "`attn_mask` is not supported"),
    ({"scale": -1.0}, "`scale`"),
    ({"K": np.full((33, 5), np.nan, np.float32)}, "`K`"),
    ({"V": np.ones((32, 2), np.float32)}, "`V`"),
])  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(call, head, others, words):
    given = {name: x for name, x in arrays(**others).items() if x is not None}
    code, out, errors = call("attend", head(**given), "--tol", 0.1)
    assert code == 2 and words in errors and not out


def test_files_that_cannot_be_read(call, tmp_path):
    code, _, errors = call("attend", tmp_path / "none.npz", "--tol", 0.1)
    assert code == 2 and "does not exist" in errors
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    code, _, errors = call("attend", tmp_path / "bad.npz", "--tol", 0.1)
    assert code == 2 and "is not a readable .npz" in errors
    (tmp_path / "text.npz").write_text("# Q, K and V")
    code, _, errors = call("attend", tmp_path / "text.npz", "--tol", 0.1)
    assert code == 2 and "holds no plain arrays" in errors and "pickle" not in errors
    np.savez(tmp_path / "objects.npz", Q=np.array([{}]), K=np.ones(2), V=np.ones(2))
    code, _, errors = call("attend", tmp_path / "objects.npz", "--tol", 0.1)
    assert code == 2 and "holds no plain arrays" in errors


def test_nowhere_to_write(call, head, tmp_path):
    out_file = tmp_path / "none" / "o.npz"
    code, _, errors = call("attend", head(**arrays()), "--tol", 0.1, "--out", out_file)
    assert code == 2 and "does not exist" in errors
