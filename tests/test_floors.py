"""Imports go down only: parsed, not trusted; and a planted arrow up is seen."""

import ast
import re
import shutil
from pathlib import Path

import pytest

import subquad
from tests.fresh import printed

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


MOST_FLOORS, MOST_FLOORS_INSIDE = 9, 7
PUBLIC = 7
"""The floor of `subquad` itself, whose names those above use."""
INSIDE = ("engine", "head", "methods", "planning")


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
    """Return (dotted name, whether inside a function) of each import; TYPE_CHECKING excepted."""
    found = []

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "relative imports hide the arrow"
                found.extend((f"{child.module}.{alias.name}", inside) for alias in child.names)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            walk(child, inside or function)

    walk(tree, False)
    return found


def arrows(root: Path, package: str) -> dict[str, set[str]]:
    """Return name -> names that it imports, of the files and folders directly under `root`."""
    uses = {room(path, root): set() for path in root.rglob("*.py")}
    del uses["__init__"]
    for path in root.rglob("*.py"):
        if (own := room(path, root)) in uses:
            names = (name for name, _ in imports(ast.parse(path.read_text())))
            inside = (n.removeprefix(package + ".") for n in names if n.startswith(package + "."))
            uses[own] |= {name.split(".")[0] for name in inside} & uses.keys() - {own}
    return uses


def levels(uses: dict[str, set[str]]) -> list[list[str]]:
    """Return the names floor by floor, each above all that it imports; fails at a circle."""
    built, left = [], dict(uses)
    while left:
        free = [name for name, below in left.items() if not below & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        built.append(free)
        for name in free:
            del left[name]
    return built


def arrows_up(root: Path) -> list[str]:
    """Return 'file -> module' for each import of a floor above the file's own."""
    table, up = floors(), []
    for path in sorted(root.rglob("*.py")):
        own = room(path, root)
        if own.startswith("__"):
            continue
        for module, _ in imports(ast.parse(path.read_text())):
            parts = module.split(".")
            if (
                parts[0] == "subquad"
                and len(parts) > 1
                and table.get(parts[1], PUBLIC) > table[own]
            ):
                up.append(f"{path.relative_to(root)} -> {module}")
    return up


def test_the_drawing_shows_every_room_and_no_other():
    rooms = {room(p, ROOT) for p in ROOT.rglob("*.py")}
    assert floors().keys() == rooms - {"__init__"}
    assert max(floors().values()) <= MOST_FLOORS


def test_the_root_holds_the_doors_and_folders():
    files = {p.name for p in ROOT.iterdir() if p.is_file()}
    assert files == {"__init__.py", "__main__.py", "attention.py", "py.typed"}


def test_no_room_bears_a_public_name():
    """A folder `plan` would overwrite the function at its first import; see `attention.py`."""
    assert {room(p, ROOT) for p in ROOT.rglob("*.py")} & set(subquad.__all__) == {"attention"}


def test_imports_go_down():
    assert arrows_up(ROOT) == []


def test_no_circles_between_rooms():
    """Rooms on one floor may use one another, but not in a circle."""
    levels(arrows(ROOT, "subquad"))


@pytest.mark.parametrize("name", INSIDE)
def test_few_floors_inside_a_room(name):
    inside = levels(arrows(ROOT / name, f"subquad.{name}"))
    assert len(inside) <= MOST_FLOORS_INSIDE, inside


def test_a_circle_inside_a_room_is_seen(tmp_path):
    (tmp_path / "__init__.py").touch()
    (tmp_path / "low.py").write_text("def late():\n    from subquad.some import high")
    (tmp_path / "high.py").write_text("import subquad.some.low")
    with pytest.raises(AssertionError, match=r"a circle among \['high', 'low'\]"):
        levels(arrows(tmp_path, "subquad.some"))


def test_a_planted_arrow_is_seen(tmp_path):
    copy = tmp_path / "subquad"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert arrows_up(copy) == []
    for name, line in (
        ("methods/exact.py", "from subquad.planning.choose import choose"),
        ("bounds/certificate.py", "def late():\n    import subquad.methods.exact"),
        ("bounds/softmax.py", "from subquad import attention"),
    ):
        path = copy / name
        old = path.read_text()
        path.write_text(f"{old}\n\n{line}\n")
        assert [arrow.split(" -> ")[0] for arrow in arrows_up(copy)] == [name]
        path.write_text(old)


def sources():
    return [(p.relative_to(ROOT), p.read_text()) for p in sorted(ROOT.rglob("*.py"))]


def test_cupy_is_named_in_the_engine_alone():
    """Code, not prose: `cupy` as a name or a string, but for what carries arrays and times GPUs."""
    others = ("arrays/libraries.py", "cost/gpu_rates.py", "cli/doctor.py")
    for path, text in sources():
        if path.parts[0] == "engine" or path.as_posix() in others:
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


def test_the_houses_above_are_reached_lazily_by_the_command_line_and_explain_alone():
    """`Certificate.explain` prints claims, and ids alone where their house is not installed."""
    explain = Path("bounds", "certificate.py"), "proofs_checks.showing"
    for path, text in sources():
        for module, inside in imports(ast.parse(text)):
            if module.split(".")[0] in ("experiments", "proofs_checks", "tests"):
                allowed = path.parts[0] == "cli" or (path, module) == explain
                assert allowed and inside, f"{path} imports {module}"


def test_import_is_light():
    """Nothing optional, and nothing slow, comes with `import subquad`."""
    code = "import sys, subquad; print(*[m for m in sys.argv[1:] if m in sys.modules])"
    assert printed(code, *HEAVY) == ""


@pytest.mark.parametrize("name", subquad.__all__)
def test_public_names_exist_and_are_documented(name):
    value = getattr(subquad, name)
    if callable(value):
        assert value.__doc__, name
