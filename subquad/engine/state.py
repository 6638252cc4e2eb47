"""State: what the keys leave behind, a commutative monoid under addition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class State:
    """Sums over keys of monomials times weights, for every polynomial up to a degree.

    `engine.accumulate` makes it in O(m r d_v), `engine.contract` takes the sums of queries from it
    in O(n r d_v), r = C(d + degree, degree). The State of two sets of keys is the sum of theirs.

    Parameters
    ----------
    moments : tuple of array, shapes (r_k, d_v + 1), float64
        For k = 0..degree, sum_j mono_k(k_j) w_j^T: no multinomials, no coefficients.
    norm_moments : array (degree + 1,), float64
        M_k = sum_j w_j |k_j|^k rounded up, w_j the last column of W.
    count : int
        Number of keys.
    d : int
        Head dimension.
    key_centre : array (d,)
        The centre that was subtracted from the keys.
    weight_shift, balance : int
        Powers of two carried as metadata: of the key weights, and of the scaling of the keys.
    dtype : {"float32", "float64", "bfloat16", "bfloat16x3"}
        The compute dtype of the pass that made it; the last two are the fused passes' operands.
    """

    moments: tuple[Any, ...]
    norm_moments: Any
    count: int
    d: int
    key_centre: Any
    weight_shift: int
    balance: int
    dtype: str

    @property
    def degree(self) -> int:
        """The highest degree of the monomials."""
        return len(self.moments) - 1

    @property
    def d_v(self) -> int:
        """The number of value columns; the moments have one more, for the normaliser."""
        return self.moments[0].shape[1] - 1

    def __add__(self, other: object) -> State:
        if not isinstance(other, State):
            return NotImplemented
        for name in ("degree", "d", "d_v", "weight_shift", "balance", "dtype"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                msg = f"States differ in `{name}`: {mine} and {theirs}; they cannot be added."
                raise ValueError(msg)
        apart = np.asarray(self.key_centre != other.key_centre).nonzero()[0]
        if apart.size:
            i = int(apart[0])
            msg = (
                f"States differ in `key_centre` at {apart.size} of {self.d} components, first at "
                f"{i}: {self.key_centre[i]} and {other.key_centre[i]}; fix the centre before "
                "any State is made."
            )
            raise ValueError(msg)
        return replace(
            self,
            moments=tuple(a + b for a, b in zip(self.moments, other.moments, strict=True)),
            norm_moments=sum_up(self.norm_moments, other.norm_moments),
            count=self.count + other.count,
        )


def sum_up(a, b):
    """Return a + b, exact where representable and rounded up elsewhere (Knuth's two-sum)."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    return np.where(lost > 0, np.nextafter(total, np.inf), total)
