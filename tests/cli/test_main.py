"""The door: `main` is a function however it is reached, and loads what it needs when it runs."""

import subprocess
import sys

import subquad


def python(*words):
    return subprocess.run(
        [sys.executable, "-W", "error", *words], capture_output=True, text=True, check=False
    )


def test_the_package_runs_as_a_module():
    done = python("-m", "subquad", "--version")
    assert (done.returncode, done.stdout) == (0, f"subquad {subquad.__version__}\n"), done.stderr
    done = python("-m", "subquad", "plan", "--tol", "3")
    assert done.returncode == 2 and "error: " in done.stderr


def test_main_is_imported_without_the_command_line():
    code = """
import sys
from subquad.cli import main
print(sorted({"typer", "click", "rich"} & sys.modules.keys()))
"""
    done = python("-c", code)
    assert done.stdout == "[]\n", done.stderr


def test_main_stays_the_function_when_its_module_is_imported():
    code = """
import importlib
module = importlib.import_module("subquad.cli.main")
import subquad.cli.commands
from subquad.cli import main
print(callable(main), main is module.main)
"""
    done = python("-c", code)
    assert done.stdout == "True True\n", done.stderr
