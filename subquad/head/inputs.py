"""Checks of the arrays that a caller passes: libraries, dtypes, shapes, finite entries, masks."""

from __future__ import annotations

import array_api_compat
import numpy as np

from subquad.arrays.arguments import DTYPES, dtype_name
from subquad.arrays.arithmetic import Array, namespace
from subquad.engine.backend import supported
from subquad.engine.rows import rows_of


def refuse_masked(name: str, instead: str) -> None:
    """Raise TypeError for an array of numpy.ma, which would go on without its mask."""
    msg = f"`{name}` is a masked array, whose mask would be lost; {instead}."
    raise TypeError(msg)


def check_arrays(Q: Array, K: Array, V: Array):
    """Return the namespace; TypeError unless one library and dtype that the engine runs on."""
    for name, x in (("Q", Q), ("K", K), ("V", V)):
        if isinstance(x, np.ma.MaskedArray):
            refuse_masked(name, "drop keys with `key_mask`")
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


def check_key_mask(mask: Array, Q: Array, K: Array, V: Array) -> Array:
    """Return the mask (..., m), an axis of one query left out that masks of scores have.

    TypeError unless boolean and of the library of K, ValueError unless it keeps a key.
    """
    if isinstance(mask, np.ma.MaskedArray):
        refuse_masked("key_mask", "pass key_mask.filled(False) to drop what it masks")
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
    if mask.ndim == max(x.ndim for x in (Q, K, V)) and mask.shape[-2] == 1:
        mask = mask[..., 0, :]
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
    return mask


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
        _refuse_padding_mask(key_mask.shape, heads)
        other = f" or leading dimensions that broadcast to {heads}" if heads else ""
        msg = (
            f"`key_mask` has shape {tuple(key_mask.shape)}, which makes heads that `Q`, `K`, "
            f"`V` have not; it needs ({key_mask.shape[-1]},){other}: a mask by query is not "
            "supported."
        )
        raise ValueError(msg)
    return joined


def _refuse_padding_mask(shape: tuple[int, ...], heads: tuple[int, ...]) -> None:
    """Raise ValueError for (B, 1, ..., 1, m), of more axes than the heads have."""
    axes = len(shape) - 1 - len(heads)
    if axes > 0 and len(heads) == 1 and set(shape[1:-1]) == {1}:
        msg = (
            f"`key_mask` has shape {tuple(shape)}, with axes for heads and queries that `Q`, `K`, "
            f"`V` do not have: pass key_mask[:{', 0' * axes}], of shape {shape[:1] + shape[-1:]}."
        )
        raise ValueError(msg)
