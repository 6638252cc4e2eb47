"""What both array libraries must have alike, checked without a GPU."""

import ast
from pathlib import Path

import pytest

from subquad import engine

FOLDER = Path(engine.__file__).parent


def public(name):
    """Return {function: parameters} of the public functions of modules, parsed."""
    trees = [ast.parse((FOLDER / f"{module}.py").read_text()) for module in name.split()]
    return {
        node.name: [a.arg for a in node.args.args]
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


@pytest.mark.parametrize(
    ("cpu", "gpu"),
    [
        ("cpu", "gpu"),
        ("cpu_exact", "gpu_exact"),
        ("cpu_prepare", "gpu_prepare"),
        ("cpu_measure", "gpu_prepare gpu_stacks"),
    ],
)
def test_every_pass_has_both_halves(cpu, gpu):
    ours, theirs = public(cpu), public(gpu)
    assert ours.keys() <= theirs.keys()
    assert all(theirs[name] == parameters for name, parameters in ours.items())


def test_every_row_pass_is_reached_by_both():
    passes = public("prepare").keys() - {"supported", "to_host", "operands", "survey"}
    assert passes == public("cpu_prepare cpu_measure").keys()


def test_no_gpu_module_comes_with_the_engine():
    """They import CuPy at their top, so whoever needs one imports it late."""
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text())
        early = [
            name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for name in [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        ]
        if not path.name.startswith("gpu"):
            assert not any(n and n.startswith("subquad.engine.gpu") for n in early), path
