"""The command line, from its words to its exit code: numbers against an oracle, errors in words."""

import json
import os
import re
import zipfile

import numpy as np
import pytest

import subquad
from subquad.cli import commands
from tests import oracle
from tests.cli.conftest import arrays

page = commands.experiments_module("report.report")


@pytest.mark.parametrize(
    "others",
    [{}, {"scale": 0.7}, {"key_mask": np.arange(33) % 4 != 1}],
    ids=["plain", "scale", "key_mask"],
)
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
    assert code == 2 and "`--dtype` is for a plan without a file" in errors


def test_stats(call, head):
    given = arrays()
    code, out, _ = call("stats", head(**given))
    assert code == 0
    assert out.strip() == str(subquad.entry_statistics(*(given[x] for x in "QKV"))).strip()
    code, _, errors = call("stats", head(**arrays(key_mask=np.ones(33, bool))))
    assert code == 2 and "key_mask" in errors


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"Q": None}, "no array Q"),
        ({"Q": None, "V": None}, "no array Q, V"),
        ({"attn_mask": np.ones(3)}, "`attn_mask` is not supported"),
        ({"scale": -1.0}, "`scale`"),
        ({"K": np.full((33, 5), np.nan, np.float32)}, "`K`"),
        ({"V": np.ones((32, 2), np.float32)}, "`V`"),
    ],
)
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
    assert code == 2 and "it is no zip archive" in errors and "pickle" not in errors
    np.savez(tmp_path / "objects.npz", Q=np.array([{}]), K=np.ones(2), V=np.ones(2))
    code, _, errors = call("attend", tmp_path / "objects.npz", "--tol", 0.1)
    assert code == 2 and "its member `Q.npy` holds Python objects" in errors


def test_other_files_are_told_from_a_npz(call, head, tmp_path):
    np.save(tmp_path / "one.npy", np.ones((3, 2)))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    code, _, errors = call("attend", tmp_path / "one.npz", "--tol", 0.1)
    assert code == 2 and "it is a .npy, one array without a name; it needs Q, K and V." in errors
    with zipfile.ZipFile(head(**arrays()), "r") as whole:
        with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
            archive.writestr("Q.npy", whole.read("Q.npy"))
            archive.writestr("K", b"rows")
            archive.writestr("V.npy", b"more rows")
    code, _, errors = call("stats", tmp_path / "text.npz")
    assert (
        code == 2 and "its member `K` is 4 bytes and no array; write it with numpy.savez." in errors
    )


@pytest.mark.parametrize("how", ["same", "no suffix", "another way", "symlink", "hard link"])
def test_the_input_is_not_written_over(call, head, tmp_path, how):
    file = head(**arrays())
    before = file.read_bytes()
    (tmp_path / "folder").mkdir()
    other = tmp_path / "folder" / ".." / "head.npz"
    to = {"same": file, "no suffix": file.with_suffix(""), "another way": other}.get(
        how, tmp_path / "link.npz"
    )
    if how == "symlink":
        to.symlink_to(file)
    elif how == "hard link":
        os.link(file, to)
    code, out, errors = call("attend", file, "--tol", 0.1, "--out", to)
    assert code == 2 and not out
    assert f"`--out` is {to.with_suffix('.npz')}, the input, which would be lost" in errors
    assert file.read_bytes() == before


def test_an_older_output_is_written_over(call, head, tmp_path):
    np.savez(tmp_path / "o.npz", output=np.zeros(3))
    code, _, _ = call("attend", head(**arrays()), "--tol", 0.1, "--out", tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as written:
        assert code == 0 and written["output"].shape == (40, 2)


def test_nowhere_to_write(call, head, tmp_path):
    out_file = tmp_path / "none" / "o.npz"
    code, _, errors = call("attend", head(**arrays()), "--tol", 0.1, "--out", out_file)
    assert code == 2 and f"`--out` is {out_file}, but the folder {out_file.parent} does" in errors
    (tmp_path / "folder.npz").mkdir()
    code, out, errors = call("attend", head(**arrays()), "--tol", 0.1, "--out", tmp_path / "folder")
    assert code == 2 and f"`--out` is {tmp_path / 'folder.npz'}, a folder" in errors and not out


def test_a_report_that_could_not_be_written_is_not_made(call, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(page, "write", lambda *args, **options: made.append(args))
    (tmp_path / "file").write_text("mine")
    code, _, errors = call("report", "--out", tmp_path / "file")
    assert code == 2 and f"`--out` is {tmp_path / 'file'}, a folder that cannot be made" in errors
    (tmp_path / "taken" / "report.json").mkdir(parents=True)
    code, _, errors = call("report", "--out", tmp_path / "taken")
    assert code == 2 and f"`--out` is {tmp_path / 'taken' / 'report.json'}, a folder" in errors
    assert not made
    assert call("report", "--out", tmp_path / "a" / "b")[0] == 0 and len(made) == 1
    assert (tmp_path / "a" / "b").is_dir() and (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder where none may write")
def test_a_folder_where_none_may_write(call, head, monkeypatch):
    monkeypatch.setattr(page, "write", lambda *args, **options: None)
    for words in (
        ("attend", head(**arrays()), "--tol", 0.1, "--out", "/proc/o.npz"),
        ("claims", "--id", "ratio-sharp", "--json", "/proc/x.json"),
    ):
        code, out, errors = call(*words)
        assert code == 2 and not out
        assert f"{words[-2]}` is {words[-1]}, which cannot be written: " in errors
    code, out, errors = call("report", "--out", "/proc/x")
    assert code == 2 and "`--out` is /proc/x, a folder that cannot be made: " in errors and not out


def test_version(call):
    assert call("--version") == (0, "subquad 0.2.0\n", "")
    assert subquad.__version__ == "0.2.0"


def test_a_report_without_its_extra(call, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "find_spec", lambda name: None if name == "jinja2" else name)
    code, _, said = call("report", "--out", tmp_path / "report")
    assert code == 2
    assert "the report needs jinja2: install subquad[report]" in said
    assert not (tmp_path / "report").exists()
