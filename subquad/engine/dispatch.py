"""The public passes: arguments checked, then handed to the code of their array library."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from subquad.engine import cpu, cpu_exact
from subquad.engine.state import State

COMPUTE_DTYPES = ("float32", "float64")


def accumulate(
    K: Any, W: Any, degree: int, *, key_centre: Any, weight_shift: int = 0, balance: int = 0
) -> State:
    """Return the State of the keys: sums of their monomials times their weights.

    Parameters
    ----------
    K : array (m, d), float32 or float64
        Keys, already centred, scaled and balanced. m = 0 gives a State of zeros.
    W : array (m, d_v + 1), dtype of `K`
        [V, 1] times the key weights; the last column is >= 0 and bounds the others (not checked:
        the norm moments rest on it).
    degree : int
        Highest degree.
    key_centre : array (d,)
        Carried as metadata, as are `weight_shift` and `balance`: Q must be prepared alike.

    Raises
    ------
    ValueError
        On shapes, dtypes or a degree that do not fit.
    TypeError
        If an array is not NumPy's.

    Notes
    -----
    O(m r d_v) time, r = C(d + degree, degree). Bit-identical for any number of threads.
    Accuracy: see `subquad.engine.cpu`.
    """
    _need_numpy(K=K, W=W, key_centre=key_centre)
    _check_keys(K, W)
    d = K.shape[1]
    if degree < 0:
        msg = f"`degree` is {degree}: it must be at least 0."
        raise ValueError(msg)
    if key_centre.shape != (d,):
        msg = f"`key_centre` has shape {key_centre.shape}: it needs ({d},), one entry per column."
        raise ValueError(msg)
    moments, norms = cpu.accumulate(K, W, degree)
    return State(
        moments=tuple(moments),
        norm_moments=norms,
        count=len(K),
        d=d,
        key_centre=key_centre.copy(),
        weight_shift=weight_shift,
        balance=balance,
        dtype=K.dtype.name,
    )


def contract(Q: Any, state: State, coefficients: Sequence[float] | Any) -> tuple[Any, Any]:
    """Return (numerator (n, d_v), normaliser by degree (n, g + 1)), float64.

    The numerator is sum_k c_k sum_j (q.k_j)^k v_j; column k of the second is
    sum_j w_j (q.k_j)^k, without its coefficient.

    Parameters
    ----------
    Q : array (n, d), dtype of the State
        Queries, multiplied by scale and balanced.
    state : State
        From `accumulate`, possibly a sum.
    coefficients : (g + 1,) floats
        c_0..c_g with g <= state.degree: higher degrees of the State are left alone.

    Raises
    ------
    ValueError
        On shapes, dtypes or a number of coefficients that do not fit.
    TypeError
        If an array is not NumPy's.

    Notes
    -----
    O(n r d_v) time, and O(r d_v) to convert the moments. Accuracy: see `subquad.engine.cpu`.
    """
    _need_numpy(Q=Q, moments=state.moments[0])
    _check_rows(Q, "Q", state.d)
    if Q.dtype.name != state.dtype:
        msg = f"`Q` is {Q.dtype.name} but the State was computed in {state.dtype}: convert `Q`."
        raise ValueError(msg)
    c = np.asarray(coefficients, dtype=np.float64)
    if c.ndim != 1 or not 1 <= len(c) <= state.degree + 1:
        msg = (
            f"`coefficients` has shape {c.shape}: give between 1 and {state.degree + 1} numbers, "
            f"as the State has degree {state.degree}."
        )
        raise ValueError(msg)
    return cpu.contract(Q, state.moments, c)


def exact_block(Q: Any, K: Any, W: Any) -> tuple[Any, Any, Any]:
    """Return (numerator (n, d_v), normaliser (n,), log_shift (n,)) of sum_j exp(q.k_j) w_j.

    The sums are in units of 2^log_shift (int64): float64 numbers near the row's largest weight,
    whatever the logits. Without keys all three are 0.

    Parameters
    ----------
    Q, K : array (n, d), (m, d), float32 or float64
        Queries times scale, and keys.
    W : array (m, d_v + 1), same dtype
        [V, 1] times the key weights.

    Raises
    ------
    ValueError
        On shapes or dtypes that do not fit.
    TypeError
        If an array is not NumPy's.

    Notes
    -----
    O(n m (d + d_v)) time, memory O(m d_v) and blocks. Accuracy: see `subquad.engine.cpu_exact`.
    """
    _need_numpy(Q=Q, K=K, W=W)
    _check_keys(K, W)
    _check_rows(Q, "Q", K.shape[1])
    if Q.dtype != K.dtype:
        msg = f"`Q` is {Q.dtype.name} but `K` is {K.dtype.name}: both need one compute dtype."
        raise ValueError(msg)
    return cpu_exact.exact_block(Q, K, W)


def _need_numpy(**arrays: Any) -> None:
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            kind = f"{type(array).__module__}.{type(array).__qualname__}"
            msg = f"`{name}` is a {kind}: the passes are built for numpy.ndarray only, so far."
            raise TypeError(msg)


def _check_rows(rows: np.ndarray, name: str, d: int | None = None) -> None:
    if rows.ndim != 2 or rows.shape[1] < 1:
        msg = f"`{name}` has shape {rows.shape}: it needs two dimensions and at least 1 column."
        raise ValueError(msg)
    if rows.dtype.name not in COMPUTE_DTYPES:
        msg = f"`{name}` is {rows.dtype.name}: the compute dtypes are float32 and float64."
        raise ValueError(msg)
    if d is not None and rows.shape[1] != d:
        msg = f"`{name}` has {rows.shape[1]} columns but the keys have {d}: both need d."
        raise ValueError(msg)


def _check_keys(K: np.ndarray, W: np.ndarray) -> None:
    _check_rows(K, "K")
    _check_rows(W, "W")
    if W.shape[1] < 2:
        msg = f"`W` has {W.shape[1]} column: it needs d_v + 1 >= 2, the key weights last."
        raise ValueError(msg)
    if len(W) != len(K):
        msg = f"`W` has {len(W)} rows but `K` has {len(K)}: both need one row per key."
        raise ValueError(msg)
    if W.dtype != K.dtype:
        msg = f"`W` is {W.dtype.name} but `K` is {K.dtype.name}: both need one compute dtype."
        raise ValueError(msg)
