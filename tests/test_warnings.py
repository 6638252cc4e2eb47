"""Which warnings fail a test: our own, and what libraries say of our use; not their own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh import OURS as MODULES
from tests.fresh import printed

CONFIG = Path(__file__).parents[1] / "pyproject.toml"
HELPERS = '''
import threading
import warnings

import numpy as np


def module(name, code, **names):
    """Return the names of a module of that name and code."""
    space = {"__name__": name, "np": np, "warnings": warnings, **names}
    exec(code, space)
    return space


WARN = "def call(level=1): warnings.warn('planted', DeprecationWarning, stacklevel=level)"


def warn(name):
    module(name, WARN)["call"]()


def say_of_a_caller(name):
    """As a library does that deprecates what its caller does."""
    module(name, "def use(): call(2)", call=module("click.core", WARN)["call"])["use"]()
'''
LIBRARIES = {
    "their_code": "warn('click.core')",
    "a_longer_name": "warn('subquadratic')",
    "a_deeper_name": "warn('dask.subquad')",
    "one_library_of_another": "say_of_a_caller('typer.main')",
    "their_syntax": "compile('1 is 1', '/x/subquad/site-packages/y.py', 'exec')",
}
OURS = {
    "root": ("warn('subquad')", "planted"),
    "room": ("warn('subquad.planted')", "planted"),
    "tests": ("warn('tests.test_planted')", "planted"),
    "experiments": ("warn('experiments.store')", "planted"),
    "proofs": ("warn('proofs_checks.checks.planted')", "planted"),
    "our_use": ("say_of_a_caller('subquad.cli')", "planted"),
    "our_numbers": ("module('subquad.x', 'np.float64(1e308) * 10.0')", "overflow"),
    "our_numbers_in_theirs": ("module('subquad.x', 'np.sum(np.full(2, 1e308))')", "overflow"),
    "our_syntax": ("compile('1 is 1', '/x/subquad/planted.py', 'exec')", "planted.py"),
    "a_thread": (
        "thread = threading.Thread(target=warn, args=('subquad',)); thread.start(); thread.join()",
        "PytestUnhandledThreadExceptionWarning",
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of each planted test, run with the suite's configuration: its summary line."""
    folder = tmp_path_factory.mktemp("planted")
    bodies = LIBRARIES | {name: body for name, (body, _) in OURS.items()}
    tests = (f"\n\ndef test_{name}():\n    {body}\n" for name, body in bodies.items())
    (folder / "test_planted.py").write_text(HELPERS + "".join(tests))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-vv",
        "-rA",
        "-c",
        str(CONFIG),
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    lines = re.findall(r"^(PASSED|FAILED) \S*::test_(\w+)(.*)", done.stdout, re.MULTILINE)
    found = {name: (outcome, text) for outcome, name, text in lines}
    assert found.keys() == bodies.keys(), done.stdout
    return found


@pytest.mark.parametrize("name", LIBRARIES)
def test_warnings_of_libraries_pass(outcomes, name):
    assert outcomes[name][0] == "PASSED"


@pytest.mark.parametrize("name", OURS)
def test_warnings_of_ours_fail(outcomes, name):
    outcome, text = outcomes[name]
    assert outcome == "FAILED" and OURS[name][1] in text


def test_the_same_in_a_new_interpreter():
    assert MODULES in CONFIG.read_text()
    assert printed(f"{HELPERS}\nwarn('click.core'); print('went on')") == "went on"
    with pytest.raises(AssertionError, match="DeprecationWarning: planted"):
        printed(f"{HELPERS}\nwarn('subquad.planted')")
