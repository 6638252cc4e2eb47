"""What a check is and which steps it proves, read from its source: nothing is run.

The names of steps are the keys of the mapping that a check, or a function of `proofs_checks.checks`
that it refers to, hands to `proved`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

from proofs_checks import checks


def step_names(check: Callable[..., Any]) -> list[str]:
    """Return the names of the steps, a name that is made as it runs with {what goes in}."""
    found: dict[str, None] = {}
    todo, seen = list(_parts(check)), set()
    while todo:
        function = todo.pop(0)
        if function in seen:
            continue
        seen.add(function)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        found |= dict.fromkeys(_proved(tree))
        todo += [x for name in _names(tree) for x in _parts(_looked_up(name, function))]
    return list(found)


def described(check: Callable[..., Any]) -> list[str]:
    """Return the module of a check, the check with what it is given, and what it says it returns.

    That is the first line of its docstring; nothing where it has none.
    """
    function = check.func if isinstance(check, partial) else check
    given = ", ".join(map(_shown, check.args)) if isinstance(check, partial) else ""
    name = getattr(function, "__qualname__", str(function))
    said = (inspect.getdoc(function) or "").partition("\n")[0]
    return [function.__module__, f"{name}({given})", *([said] if said else [])]


def _parts(thing: Any) -> Iterator[FunctionType]:
    """Yield the functions of `proofs_checks.checks` in a check, in what it is made of too."""
    if isinstance(thing, partial):
        for part in (thing.func, *thing.args):
            yield from _parts(part)
        return
    function = getattr(thing, "__wrapped__", thing)
    if isinstance(function, FunctionType) and function.__name__ != "<lambda>":
        if function.__module__.startswith(f"{checks.__name__}."):
            yield function


def _proved(tree: ast.AST) -> Iterator[str]:
    """Yield the keys of what is handed to `proved` in this source."""
    kept: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "proved":
            given = node.args[0]
            if isinstance(given, ast.Dict):
                yield from map(_text, filter(None, given.keys))
            elif isinstance(given, ast.Name):
                kept.add(given.id)
    for node in ast.walk(tree):  # those that are written one by one
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            if getattr(node.targets[0].value, "id", "") in kept:
                yield _text(node.targets[0].slice)


def _text(key: ast.expr) -> str:
    if isinstance(key, ast.JoinedStr):
        return "".join(map(_text, key.values))
    if isinstance(key, ast.FormattedValue):
        return f"{{{ast.unparse(key.value)}}}"
    return str(key.value) if isinstance(key, ast.Constant) else ast.unparse(key)


def _names(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield the names, and the names of a module's attributes, that a source refers to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield (node.id,)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield (node.value.id, node.attr)


def _looked_up(name: tuple[str, ...], function: FunctionType) -> Any:
    found = function.__globals__.get(name[0])
    for attribute in name[1:]:
        found = getattr(found, attribute, None)
    return found


def _shown(value: Any) -> str:
    if isinstance(value, partial):
        return f"{_shown(value.func)}(...)"
    return getattr(value, "__name__", str(value)).replace("<lambda>", "a lambda")
