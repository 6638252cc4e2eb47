"""Errors on the command line speak of its options and of the file, with the numbers met."""

import re

import numpy as np
import pytest

import subquad
from subquad.cli.words import in_options, joined
from tests.cli.conftest import arrays

SIZES = ("--n", 1000, "--d", 8, "--logit-bound", 0.5)


def refused(call, words, said, expected=2):
    code, out, errors = call(*words)
    assert code == expected, errors
    assert said in errors and errors.startswith(("error: ", "tolerance not certifiable: "))
    assert not re.search(r"`(tol|method|n|m|d|d_v|logit_bound|dtype)`|\w=|None|allow_exact", errors)
    return out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "missing: `--n`, `--d` and `--logit-bound`."),
        (("--n", 1000), "a .npz, or `--n`, `--d` and `--logit-bound`; missing: `--d` and `--lo"),
        (("--n", 1000, "--d", 8), "missing: `--logit-bound`."),
        ((*SIZES, "--n", 0), "`--n` is 0; a size is at least 1"),
        ((*SIZES, "--m", -7), "`--m` is -7; a size is at least 1"),
        ((*SIZES, "--d", 0), "`--d` is 0; a size is at least 1"),
        ((*SIZES, "--d-v", 0), "`--d-v` is 0; a size is at least 1"),
        ((*SIZES, "--logit-bound", -2), "`--logit-bound` is -2; it must be finite"),
        ((*SIZES, "--dtype", "int8"), "`--dtype` is 'int8'; the dtypes are float16"),
        ((*SIZES, "--method", "no"), "`--method` is 'no'; the methods are auto, exact"),
        ((*SIZES, "--tol", 3), "`--tol` is 3; it must be in (0, 2]"),
    ],
)
def test_plan_without_a_file(call, words, said):
    assert not refused(call, ("plan", "--tol", 0.1, *words), said)


def test_plan_with_a_file_and_sizes(call, head):
    file = head(**arrays())
    said = f"`--n` and `--logit-bound` are for a plan without a file, and `{file}` has its own"
    assert not refused(call, ("plan", file, "--tol", 1, "--n", 3, "--logit-bound", 1), said)
    assert not refused(call, ("plan", file, "--tol", 0), "`--tol` is 0; it must be in (0, 2]")


def test_a_plan_that_certifies_nothing_says_so(call):
    words = ("plan", "--tol", 1e-3, *SIZES, "--logit-bound", 900, "--method", "polynomial")
    out = refused(call, words, "no method proves `--tol 0.001`; the last column of the table", 3)
    assert "logit bound 900 exceeds 64" in out


def test_a_tolerance_that_nothing_certifies(call, head):
    large = arrays()
    large["Q"] *= 4000.0
    words = ("attend", head(**large), "--tol", 1e-3, "--method", "polynomial")
    said = "no allowed method proves `--tol 0.001` (asked for `--method polynomial`). polynomial: "
    assert not refused(call, words, said, 3)
    assert not refused(call, words, "`--method auto` may take the exact method", 3)
    words = ("attend", head(**large), "--tol", 1e-17)
    assert not refused(call, words, "`--tol` would have to be at least that", 3)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"scale": -1.0}, "`scale` is -1; it must be positive and finite (without one in the file"),
        ({"scale": np.ones(3)}, "`scale` has shape (3,); it must be one number"),
        ({"scale": 1j}, "`scale` is np.complex128(1j) of type complex128; pass a real number."),
        ({"K": np.full((33, 5), np.nan, np.float32)}, "`K` has 165 NaN and 0 infinite entries"),
        ({"V": np.ones((32, 2), np.float32)}, "`V` has 32 rows but `K` has 33"),
        ({"key_mask": np.zeros(33, bool)}, "`key_mask` drops all 33 keys"),
        ({"causal": True}, "`causal` is not supported: causal masks are not built yet"),
    ],
)
@pytest.mark.parametrize("command", ["attend", "plan"])
def test_what_is_wrong_with_an_array_names_the_file(call, head, command, others, said):
    file = head(**arrays(**others))
    assert not refused(call, (command, file, "--tol", 0.1), f"error: `{file}`: {said}")


def test_statistics_name_the_file(call, head):
    file = head(**{name: np.ones((4, 4), int) for name in "QKV"})
    assert not refused(call, ("stats", file), f"error: `{file}`: `Q` has dtype int64")
    file = head(**arrays(key_mask=np.ones(33, bool)))
    assert not refused(call, ("stats", file), f"error: `{file}` has a `key_mask`, which")


def test_missing_arrays_are_told_beside_those_there_are(call, head):
    file = head(q=np.ones(3), key=np.ones(2), V=np.ones(2))
    said = f"error: `{file}` has no array Q, K; it needs Q, K and V, and has q, key, V."
    assert not refused(call, ("stats", file), said)
    file = head(**{f"a{i}": np.ones(1) for i in range(9)})
    assert not refused(call, ("stats", file), "and has a0, a1, a2, a3, a4, a5, a6, a7 and 1 more.")
    assert not refused(call, ("stats", head()), "and has nothing.")


@pytest.mark.parametrize("folder", [".", "..", "", "made"])
def test_an_output_that_is_a_folder(call, head, tmp_path, monkeypatch, folder):
    (tmp_path / "made").mkdir()
    file = head(**arrays())
    monkeypatch.chdir(tmp_path)
    words = ("attend", file, "--tol", 0.1, "--out", folder)
    assert not refused(call, words, f"`--out` is {folder or '.'}, a folder; name a file.")


def test_too_little_memory_is_said(call, head, monkeypatch):
    def full(*_, **__):
        msg = "Unable to allocate 3.00 TiB"
        raise MemoryError(msg)

    monkeypatch.setattr(subquad, "attention", full)
    said = "the memory of this machine does not suffice. Unable to allocate 3.00 TiB"
    assert not refused(call, ("attend", head(**arrays()), "--tol", 0.1), said)


def test_arguments_become_options():
    text = "`n` and `d_v`, n=3, tol=1e-3, (method='auto'), x_n=3; `K` and n"
    assert in_options(text, ("n", "d_v", "tol", "method")) == (
        "`--n` and `--d-v`, `--n 3`, `--tol 1e-3`, (`--method auto`), x_n=3; `K` and n"
    )
    assert in_options(text, ()) == text


def test_joined():
    assert joined(["--n"]) == "`--n`"
    assert joined(["--n", "--d", "--m"]) == "`--n`, `--d` and `--m`"
