"""The builder of features by numba, where the `fast` extra is installed: the bits are the same.

One call without the GIL builds a whole chunk, where NumPy takes one call per leading variable and
two threads wait for each other between them. The same multiplications are made, one rounding
each, so nothing in the result tells which builder was used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from subquad.features import feature_dimension

LEAST_PRODUCTS = 2**26
"""Multiplications of one pass from which loading numba (0.5 s, once a process) may pay."""

Build = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], Any]
"""build(x, before, products, out, t): see `recipe.Chunk.products`, on the first t tokens."""


def builder(tokens: int, d: int, degree: int) -> Build | None:
    """Return the compiled builder, or None: too little to do for it, or numba is not there."""
    if degree < 2 or not (loaded() or tokens * feature_dimension(d, degree) >= LEAST_PRODUCTS):
        return None
    return _compiled()


def expected(tokens: int, d: int, degree: int) -> bool:
    """Return whether `builder` will give a compiled one, without loading it."""
    if degree < 2 or not _installed():
        return False
    return loaded() or tokens * feature_dimension(d, degree) >= LEAST_PRODUCTS


def loaded() -> bool:
    """Return whether the compiled builder has been loaded, or found not to load, in this process.

    From then on every pass has it.
    """
    return _compiled.cache_info().currsize > 0


@lru_cache(maxsize=1)
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None


@lru_cache(maxsize=1)
def _compiled() -> Build | None:
    if not _installed():
        return None
    try:
        import numba
    except (ImportError, OSError):  # too old for this NumPy, say
        return None
    signatures = []
    for real in (numba.float32, numba.float64):
        rows = numba.types.Array(real, 2, "C")
        recipe = numba.types.Array(numba.int64, 2, "C", readonly=True)
        signatures.append(numba.void(rows, rows, recipe, rows, numba.int64))
    try:
        return numba.njit(signatures, nogil=True, cache=True)(_build)
    except RuntimeError:  # nowhere to keep the compiled code
        return numba.njit(signatures, nogil=True)(_build)


def _build(x, before, products, out, t):  # pragma: no cover - runs compiled
    for p in range(products.shape[0]):
        first, last, a, source = products[p]
        factor = x[a]
        for row in range(first, last):
            target, other = out[row], before[source + row - first]
            for j in range(t):
                target[j] = factor[j] * other[j]
