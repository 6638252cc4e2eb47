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
        ("cpu/passes", "gpu/passes"),
        ("cpu/exact", "gpu/exact"),
        ("cpu/rows", "gpu/rows"),
        ("cpu/measures", "gpu/rows gpu/measures"),
    ],
)
def test_every_pass_has_both_halves(cpu, gpu):
    ours, theirs = public(cpu), public(gpu)
    assert ours.keys() <= theirs.keys()
    assert all(theirs[name] == parameters for name, parameters in ours.items())


def test_every_row_pass_is_reached_by_both():
    passes = public("rows").keys() - {"supported", "to_host", "operands", "survey"}
    assert passes == public("cpu/rows cpu/measures").keys()


def early(path):
    """Return the dotted names that a file imports at its top."""
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def test_no_module_that_needs_cupy_comes_with_the_engine():
    """Some import CuPy at their top, so whoever needs one imports it late."""
    imported = {
        ".".join(("subquad.engine", *path.relative_to(FOLDER).with_suffix("").parts)): early(path)
        for path in FOLDER.rglob("*.py")
    }
    on_gpu = {module for module, names in imported.items() if "cupy" in names}
    assert len(on_gpu) > 8
    for module, names in imported.items():
        assert module in on_gpu or not on_gpu & set(names), module
