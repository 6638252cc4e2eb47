"""Which code works on an array: the room of its library, `engine.cpu` or `engine.gpu`.

Both rooms have modules of the same names with the same functions: `passes`, `exact`, `sets`,
`rows`. Another array library is another room, and one line here.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from subquad.engine import cpu


def supported(x: Any) -> bool:
    """Return whether there is a room for arrays of this library."""
    return array_api_compat.is_numpy_array(x) or array_api_compat.is_cupy_array(x)


def backend_of(x: Any) -> ModuleType:
    """Return the room whose passes take arrays like x."""
    if not array_api_compat.is_cupy_array(x):
        return cpu
    from subquad.engine import gpu  # brings CuPy

    return gpu


def operands_of(x: Any) -> tuple[str, ...]:
    """Return the operands of the fused passes on the device of x: none but on some GPUs."""
    if not array_api_compat.is_cupy_array(x):
        return ()
    from subquad.engine.fused import passes as fused_passes  # brings CuPy

    return fused_passes.OPERANDS if fused_passes.available() else ()


def to_host(x: Any) -> np.ndarray:
    """Return an array of any supported library as a NumPy array, without a copy where it is one."""
    return x.get() if array_api_compat.is_cupy_array(x) else np.asarray(x)
