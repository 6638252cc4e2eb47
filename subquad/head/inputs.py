"""Checks of what a caller passes that more than one door has: arrays, shapes, numbers, sizes.

What one door alone takes is checked there. `exp_poly.arguments` and `engine`, on floors below,
check what they are given themselves.
"""

from __future__ import annotations

import difflib
import math
import numbers

import array_api_compat
import numpy as np

from subquad.arrays.arithmetic import Array, namespace
from subquad.engine.backend import supported
from subquad.engine.rows import rows_of

LARGEST_SIZE = 2**53  # sizes enter the cost model and the bounds as float64
DTYPES = ("float16", "float32", "float64")
NOT_BUILT = {
    "causal": "causal masks",
    "is_causal": "causal masks",
    "mask": "masks other than `key_mask`",
    "attn_mask": "masks other than `key_mask`",
    "bias": "additive biases",
    "attn_bias": "additive biases",
    "dropout_p": "dropout",
    "enable_gqa": "grouped heads",
}


def dtype_name(x: Array) -> str:
    """Return the name of an array's dtype, "float32" say."""
    return str(x.dtype).rsplit(".", 1)[-1]


def check_arrays(Q: Array, K: Array, V: Array):
    """Return the namespace; TypeError unless one library and dtype that the engine runs on."""
    for name, x in (("Q", Q), ("K", K), ("V", V)):
        if type(x).__name__ == "MaskedArray":
            msg = (
                f"`{name}` is a masked array, whose mask would be lost; drop keys with `key_mask`."
            )
            raise TypeError(msg)
        if not array_api_compat.is_array_api_obj(x):
            msg = f"`{name}` is a {type(x).__name__}; pass an array, numpy.asarray({name}) say."
            raise TypeError(msg)
        if not supported(x):
            msg = (
                f"`{name}` is a {type(x).__module__}.{type(x).__name__}, which the engine does "
                "not run on yet; convert it to a NumPy array."
            )
            raise TypeError(msg)
    try:
        xp = array_api_compat.array_namespace(Q, K, V)
    except TypeError:
        named = (("Q", Q), ("K", K), ("V", V))
        kinds = ", ".join(f"`{n}` {type(x).__module__}" for n, x in named)
        msg = f"`Q`, `K`, `V` come from different libraries ({kinds}); pass all three from one."
        raise TypeError(msg) from None
    for name, x in (("Q", Q), ("K", K), ("V", V)):
        if dtype_name(x) not in DTYPES:
            msg = f"`{name}` has dtype {x.dtype}; convert it to float16, float32 or float64."
            if array_api_compat.is_numpy_array(x) and not x.dtype.isnative:
                msg = (
                    f"`{name}` has dtype {x.dtype}, in the byte order of other machines; pass "
                    f'{name}.astype({name}.dtype.newbyteorder("=")).'
                )
            raise TypeError(msg)
    if not dtype_name(Q) == dtype_name(K) == dtype_name(V):
        msg = (
            f"`Q`, `K`, `V` have dtypes {Q.dtype}, {K.dtype}, {V.dtype}; "
            "they must share one: convert the others."
        )
        raise TypeError(msg)
    return xp


def check_shapes(Q: Array, K: Array, V: Array) -> None:
    """Raise ValueError unless (..., n, d), (..., m, d), (..., m, d_v), none of them 0."""
    for name, x, form in (("Q", Q, "n, d"), ("K", K, "m, d"), ("V", V, "m, d_v")):
        if x.ndim < 2:
            msg = f"`{name}` has {x.ndim} dimension(s); it needs at least two, (..., {form})."
            raise ValueError(msg)
    if K.shape[-1] != Q.shape[-1]:
        msg = (
            f"`K` has {K.shape[-1]} columns but `Q` has {Q.shape[-1]}: "
            "both need the head dimension d."
        )
        raise ValueError(msg)
    if V.shape[-2] != K.shape[-2]:
        msg = f"`V` has {V.shape[-2]} rows but `K` has {K.shape[-2]}: each key needs one value."
        raise ValueError(msg)
    for size, text in (
        (Q.shape[-2], "`Q` has no rows (n = 0); pass at least one query."),
        (K.shape[-2], "`K` has no rows (m = 0); softmax over no keys is undefined."),
        (Q.shape[-1], "`Q` and `K` have no columns (d = 0); the head dimension must be positive."),
        (V.shape[-1], "`V` has no columns (d_v = 0); pass at least one value column."),
    ):
        if size == 0:
            raise ValueError(text)


def check_finite(name: str, x: Array, xp, which: str = "") -> None:
    """Raise ValueError where an entry is NaN or infinite, with how many; `which` says of what."""
    if x.size == 0 or all(np.isfinite(end).all() for end in rows_of(x).column_range(x)):
        return
    nans = int(xp.sum(xp.astype(xp.isnan(x), xp.int64)))
    infs = int(xp.sum(xp.astype(xp.isinf(x), xp.int64)))
    msg = (
        f"`{name}` has {nans} NaN and {infs} infinite entries of {x.size}{which}; "
        "all must be finite."
    )
    raise ValueError(msg)


def check_key_mask(mask: Array, K: Array) -> None:
    """Raise TypeError unless boolean and of the library of K, ValueError unless it keeps a key."""
    if not array_api_compat.is_array_api_obj(mask) or "bool" not in str(mask.dtype):
        kind = getattr(mask, "dtype", type(mask).__name__)
        msg = f"`key_mask` is {kind}; pass a boolean array (..., m), True where a key takes part."
        raise TypeError(msg)
    if namespace(mask) is not namespace(K):
        msg = (
            f"`key_mask` is a {type(mask).__module__} array but `K` a {type(K).__module__} one; "
            "pass both from one library."
        )
        raise TypeError(msg)
    if mask.ndim < 1 or mask.shape[-1] != K.shape[-2]:
        msg = (
            f"`key_mask` has shape {tuple(mask.shape)}; its last dimension must be "
            f"m = {K.shape[-2]}."
        )
        raise ValueError(msg)
    kept = np.asarray(array_api_compat.to_device(mask.any(axis=-1), "cpu"))
    if not kept.all():
        where = np.argwhere(~np.atleast_1d(kept))[0]
        head = f" of head {tuple(int(i) for i in where)}" if mask.ndim > 1 else ""
        msg = f"`key_mask` drops all {mask.shape[-1]} keys{head}; keep at least one."
        raise ValueError(msg)


def broadcast_lead(Q: Array, K: Array, V: Array, key_mask: Array | None = None) -> tuple[int, ...]:
    """Return the leading dimensions of all; ValueError where they do not broadcast or hold none.

    And where `key_mask` has more than those of Q, K and V: one by query, (n, m), would pass for n
    heads.
    """
    names, leads = "`Q`, `K`, `V`", [x.shape[:-2] for x in (Q, K, V)]
    if key_mask is not None:
        names += ", `key_mask`"
        leads.append(key_mask.shape[:-1])
    try:
        joined = np.broadcast_shapes(*leads)
    except ValueError:
        shown = ", ".join(str(tuple(lead)) for lead in leads)
        msg = f"the leading dimensions of {names} do not broadcast: {shown}."
        raise ValueError(msg) from None
    if 0 in joined:
        msg = f"the leading dimensions {joined} hold no head; pass at least one."
        raise ValueError(msg)
    if key_mask is not None and joined != (heads := np.broadcast_shapes(*leads[:-1])):
        other = f" or leading dimensions that broadcast to {heads}" if heads else ""
        msg = (
            f"`key_mask` has shape {tuple(key_mask.shape)}, which makes heads that `Q`, `K`, "
            f"`V` have not; it needs ({key_mask.shape[-1]},){other}: a mask by query is not "
            "supported."
        )
        raise ValueError(msg)
    return joined


def check_scale(scale, d: int) -> float:
    """Return the scale as a float, 1/sqrt(d) for None; ValueError unless positive and finite."""
    if scale is None:
        return 1.0 / math.sqrt(d)
    value = check_real("scale", scale)
    if not 0.0 < value < math.inf:
        msg = f"`scale` is {value:g}; it must be positive and finite (None gives 1/sqrt(d))."
        raise ValueError(msg)
    return value


def check_tol(tol) -> float:
    """Return tol as a float; ValueError unless 0 < tol <= 2."""
    value = check_real("tol", tol)
    if not 0.0 < value <= 2.0:
        msg = (
            f"`tol` is {value:g}; it must be in (0, 2], in units of value_radius "
            "(half the range of a column of V): no two outputs differ by more than 2."
        )
        raise ValueError(msg)
    return value


def check_delta(delta) -> float:
    """Return delta as a float; ValueError unless 0 <= delta < 1.

    No method is randomised yet: the value has no effect.
    """
    value = check_real("delta", delta)
    if not 0.0 <= value < 1.0:
        msg = f"`delta` is {value:g}; a failure probability must be in [0, 1), 0 for always."
        raise ValueError(msg)
    return value


def check_real(name: str, value) -> float:
    """Return a real number as a float; TypeError for anything else, complex and bool included."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        msg = f"`{name}` is {value!r} of type {type(value).__name__}; pass a real number."
        raise TypeError(msg)
    return float(value)


def check_seed(seed) -> int | None:
    """Return the seed; TypeError unless None or an int, ValueError if negative."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        msg = f"`seed` is {seed!r} of type {type(seed).__name__}; pass None or an integer."
        raise TypeError(msg)
    if seed < 0:
        msg = f"`seed` is {int(seed)}; it must not be negative."
        raise ValueError(msg)
    return int(seed)


def check_size(name: str, value) -> int:
    """Return a size as an int; TypeError unless integral, ValueError unless positive."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        msg = f"`{name}` is {value!r} of type {type(value).__name__}; a size is an integer."
        raise TypeError(msg)
    size = int(value)
    if not 1 <= size <= LARGEST_SIZE:
        msg = f"`{name}` is {size}; a size is at least 1 and at most 2**53."
        raise ValueError(msg)
    return size


def check_limit(name: str, value) -> int | None:
    """Return a largest number as an int, None for no limit; ValueError unless integral and >= 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        msg = f"`{name}` is {value!r}; pass an integer of at least 0, or None."
        raise ValueError(msg)
    return int(value)


def check_dtype(dtype) -> str:
    """Return the dtype's name; ValueError unless float16, float32 or float64."""
    name = getattr(dtype, "__name__", str(dtype))
    if name not in DTYPES:
        msg = f"`dtype` is {dtype!r}; the dtypes are {', '.join(DTYPES)}."
        raise ValueError(msg)
    return name


def refuse_options(options: dict, allowed: tuple[str, ...]) -> None:
    """Raise TypeError for keyword arguments that nobody takes, saying which there are."""
    for name in options:
        if name in NOT_BUILT:
            msg = (
                f"`{name}` is not supported: {NOT_BUILT[name]} are not built yet, and leaving "
                "them out silently would make the certificate false."
            )
            raise TypeError(msg)
        near = difflib.get_close_matches(name, allowed, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"the options are {', '.join(allowed)}."
        msg = f"`{name}` is not an option: {hint}"
        raise TypeError(msg)
