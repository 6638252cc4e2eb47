"""The command line called in this process, and the files that it is given."""

import sys

import numpy as np
import pytest

from subquad import cli


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
