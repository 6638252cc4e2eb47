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
        ("cpu/sets", "gpu/sets"),
        ("cpu/rows", "gpu/rows"),
        ("cpu/measures", "gpu/rows gpu/measures"),
    ],
)
def test_every_pass_has_both_halves(cpu, gpu):
    ours, theirs = public(cpu), public(gpu)
    assert ours.keys() <= theirs.keys()
    assert all(theirs[name] == parameters for name, parameters in ours.items())


def test_the_row_passes_are_those_that_are_described():
    """With the parameters of RowPasses, on a CPU and a GPU; the shards have those that measure."""
    tree = ast.parse((FOLDER / "rows.py").read_text())
    described = {
        node.name: [a.arg for a in node.args.args if a.arg != "self"]
        for protocol in tree.body
        if isinstance(protocol, ast.ClassDef)
        for node in protocol.body
        if isinstance(node, ast.FunctionDef)
    }
    assert public("cpu/rows cpu/measures") == described
    made = {"affine", "weighted_values", "restored_values", "rotated", "rotated_reach"}
    assert described.keys() - made <= public("shards/rows").keys()


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
    """They are those of gpu/, of fused/ but for sizes and rounding, and the Fleet of GPUs."""
    imported = {}
    for path in FOLDER.rglob("*.py"):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        name = ".".join(("subquad.engine", *parts)).removesuffix(".__init__")
        imported[name] = set(early(path))
    on_gpu = {"cupy"}
    while more := {name for name, uses in imported.items() if uses & on_gpu} - on_gpu:
        on_gpu |= more
    light = {f"subquad.engine.fused{name}" for name in ("", ".sizes", ".rounding")}
    rooms = ("subquad.engine.gpu", "subquad.engine.fused", "subquad.engine.shards.gpu_fleet")
    assert on_gpu - {"cupy"} == {name for name in imported if name.startswith(rooms)} - light
