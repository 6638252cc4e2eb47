"""Change one function's code in place, so that every module that holds it runs the changed one."""

import inspect
import sys
import textwrap
from contextlib import contextmanager


def clear_caches():
    """Empty the caches of polynomials and of their rounding: they would hide a changed proof."""
    for name, module in list(sys.modules.items()):
        if name.startswith(
            ("subquad.exp_poly", "subquad.methods", "proofs_checks.checks.methods.fitted")
        ):
            for thing in vars(module).values():
                if hasattr(thing, "cache_clear"):
                    thing.cache_clear()


@contextmanager
def code_of(function, code):
    function = getattr(function, "__wrapped__", function)
    before = function.__code__
    clear_caches()
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = before
        clear_caches()


def changed_code(function, old, new):
    """Return the code of the function with `old`, which occurs once in its source, made `new`."""
    function = getattr(function, "__wrapped__", function)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {function}"
    source = "from __future__ import annotations\n" + source.replace(old, new)
    namespace = dict(function.__globals__)
    exec(compile(source, inspect.getfile(function), "exec"), namespace)
    made = namespace[function.__name__]
    return getattr(made, "__wrapped__", getattr(made, "func", made)).__code__


def raising_code(function):
    """Return code of the same signature that raises AssertionError."""
    free = getattr(function, "__wrapped__", function).__code__.co_freevars
    assert not free, f"{function} closes over {free}"

    def untouchable(*arguments, **named):
        msg = "the claim evaluates this function"
        raise AssertionError(msg)

    return untouchable.__code__
