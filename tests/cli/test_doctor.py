"""`subquad doctor`: every package and its version, and the rates."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np

import subquad
from subquad.cli import doctor

ROOT = Path(__file__).parents[2]


def test_doctor_names_every_package_and_rate(call):
    code, out, _ = call("doctor")
    assert code == 0
    for name in (*doctor.PACKAGES, "cupy", "polynomial_flops"):
        assert name in out
    assert re.search(rf"subquad +{re.escape(subquad.__version__)} ", out)
    for name in ("typer", "rich"):
        assert re.search(rf"{name} +{re.escape(version(name))} +core", out)
    assert re.search(r"dask .* many machines +\n", out)
    assert re.search(rf"numpy +{re.escape(np.__version__)} +core", out)
    assert float(re.search(r"exact_flops +(\S+)", out)[1]) > 1e6


def test_doctor_names_what_the_package_needs():
    """Every dependency, and every extra but what the tests and CuPy's CUDAs bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(x for n in ("report", "fast", "cluster", "data")
                                          for x in extras[n])]  # fmt: skip
    assert {re.match(r"[\w-]+", x)[0] for x in needed} <= doctor.PACKAGES.keys()
