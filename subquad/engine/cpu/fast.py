"""Whether the two passes run compiled: by numba, where the `fast` extra is installed.

By the sizes of a pass alone, so that the same call gives the same bits whatever ran before it;
SUBQUAD_COMPILED=0 turns them off, which is read at each call.
"""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from typing import Any

from subquad.features import feature_dimension

VARIABLE = "SUBQUAD_COMPILED"

LEAST_PRODUCTS = 2**21
"""Features times tokens of one pass from which it runs compiled: a ms or two. Loading numba
takes about a second, once a process; compiling some seconds more, once a machine and dtype."""

EARLIER = 8.0
"""Beside compiled passes nobody waits for the interpreter: so many times less work is enough for
one more thread."""


def passes(tokens: int, d: int, degree: int) -> Any | None:
    """Return the module `compiled`, or None: too little to do for it, or numba is not there."""
    return _compiled() if _enough(tokens, d, degree) else None


def expected(tokens: int, d: int, degree: int) -> bool:
    """Return whether `passes` will give the compiled ones, without loading them."""
    loaded = _compiled.cache_info().currsize > 0
    return _enough(tokens, d, degree) and (_compiled() is not None if loaded else _installed())


def in_use() -> bool:
    """Return whether large passes run compiled, without loading what is not loaded yet."""
    return _compiled.cache_info().currsize > 0 and _wanted() and _compiled() is not None


def _wanted() -> bool:
    text = os.environ.get(VARIABLE, "").strip()
    if text not in ("", "0", "1"):
        msg = f"{VARIABLE} is {text!r}: give 0 for NumPy alone, or 1, or unset it."
        raise ValueError(msg)
    return text != "0"


def _enough(tokens: int, d: int, degree: int) -> bool:
    large = degree > 0 and tokens * feature_dimension(d, degree) >= LEAST_PRODUCTS
    return large and _wanted()


@lru_cache(maxsize=1)
def _installed() -> bool:
    try:
        return importlib.util.find_spec("numba") is not None
    except ValueError:  # something else that goes by its name
        return False


@lru_cache(maxsize=1)
def _compiled() -> Any | None:
    if not _installed():
        return None
    try:
        from subquad.engine.cpu import compiled
    except Exception:  # too old for this NumPy, say: it fails in many ways, and is not needed
        return None
    return compiled if compiled.AVAILABLE else None
