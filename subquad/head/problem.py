"""Problem: checked Q, K, V, head by head, each measured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import array_api_compat
import numpy as np

from subquad.arrays.arguments import check_scale, dtype_name
from subquad.arrays.arithmetic import Array
from subquad.engine.rows import fused_operands
from subquad.engine.threads import ENTRY_WORK, parallel_map, thread_count
from subquad.head.centring import measure
from subquad.head.frame import Frame, make_frames, value_units
from subquad.head.inputs import (
    broadcast_lead,
    check_arrays,
    check_finite,
    check_key_mask,
    check_shapes,
)
from subquad.head.magnitudes import RowMagnitudes
from subquad.head.sample import HeadSample
from subquad.head.shells import KeyShells
from subquad.head.sides import MeasuredSide, NotFiniteError
from subquad.head.stats import Stats, stats_of

Sides = tuple[MeasuredSide, MeasuredSide, tuple[np.ndarray, ...]]
"""What is measured of queries, keys and values; heads that share an array share it."""
Key = tuple
"""An array of queries ("Q"), keys ("K") or values ("V"), and which."""

MEASURES: dict[str, Callable[[Sequence[Array]], list[Any]]] = {
    "Q": lambda xs: measure(xs, with_zero=True),
    "K": lambda xs: measure(xs, with_zero=False),
    "V": value_units,
}
"""How arrays of one shape are measured together."""
MEASURED_WORK = 4 * ENTRY_WORK
"""What an entry counts that is measured, in the unit of `ENTRY_WORK`: some passes, a search."""


@dataclass(frozen=True)
class Head:
    """One head seen in one of its Frames: what a method's `run` is given. See `measure_head`.

    Parameters
    ----------
    Q, K, V : array (n, d), (m, d), (m, d_v)
        As the caller passed them, masked keys dropped; not prepared, see `Frame`.
    dtype : str
        Theirs: "float16", "float32" or "float64".
    scale : float
        Factor on Q K^T.
    sides : tuple
        What is measured of queries, of keys and of values.
    frames : tuple of (Frame, RowMagnitudes)
        All Frames of the head, one or two.
    frame : Frame
        The units of this view.
    rows : RowMagnitudes
        The magnitudes of the rows, in the units of `frame`.
    """

    Q: Array
    K: Array
    V: Array
    dtype: str
    scale: float
    sides: Sides
    frames: tuple[tuple[Frame, RowMagnitudes], ...]
    frame: Frame
    rows: RowMagnitudes

    @cached_property
    def views(self) -> tuple[Head, ...]:
        """The head in each of its Frames."""
        return tuple(replace(self, frame=frame, rows=rows) for frame, rows in self.frames)

    @cached_property
    def stats(self) -> Stats:
        """What the planner may see."""
        queries, keys, _ = self.sides
        rows = self.rows
        assert rows.query.furthest is not None
        sampled = rows.query.furthest, queries.sample, keys.sample
        sample = HeadSample(*sampled, self.frame, rows.largest[0])
        shells = KeyShells(self.K, self.frame, self.rows)
        sizes = (self.Q.shape[1], self.V.shape[1])
        operands = fused_operands(self.Q)
        return stats_of(self.frame, self.rows, self.dtype, *sizes, sample, shells, operands)


def measure_head(Q: Array, K: Array, V: Array, scale: float, sides: Sides | None = None) -> Head:
    """Return the head in its first Frame, its sides measured where they are not given.

    Raises NotFiniteError where a row is not finite.
    """
    if sides is None:
        found = measure_arrays({("Q",): Q, ("K",): K, ("V",): V})
        sides = found["Q",], found["K",], found["V",]
    frames = make_frames(*sides, (Q, K), scale)
    return Head(Q, K, V, dtype_name(Q), scale, sides, frames, *frames[0])


def measure_arrays(arrays: dict[Key, Array]) -> dict[Key, Any]:
    """Return what MEASURES gives of each array; those of one kind and shape go together.

    Raises NotFiniteError where a row is not finite.
    """
    stacks: dict[tuple, list[Key]] = {}
    for key, x in arrays.items():
        stacks.setdefault((key[0], *x.shape), []).append(key)

    def measured(keys: list[Key]) -> list[tuple[Key, Any]]:
        found = MEASURES[keys[0][0]]([arrays[key] for key in keys])
        return list(zip(keys, found, strict=True))

    # Processes of a fleet make the same calls in the same order; and where there are more
    # threads than sides, each side has work for all of them.
    here = all(map(array_api_compat.is_numpy_array, arrays.values()))
    if here and thread_count() <= len(stacks):
        work = float(MEASURED_WORK) * sum(x.size for x in arrays.values())
        answers = parallel_map(measured, stacks.values(), work, alone=True)
    else:
        answers = [measured(keys) for keys in stacks.values()]
    return dict(pair for pairs in answers for pair in pairs)


class Problem:
    """Checked queries, keys and values with broadcast leading dimensions.

    Parameters
    ----------
    Q, K, V : array (..., n, d), (..., m, d), (..., m, d_v)
        One library, one dtype (float16, float32 or float64), finite where keys take part.
    scale : float, optional
        Factor on Q K^T, positive; 1/sqrt(d) by default.
    key_mask : bool array (..., m), optional
        True where a key takes part; its leading dimensions broadcast to those of Q, K and V. Or
        (..., 1, m), as masks of scores are: one for all queries.

    Attributes
    ----------
    heads : list of Head
        In C order of the leading dimensions `lead`, masked keys dropped, in their first Frames.

    Raises
    ------
    TypeError, ValueError
        With the argument in backticks, the value met, and what is needed.
    """

    def __init__(self, Q, K, V, *, scale=None, key_mask=None) -> None:
        self.xp = check_arrays(Q, K, V)
        check_shapes(Q, K, V)
        self.scale = check_scale(scale, Q.shape[-1])
        if key_mask is not None:
            key_mask = check_key_mask(key_mask, Q, K, V)
        self.lead = broadcast_lead(Q, K, V, key_mask)
        self.Q, self.K, self.V, self.key_mask = Q, K, V, key_mask
        parts = [self._parts(index) for index in np.ndindex(*self.lead)]
        arrays = {key: x for own, keys in parts for key, x in zip(keys, own, strict=True)}
        try:
            found = measure_arrays(arrays)
            self.heads = [
                measure_head(Q, K, V, self.scale, (found[q], found[k], found[v]))
                for (Q, K, V), (q, k, v) in parts
            ]
        except NotFiniteError:
            self._check_finite()
            raise

    def _check_finite(self) -> None:
        """Raise ValueError for the first of Q, K, V with an entry that counts and is not finite."""
        check_finite("Q", self.Q, self.xp)
        if self.key_mask is None:
            check_finite("K", self.K, self.xp)
            check_finite("V", self.V, self.xp)
            return
        for part, name in ((1, "K"), (2, "V")):
            for index in np.ndindex(*self.lead):
                head = f" of head {index}" if index else ""
                x = Problem._parts(self, index)[0][part]
                check_finite(name, x, self.xp, f"{head} where `key_mask` is True")

    @property
    def sizes(self) -> tuple[tuple[int, ...], int, int, int, int]:
        """Leading dimensions, n, m, d and d_v."""
        return (self.lead, *self.Q.shape[-2:-1], *self.K.shape[-2:], self.V.shape[-1])

    def _parts(self, index: tuple[int, ...]) -> tuple[tuple[Array, ...], tuple[Key, ...]]:
        """Return Q, K and V of a head, and what they are: the same where the arrays are."""
        (Q, i), (K, j), (V, k) = (_pick(x, index, 2) for x in (self.Q, self.K, self.V))
        mask: tuple[int, ...] = ()
        if self.key_mask is not None:
            chosen, mask = _pick(self.key_mask, index, 1)
            kept = self.xp.nonzero(chosen)[0]
            K, V = self.xp.take(K, kept, axis=0), self.xp.take(V, kept, axis=0)
        return (Q, K, V), (("Q", i), ("K", j, mask), ("V", k, mask))


def _pick(x: Array, index: tuple[int, ...], inner: int) -> tuple[Array, tuple[int, ...]]:
    """Return x at the broadcast leading index, its last `inner` dimensions whole, and its own."""
    lead = x.shape[: x.ndim - inner]
    index = index[len(index) - len(lead) :]
    own = tuple(0 if size == 1 else i for i, size in zip(index, lead, strict=True))
    return x[own], own
