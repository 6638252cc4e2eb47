"""Functions are short: nine in ten have at most 14 lines of code, none more than 41.

Lines after the docstring, without blank lines and comments; what is defined inside counts as well.
"""

import ast
from pathlib import Path

import subquad

ROOT = Path(subquad.__file__).parent
NINE_IN_TEN, LONGEST = 14, 41


def lengths(source: str) -> dict[str, int]:
    """Return name and line -> lines of code of the body, of every function."""
    lines, found = source.splitlines(), {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        rows = lines[body[0].lineno - 1 : node.end_lineno] if body else []
        code = [row for row in map(str.strip, rows) if row and not row.startswith("#")]
        found[f"{node.name}, line {node.lineno}"] = len(code)
    return found


def test_bodies_are_short():
    every = {
        f"{path.relative_to(ROOT)}: {name}": length
        for path in ROOT.rglob("*.py")
        for name, length in lengths(path.read_text()).items()
    }
    assert len(every) > 1000
    assert {name for name, length in every.items() if length > LONGEST} == set()
    assert sorted(every.values())[int(0.9 * len(every))] <= NINE_IN_TEN


def test_what_counts():
    source = (
        'def f():\n    """Return 1."""\n    # why\n\n    x = (\n        1\n    )\n    return x\n'
    )
    assert lengths(source) == {"f, line 1": 4}
    assert lengths('def g():\n    """Nothing."""\n') == {"g, line 1": 0}
