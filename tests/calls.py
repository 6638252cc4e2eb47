"""How many functions of the package one call passes, and how deep: `python -m tests.calls`.

Named functions alone: comprehensions, generator expressions, lambdas and class bodies are left
out, as is what runs at import. Every thread is watched. The first call of a process also measures
rates and imports what it needs late: one call goes before the one that is counted.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import subquad

ROOT = str(Path(subquad.__file__).parent)


@dataclass
class Calls:
    """What a call passed.

    Attributes
    ----------
    functions : set of (file, line, name)
        Each named function of the package that ran.
    deepest : tuple of str
        The longest stack of them, outermost first.
    """

    functions: set[tuple[str, int, str]] = field(default_factory=set)
    deepest: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """Most functions of the package on one stack."""
        return len(self.deepest)

    def files(self) -> set[str]:
        """Return the files in which the functions stand."""
        return {file for file, _, _ in self.functions}


def counted(call: Callable[[], Any]) -> Calls:
    """Return the Calls of call(), watched by a profile function in this and every new thread."""
    calls, stacks = Calls(), threading.local()

    def watch(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        ours = code.co_filename.startswith(ROOT) and not code.co_name.startswith("<")
        if not ours or event not in ("call", "return"):
            return
        stack = stacks.__dict__.setdefault("names", [])
        if event == "return":
            del stack[-1:]
            return
        stack.append(f"{Path(code.co_filename).relative_to(ROOT)} {code.co_name}")
        calls.functions.add((code.co_filename, code.co_firstlineno, code.co_name))
        if len(stack) > calls.depth:
            calls.deepest = tuple(stack)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return calls


def data(n: int = 256, d: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Q, K, V (n, d) that the method `polynomial` certifies."""
    rng = np.random.default_rng(0)
    Q, K, V = (rng.uniform(-s, s, (n, d)) for s in (0.3, 0.3, 1.0))
    return Q, K, V


def measured() -> dict[str, Calls]:
    """Return the Calls of attention by `polynomial`, by `exact`, and of `plan.run`."""
    arrays = data()
    plan = subquad.plan(*arrays, tol=1e-2, method="polynomial")

    def attention(method: str) -> Callable[[], Any]:
        return lambda: subquad.attention(*arrays, tol=1e-2, method=method)

    calls = {name: attention(name) for name in ("polynomial", "exact")}
    calls["plan.run"] = lambda: plan.run(*arrays)
    for call in calls.values():
        call()
    return {name: counted(call) for name, call in calls.items()}


def main(listed: bool) -> None:
    """Print the counts; with --list, each function."""
    for name, calls in measured().items():
        files = len(calls.files())
        print(f"{name:12} {len(calls.functions)} functions, {files} files, depth {calls.depth}")
        for file, line, function in sorted(calls.functions) if listed else ():
            print(f"    {Path(file).relative_to(ROOT)}:{line} {function}")
        for place in calls.deepest if listed else ():
            print(f"    deepest: {place}")


if __name__ == "__main__":
    main("--list" in sys.argv[1:])
