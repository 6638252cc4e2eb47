"""What is installed: two names at the top of the wheel; nobody's folder hides the experiments."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_editable, build_sdist, build_wheel

import subquad
from experiments import __main__
from experiments.harness.store import RESULTS

ROOT = Path(subquad.__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel without a network and return its path."""
    out = tmp_path_factory.mktemp("wheel")
    here = os.getcwd()
    os.chdir(ROOT)
    try:
        return out / build_wheel(str(out))
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_has_two_packages_at_the_top(names):
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"subquad", "proofs_checks", f"subquad-{subquad.__version__}.dist-info"}


def test_the_wheel_carries_the_experiments_with_their_data(names):
    inside = "subquad/experiments"
    assert f"{inside}/report/page.html.j2" in names
    assert f"{inside}/data/README.md" in names
    for kept in (*RESULTS.glob("*.json"), *(ROOT / "experiments" / "data").glob("*.npz")):
        assert f"{inside}/{kept.parent.name}/{kept.name}" in names
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "experiments").rglob("*.py")}
    assert {f"subquad/{name}" for name in sources} <= set(names)
    assert "subquad/engine/gpu/exact.cu" in names
    assert not [name for name in names if "/quick/" in name or "__pycache__" in name]


def test_the_version_is_written_once(wheel):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project and project["dynamic"] == ["version"]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (x for x in archive.namelist() if x.endswith("dist-info/METADATA"))
        said = archive.read(name).decode()
    assert f"\nVersion: {subquad.__version__}\n" in said
    links = re.findall(r"^Project-URL: \w+, (\S+)$", said, re.MULTILINE)
    assert len(links) == 4
    assert all(link.startswith("https://github.com/subquad/subquad") for link in links)


def test_the_citation_has_the_version_of_the_package():
    """`subquad/__init__.py` holds it, pyproject.toml reads it there; the citation is held to it."""
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    assert [x for x in lines if x.startswith("version:")] == [f"version: {subquad.__version__}"]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["version"]
    assert build == {"path": "subquad/__init__.py"}


def test_the_readme_names_every_target_of_the_makefile():
    """Of those that run something for a reader; and no target that there is not."""
    makefile = (ROOT / "Makefile").read_text()
    (targets,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    named = set(re.findall(r"\bmake ([a-z]+)\b", (ROOT / "README.md").read_text()))
    assert named <= {*targets.split()}
    assert named >= {"report", "test", "claims", "bench", "experiments"}


def test_what_make_bench_runs_is_what_the_readme_says():
    makefile, readme = ((ROOT / x).read_text() for x in ("Makefile", "README.md"))
    recipe = re.search(r"^bench:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    names = re.findall(r"experiments (\w+) --out", recipe[1])
    (told,) = re.findall(r"^`make bench` .*?\n\n", readme, re.MULTILINE | re.DOTALL)
    assert len(names) == 4 and all(f"`{name}`" in told for name in names)


def test_the_source_archive_makes_the_same_wheel(wheel, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with tarfile.open(tmp_path / build_sdist(str(tmp_path))) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert (unpacked / "CITATION.cff").exists()
    monkeypatch.chdir(unpacked)
    again = tmp_path / build_wheel(str(tmp_path))
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert set(one.namelist()) == set(other.namelist())


def test_an_editable_installation_is_a_path_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build_editable(str(tmp_path))) as archive:
        (path,) = (name for name in archive.namelist() if ".dist-info/" not in name)
        assert path.endswith(".pth") and archive.read(path).decode() == str(ROOT)


FOUND = """
from subquad.cli import commands
page = commands.experiments_module("report.report")
instances = commands.experiments_module("harness.instances")
print(page.__file__, len(page.committed()), len(instances.real_names()), page.TEMPLATE.exists())
"""


def test_a_folder_named_experiments_hides_nothing(wheel, tmp_path):
    """Installed and in a checkout, where Python looks into the working directory first."""
    site, mine = tmp_path / "site", tmp_path / "mine"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (mine / "experiments").mkdir(parents=True)
    (mine / "experiments" / "__init__.py").write_text("raise AssertionError('the user\\'s own')\n")
    for where, inside in ((site, site / "subquad" / "experiments"), (ROOT, ROOT / "experiments")):
        done = subprocess.run(
            [sys.executable, "-c", FOUND],
            cwd=mine,
            env={**os.environ, "PYTHONPATH": str(where)},
            capture_output=True,
            text=True,
            check=True,
        )
        count = len(list(RESULTS.glob("*.json")))
        told = f"{inside / 'report' / 'report.py'} {count} 12 True"
        assert done.stdout.split() == told.split()


def test_a_record_goes_to_the_working_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written = []
    monkeypatch.setattr(__main__, "one", lambda name, path, **_: written.append(path.resolve()))
    for words in (["crossover"], ["crossover", "--quick"], ["crossover", "--out", "x.json"]):
        assert __main__.main(words) == 0
    folder = tmp_path / "subquad-results"
    assert written == [
        folder / "crossover.json",
        folder / "quick" / "crossover.json",
        tmp_path / "x.json",
    ]
