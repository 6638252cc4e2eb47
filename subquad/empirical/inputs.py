"""Q, K and V as float64 in host memory, or a message that says what is wrong with them."""

from typing import Any

import array_api_compat
import numpy as np

from subquad.head.inputs import broadcast_lead, check_shapes, refuse_masked


def host_arrays(Q: Any, K: Any, V: Any) -> dict[str, np.ndarray]:
    """Return Q, K and V on the host in float64, each with the leading dimensions of all.

    TypeError unless arrays of real floats, ValueError unless finite and of shapes that fit.
    """
    Q, K, V = _host_array(Q, "Q"), _host_array(K, "K"), _host_array(V, "V")
    check_shapes(Q, K, V)
    lead = broadcast_lead(Q, K, V)
    return {
        name: np.broadcast_to(x, lead + x.shape[-2:]) for name, x in (("Q", Q), ("K", K), ("V", V))
    }


def _host_array(x: Any, name: str) -> np.ndarray:
    """Return x on the host in float64."""
    if isinstance(x, np.ma.MaskedArray):
        refuse_masked(name, "pass the rows to look at, without a mask")
    if not array_api_compat.is_array_api_obj(x):
        msg = f"`{name}` is a {type(x).__name__}; an array is needed"
        raise TypeError(msg)
    host = np.asarray(x if array_api_compat.is_numpy_array(x) else _to_host(x))
    if not np.issubdtype(host.dtype, np.floating):
        msg = f"`{name}` has dtype {host.dtype}; real floating point is needed: convert it first"
        raise TypeError(msg)
    wrong = host.size - int(np.count_nonzero(np.isfinite(host)))
    if wrong:
        msg = f"`{name}` has {wrong} entries that are NaN or infinite; finite ones are needed"
        raise ValueError(msg)
    return host.astype(np.float64)


def _to_host(x: Any) -> Any:
    """Return x in host memory: the one copy from a device that statistics make."""
    on_cpu = str(array_api_compat.device(x)).lower().find("cpu") >= 0
    return x if on_cpu else array_api_compat.to_device(x, "cpu")
