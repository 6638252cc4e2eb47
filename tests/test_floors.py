"""Imports go down only: parsed, not trusted; and a planted arrow up is seen."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import subquad

ROOT = Path(subquad.__file__).parent
HEAVY = (
    "cupy",
    "torch",
    "matplotlib",
    "sympy",
    "numba",
    "jinja2",
    "tokenizers",
    "scipy.stats",
    "dask",
    "distributed",
)


def floors() -> dict[str, int]:
    """Return name -> floor as drawn in the docstring of the package: the drawing is the rule."""
    table = {}
    for line in (ROOT / "__init__.py").read_text().splitlines():
        drawn = re.match(r"^    (\d)  (\S.*?)(?:   .*)?$", line)
        if drawn:
            names = re.findall(r"\w+", drawn[2])
            table |= dict.fromkeys(names, int(drawn[1]))
    return table


def room(path: Path, root: Path) -> str:
    """Return the file or folder directly under `root` that `path` belongs to."""
    return path.relative_to(root).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[tuple[str, bool]]:
    """Return (dotted module, whether inside a function) of each import; TYPE_CHECKING excepted."""
    found = []

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "relative imports hide the arrow"
                module = child.module or ""
                whole = [f"{module}.{alias.name}" for alias in child.names]
                names = whole if module == "subquad" else [module]
                found.extend((name, inside) for name in names)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            walk(child, inside or function)

    walk(tree, False)
    return found


def arrows_up(root: Path) -> list[str]:
    """Return 'file -> module' for each import of a floor above the file's own."""
    table, up = floors(), []
    for path in sorted(root.rglob("*.py")):
        own = room(path, root)
        if own == "__init__":
            continue
        for module, _ in imports(ast.parse(path.read_text())):
            parts = module.split(".")
            if parts[0] == "subquad" and len(parts) > 1 and table[parts[1]] > table[own]:
                up.append(f"{path.relative_to(root)} -> {module}")
    return up


def test_every_file_has_a_floor():
    assert floors().keys() >= {room(p, ROOT) for p in ROOT.rglob("*.py")} - {"__init__"}


def test_imports_go_down():
    assert arrows_up(ROOT) == []


def test_a_planted_arrow_is_seen(tmp_path):
    copy = tmp_path / "subquad"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert arrows_up(copy) == []
    for name, line in (
        ("methods/exact.py", "from subquad.planning.choose import choose"),
        ("certificate.py", "def late():\n    import subquad.methods.exact"),
        ("bounds/softmax.py", "from subquad import attention"),
    ):
        path = copy / name
        old = path.read_text()
        path.write_text(f"{old}\n\n{line}\n")
        assert [arrow.split(" -> ")[0] for arrow in arrows_up(copy)] == [name]
        path.write_text(old)


def test_no_circles_between_rooms():
    """Rooms on one floor may use one another, but not in a circle."""
    uses = {}
    for path in ROOT.rglob("*.py"):
        own = room(path, ROOT)
        if own != "__init__":
            found = {
                m.split(".")[1]
                for m, _ in imports(ast.parse(path.read_text()))
                if m.startswith("subquad.")
            }
            uses.setdefault(own, set()).update(found - {own})
    while uses:
        free = [name for name, below in uses.items() if not below & uses.keys()]
        assert free, f"a circle among {sorted(uses)}"
        for name in free:
            del uses[name]


def sources():
    return [(p.relative_to(ROOT), p.read_text()) for p in sorted(ROOT.rglob("*.py"))]


def test_cupy_is_named_in_the_engine_alone():
    """Code, not prose: `cupy` as a name or a string; `doctor` reports its version."""
    for path, text in sources():
        if path.parts[0] == "engine" or path.name == "doctor.py":
            continue
        for node in ast.walk(ast.parse(text)):
            named = isinstance(node, ast.Name) and node.id in ("cupy", "cp")
            assert not named, path
        for module, _ in imports(ast.parse(text)):
            assert module.split(".")[0] not in ("cupy", "cupyx"), path


def test_torch_is_never_imported_with_a_module():
    for path, text in sources():
        for module, inside in imports(ast.parse(text)):
            assert module.split(".")[0] != "torch" or inside, path


def test_the_houses_above_are_reached_lazily_by_the_command_line_alone():
    for path, text in sources():
        for module, inside in imports(ast.parse(text)):
            if module.split(".")[0] in ("experiments", "proofs_checks", "tests"):
                assert path.name == "cli.py" and inside, f"{path} imports {module}"


def test_import_is_light():
    """Nothing optional, and nothing slow, comes with `import subquad`."""
    code = "import sys, subquad; print(*[m for m in sys.argv[1:] if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *HEAVY],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", subquad.__all__)
def test_public_names_exist_and_are_documented(name):
    value = getattr(subquad, name)
    if callable(value):
        assert value.__doc__, name
