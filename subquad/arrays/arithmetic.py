"""Array namespaces and outward rounding: the ground that every floor stands on."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

Array = Any
"""An array of any library that speaks the array API; shapes are in the docstrings."""

OUTWARD = 1.0 + 2.0**-46
"""Covers the rounding of a closed formula of at most about thirty float64 operations."""


def namespace(*values: Array | float) -> ModuleType:
    """Return the array namespace shared by `values`; NumPy's where all are Python numbers."""
    arrays = [value for value in values if hasattr(value, "shape")]
    return array_api_compat.array_namespace(*arrays) if arrays else np


def unit_for(largest: float) -> float:
    """Return the power of two that brings `largest` into [1/2, 1), within 2**+-1000; 1 for 0."""
    return math.ldexp(1.0, max(-1000, min(1000, -math.frexp(largest)[1])))


def product_up(*factors: float) -> float:
    """Return an upper bound of the product of non-negative floats; infinity past the range.

    Not fooled by an underflow half way: mantissas and exponents are multiplied apart.
    """
    if any(math.isnan(factor) for factor in factors):
        return math.nan
    if any(factor == 0.0 for factor in factors):
        return 0.0
    if any(math.isinf(factor) for factor in factors):
        return math.inf
    mantissa, exponent = 1.0, 0
    for factor in factors:
        part, shift = math.frexp(factor)
        mantissa, extra = math.frexp(mantissa * part)
        exponent += shift + extra
    return max(ldexp(mantissa * OUTWARD, exponent), math.ulp(0.0))


def ldexp(mantissa: float, exponent: int) -> float:
    """Return mantissa * 2**exponent, infinity past the range (nothing certifies there)."""
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf


class Affine(NamedTuple):
    """How rows enter: (x * in_scale - centre) * out_scale; centre (d,) in units of 1/in_scale."""

    in_scale: float
    centre: Array
    out_scale: float

    def balanced(self, exponent: int) -> Affine:
        """Return the same with rows 2**exponent times as long."""
        return self._replace(out_scale=ldexp(self.out_scale, exponent))
