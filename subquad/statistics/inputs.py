"""Q, K and V as float64 in host memory, or a message that says what is wrong with them."""

from typing import Any

import array_api_compat
import numpy as np


def host_array(x: Any, name: str) -> np.ndarray:
    """Return x on the host in float64, shape (..., n, d).

    TypeError unless it is an array of real floats, ValueError unless finite and not empty.
    """
    if not array_api_compat.is_array_api_obj(x):
        msg = f"`{name}` is a {type(x).__name__}; an array is needed"
        raise TypeError(msg)
    host = np.asarray(x if array_api_compat.is_numpy_array(x) else _to_host(x))
    if not np.issubdtype(host.dtype, np.floating):
        msg = f"`{name}` has dtype {host.dtype}; real floating point is needed: convert it first"
        raise TypeError(msg)
    if host.ndim < 2 or 0 in host.shape:
        msg = f"`{name}` has shape {host.shape}; (..., rows, columns) is needed, none of them 0"
        raise ValueError(msg)
    wrong = host.size - int(np.count_nonzero(np.isfinite(host)))
    if wrong:
        msg = f"`{name}` has {wrong} entries that are NaN or infinite; finite ones are needed"
        raise ValueError(msg)
    return host.astype(np.float64)


def _to_host(x: Any) -> Any:
    """Return x in host memory: the one copy from a device that statistics make."""
    on_cpu = str(array_api_compat.device(x)).lower().find("cpu") >= 0
    return x if on_cpu else array_api_compat.to_device(x, "cpu")


def leading(arrays: dict[str, np.ndarray]) -> tuple[int, ...]:
    """Return the broadcast leading shape; ValueError where the last two dimensions do not fit."""
    (_, d), (m, d_k), (m_v, _) = (x.shape[-2:] for x in arrays.values())
    if d != d_k:
        msg = f"`K` has {d_k} columns but `Q` has {d}: both need the head dimension d"
        raise ValueError(msg)
    if m != m_v:
        msg = f"`V` has {m_v} rows but `K` has {m}: both need one row for each key"
        raise ValueError(msg)
    shapes = [x.shape[:-2] for x in arrays.values()]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        msg = f"`Q`, `K`, `V` have leading shapes {shapes}; shapes that broadcast are needed"
        raise ValueError(msg) from None
