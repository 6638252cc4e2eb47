"""The public passes: arguments checked, then handed to the code of their array library."""

from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np

from subquad.engine.backend import backend_of, operands_of, supported, to_host
from subquad.engine.fused.sizes import DEGREES, OPERANDS
from subquad.engine.state import State
from subquad.features.anisotropic import MonomialSet

COMPUTE_DTYPES = ("float32", "float64")


def stored_dtype(compute: str) -> str:
    """Return the dtype of the rows that a compute dtype takes: operands are made of float32 rows.

    Compute dtypes are COMPUTE_DTYPES and, on some GPUs, `fused.sizes.OPERANDS`.
    """
    return "float32" if compute in OPERANDS else compute


def accumulate(
    K: Any,
    W: Any,
    degree: int,
    *,
    key_centre: Any,
    weight_shift: int = 0,
    balance: int = 0,
    operands: str | None = None,
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
    key_centre : NumPy array (d,)
        Carried as metadata, as are `weight_shift` and `balance`: Q must be prepared alike.
    operands : {"bfloat16", "bfloat16x3"}, optional
        By the fused passes, which need float32 on a GPU that has them, m >= 1, and a shape that
        is `fused.sizes.fusable`.

    Raises
    ------
    ValueError
        On shapes, dtypes, a degree or operands that do not fit.
    TypeError
        If the arrays are not all NumPy's or all CuPy's.

    Notes
    -----
    O(m r d_v) time, r = C(d + degree, degree). Bit-identical for any number of threads, and on
    every run on one GPU. Accuracy: see `subquad.engine.cpu.passes` or, with
    `operands`, `subquad.engine.fused.rounding`.
    """
    _check_library(K=K, W=W)
    _check_library(key_centre=key_centre)
    _check_keys(K, W)
    d = K.shape[1]
    if degree < 0:
        msg = f"`degree` is {degree}: it must be at least 0."
        raise ValueError(msg)
    if key_centre.shape != (d,):
        msg = f"`key_centre` has shape {key_centre.shape}: it needs ({d},), one entry per column."
        raise ValueError(msg)
    if operands is not None:
        moments, norms = _fused_accumulate(K, W, degree, operands)
    else:
        moments, norms = backend_of(K).passes.accumulate(K, W, degree)
    return State(
        moments=tuple(moments),
        norm_moments=norms,
        count=K.shape[0],
        d=d,
        key_centre=to_host(key_centre).copy(),
        weight_shift=weight_shift,
        balance=balance,
        dtype=operands or K.dtype.name,
    )


def _fused_accumulate(K: Any, W: Any, degree: int, operands: str) -> tuple[Any, Any]:
    """Return (moments by degree, norm moments on the host) of the fused key pass."""
    if operands not in operands_of(K) or K.dtype.name != "float32" or K.shape[0] == 0:
        msg = (
            f"`operands` is {operands!r}: {K.dtype.name} keys of shape {K.shape} on this "
            "device have no fused passes."
        )
        raise ValueError(msg)
    from subquad.engine.fused import passes as fused_passes  # brings CuPy

    moments, norms = fused_passes.accumulate(K[None], W[None], degree, operands)
    # First for the sums, in float64 in any order; then for entries below 2^-63, whose squares
    # float32 has not.
    raised = to_host(norms[0]) * (1.0 + (K.shape[0] + 64) * 2.0**-53 + 2.0**-50)
    raised[1:] += raised[0] * 2.0**-50
    return fused_passes.split(moments[0], K.shape[1], degree), raised


def contract(Q: Any, state: State, coefficients: Sequence[float] | Any) -> tuple[Any, Any]:
    """Return (numerator (n, d_v), normaliser by degree (n, g + 1)), float64, where `Q` is.

    The numerator is sum_k c_k sum_j (q.k_j)^k v_j; column k of the second is
    sum_j w_j (q.k_j)^k, without its coefficient.

    Parameters
    ----------
    Q : array (n, d), dtype `stored_dtype(state.dtype)`
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
        If the arrays are not all NumPy's or all CuPy's.

    Notes
    -----
    O(n r d_v) time, and O(r d_v) to convert the moments. Accuracy: see `accumulate`.
    """
    _check_library(Q=Q, moments=state.moments[0])
    _check_rows(Q, "Q", state.d)
    if Q.dtype.name != (needed := stored_dtype(state.dtype)):
        msg = (
            f"`Q` is {Q.dtype.name} but the State was computed in {state.dtype}: "
            f"convert `Q` to {needed}."
        )
        raise ValueError(msg)
    c = np.asarray(coefficients, dtype=np.float64)
    if c.ndim != 1 or not 1 <= len(c) <= state.degree + 1:
        msg = (
            f"`coefficients` has shape {c.shape}: give between 1 and {state.degree + 1} numbers, "
            f"as the State has degree {state.degree}."
        )
        raise ValueError(msg)
    if state.dtype in OPERANDS:
        return _fused_contract(Q, state, c)
    return backend_of(Q).passes.contract(Q, state.moments, c)


def _fused_contract(Q: Any, state: State, c: np.ndarray) -> tuple[Any, Any]:
    """Return what `contract` does, by the fused query pass: computed in float32."""
    from subquad.engine.fused import passes as fused_passes  # brings CuPy

    least = min(DEGREES)
    raised = np.append(c, np.zeros(max(0, least + 1 - len(c))))  # there is no pass below
    moments = fused_passes.joined(state.moments[: len(raised)])
    numerator, by_degree = fused_passes.contract(Q[None], moments, raised, state.dtype)
    wide = (x[0].astype(np.float64) for x in (numerator, by_degree[..., : len(c)]))
    return tuple(wide)


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
        If the arrays are not all NumPy's or all CuPy's.

    Notes
    -----
    O(n m (d + d_v)) time, memory O(m d + n d_v) and blocks. Accuracy: `subquad.engine.cpu.exact`.
    """
    _check_library(Q=Q, K=K, W=W)
    _check_keys(K, W)
    _check_rows(Q, "Q", K.shape[1])
    if Q.dtype != K.dtype:
        msg = f"`Q` is {Q.dtype.name} but `K` is {K.dtype.name}: both need one compute dtype."
        raise ValueError(msg)
    return backend_of(Q).exact.exact_block(Q, K, W)


def accumulate_set(Y: Any, W: Any, kept: MonomialSet) -> Any:
    """Return sum_j y_j^s w_j^T, (r, columns) float64, of keys Y (m, d) and weights W (m, columns).

    Monomials s are those of `kept`. O(m r columns) time. Accuracy: `lengths.set_length`.
    """
    return backend_of(Y).sets.accumulate_set(Y, W, kept)


def contract_set(X: Any, moments: Any, kept: MonomialSet) -> Any:
    """Return sum_s x_i^s moments_s / alpha_s!, (n, columns) float64, of queries X (n, d)."""
    return backend_of(X).sets.contract_set(X, moments, kept)


def _check_library(**arrays: Any) -> None:
    """Raise TypeError unless the arrays are all NumPy's or all CuPy's."""
    for name, array in arrays.items():
        if not supported(array):
            kind = f"{type(array).__module__}.{type(array).__qualname__}"
            msg = f"`{name}` is a {kind}: the passes are built for numpy.ndarray and cupy.ndarray."
            raise TypeError(msg)
    there = {name: array_api_compat.is_cupy_array(x) for name, x in arrays.items()}
    if len(set(there.values())) > 1:
        kinds = ", ".join(f"`{n}` {'cupy' if on_gpu else 'numpy'}" for n, on_gpu in there.items())
        msg = f"the arrays come from different libraries ({kinds}); pass all from one."
        raise TypeError(msg)


def _check_rows(rows: Any, name: str, d: int | None = None) -> None:
    if rows.ndim != 2 or rows.shape[1] < 1:
        msg = f"`{name}` has shape {rows.shape}: it needs two dimensions and at least 1 column."
        raise ValueError(msg)
    if rows.dtype.name not in COMPUTE_DTYPES:
        msg = f"`{name}` is {rows.dtype.name}: the compute dtypes are float32 and float64."
        raise ValueError(msg)
    if d is not None and rows.shape[1] != d:
        msg = f"`{name}` has {rows.shape[1]} columns but the keys have {d}: both need d."
        raise ValueError(msg)


def _check_keys(K: Any, W: Any) -> None:
    _check_rows(K, "K")
    _check_rows(W, "W")
    if W.shape[1] < 2:
        msg = f"`W` has {W.shape[1]} column: it needs d_v + 1 >= 2, the key weights last."
        raise ValueError(msg)
    if W.shape[0] != K.shape[0]:
        msg = f"`W` has {W.shape[0]} rows but `K` has {K.shape[0]}: both need one row per key."
        raise ValueError(msg)
    if W.dtype != K.dtype:
        msg = f"`W` is {W.dtype.name} but `K` is {K.dtype.name}: both need one compute dtype."
        raise ValueError(msg)
