"""Checks of the scalars that a caller passes: numbers, sizes, seeds, dtypes, names of options.

What one door alone takes is checked there. Floors below, as `exp_poly`, check what they are given
themselves.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Sequence

import numpy as np

from subquad.arrays.arithmetic import Array

LARGEST_SIZE = 2**53  # sizes enter the cost model and the bounds as float64
LARGEST_SHOWN = 10**24
DTYPES = ("float16", "float32", "float64")
NOT_BUILT = {
    "causal": "causal masks are",
    "is_causal": "causal masks are",
    "mask": "masks other than `key_mask` are",
    "attn_mask": "masks other than `key_mask` are",
    "bias": "additive biases are",
    "attn_bias": "additive biases are",
    "dropout_p": "dropout is",
    "enable_gqa": "grouped heads are",
}
"""What is planned, with its verb."""


def dtype_name(x: Array) -> str:
    """Return the name of an array's dtype, "float32" say."""
    return str(x.dtype).rsplit(".", 1)[-1]


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
    """Return a real number as a float; TypeError for anything else, complex and bool included.

    ValueError for one past the range of floats.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        msg = f"`{name}` is {value!r} of type {type(value).__name__}; pass a real number."
        raise TypeError(msg)
    try:
        return float(value)
    except OverflowError:
        msg = f"`{name}` is past the range of float64, 1.8e308; pass a number within it."
        raise ValueError(msg) from None


def shown(value) -> str:
    """Return the value as a message quotes it: of an integer of many digits, its bits."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return repr(value)
    whole = int(value)
    if abs(whole) <= LARGEST_SHOWN:
        return str(whole)
    return f"{'-' * (whole < 0)}2**{whole.bit_length() - 1} or so"


def check_seed(seed) -> int | None:
    """Return the seed; TypeError unless None or an int, ValueError if negative."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        msg = f"`seed` is {seed!r} of type {type(seed).__name__}; pass None or an integer."
        raise TypeError(msg)
    if seed < 0:
        msg = f"`seed` is {shown(seed)}; it must not be negative."
        raise ValueError(msg)
    return int(seed)


def check_size(name: str, value) -> int:
    """Return a size as an int; TypeError unless integral, ValueError unless positive."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        msg = f"`{name}` is {value!r} of type {type(value).__name__}; a size is an integer."
        raise TypeError(msg)
    size = int(value)
    if not 1 <= size <= LARGEST_SIZE:
        msg = f"`{name}` is {shown(size)}; a size is at least 1 and at most 2**53."
        raise ValueError(msg)
    return size


def check_limit(name: str, value) -> int | None:
    """Return a largest number as an int, None for no limit; ValueError unless integral and >= 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        msg = f"`{name}` is {shown(value)}; pass an integer of at least 0, or None."
        raise ValueError(msg)
    return int(value)


def check_dtype(dtype) -> str:
    """Return the dtype's name; ValueError unless float16, float32 or float64."""
    name = getattr(dtype, "__name__", str(dtype))
    if name not in DTYPES:
        msg = f"`dtype` is {dtype!r}; the dtypes are {', '.join(DTYPES)}."
        raise ValueError(msg)
    return name


def refuse_options(options: Iterable[str], allowed: Sequence[str]) -> None:
    """Raise TypeError for the first of these names that is not allowed, saying which there are."""
    for name in options:
        if name in allowed:
            continue
        if name in NOT_BUILT:
            them = "it" if NOT_BUILT[name].endswith(" is") else "them"
            msg = (
                f"`{name}` is not supported: {NOT_BUILT[name]} not built yet, and leaving "
                f"{them} out silently would make the certificate false."
            )
            raise TypeError(msg)
        near = _nearest(name, allowed)
        hint = f"did you mean `{near}`?" if near else f"the options are {', '.join(allowed)}."
        msg = f"`{name}` is not an option: {hint}"
        raise TypeError(msg)


def _nearest(name: str, allowed: Sequence[str]) -> str | None:
    """Return the allowed name that looks like this one, or has a word that does."""
    whole = dict(zip(allowed, allowed, strict=True))
    words = {word: option for option in allowed for word in option.split("_") if len(word) > 2}
    for text, known in ((name, whole), *((text, words) for text in (name, *name.split("_")))):
        if near := difflib.get_close_matches(text, known, 1):
            return known[near[0]]
    return None
