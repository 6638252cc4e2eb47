"""Problem: checked Q, K, V, head by head, each measured once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import array_api_compat
import numpy as np

from subquad.arrays.arguments import check_scale, dtype_name
from subquad.arrays.arithmetic import Array
from subquad.arrays.lazy import Lazy
from subquad.engine.rows import fused_operands
from subquad.engine.threads import ENTRY_WORK, side_by_side, thread_count
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

Sides = tuple[Lazy[MeasuredSide], Lazy[MeasuredSide], Lazy[tuple[np.ndarray, ...]]]
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
    """One head, Q (n, d), K (m, d), V (m, d_v), seen in one of its Frames.

    Raises NotFiniteError where something is measured of rows that are not finite.
    """

    Q: Array
    K: Array
    V: Array
    scale: float
    view: int = 0
    sides: Sides | None = None
    _frames: Lazy[tuple[tuple[Frame, RowMagnitudes], ...]] | None = None

    def __post_init__(self) -> None:
        sides = self.sides or (_later("Q", self.Q), _later("K", self.K), _later("V", self.V))
        queries, keys, units = sides
        found = self._frames or Lazy(
            lambda: make_frames(queries(), keys(), units(), (self.Q, self.K), self.scale)
        )
        object.__setattr__(self, "sides", sides)
        object.__setattr__(self, "_frames", found)

    @property
    def _measured(self) -> tuple[tuple[Frame, RowMagnitudes], ...]:
        assert self._frames is not None
        return self._frames()

    def views(self) -> tuple[Head, ...]:
        """Return this head in each of its Frames; what is measured once is shared."""
        return tuple(replace(self, view=view) for view in range(len(self._measured)))

    @property
    def frame(self) -> Frame:
        """The units of this view."""
        return self._measured[self.view][0]

    @property
    def rows(self) -> RowMagnitudes:
        """The magnitudes of the rows, in the units of the frame."""
        return self._measured[self.view][1]

    @property
    def dtype(self) -> str:
        """The name of the input's dtype."""
        return dtype_name(self.Q)

    @cached_property
    def stats(self) -> Stats:
        """What the planner may see."""
        assert self.sides is not None
        queries, keys, _ = self.sides
        sample = HeadSample(queries().sample, keys().sample, self.frame, self.rows)
        stats = stats_of(
            self.frame,
            self.rows,
            self.dtype,
            self.Q.shape[1],
            self.V.shape[1],
            sample,
            fused_operands(self.Q),
        )
        return replace(stats, shells=KeyShells(self.K, self.frame, self.rows))


def _later(kind: str, x: Array) -> Lazy[Any]:
    """Return what measures one array when it is asked for."""
    return Lazy(lambda: MEASURES[kind]([x])[0])


class Problem:
    """Checked queries, keys and values with broadcast leading dimensions.

    Parameters
    ----------
    Q, K, V : array (..., n, d), (..., m, d), (..., m, d_v)
        One library, one dtype (float16, float32 or float64), finite where keys take part.
    scale : float, optional
        Factor on Q K^T, positive; 1/sqrt(d) by default.
    key_mask : bool array (..., m), optional
        True where a key takes part; its leading dimensions broadcast to those of Q, K and V.

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
            check_key_mask(key_mask, K)
        self.lead = broadcast_lead(Q, K, V, key_mask)
        self.Q, self.K, self.V, self.key_mask = Q, K, V, key_mask
        self._known: dict[Key, tuple[Array, Lazy[Any]]] = {}
        self._heads = [self._head(index) for index in np.ndindex(*self.lead)]
        self._measure()

    def _measure(self) -> None:
        """Measure every head; ValueError where what takes part is not finite."""
        try:
            self._measure_together()
            for head in self._heads:
                head.views()
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

    def _measure_together(self) -> None:
        """Measure what the heads are of, arrays of one kind and shape together."""
        stacks: dict[tuple, list[tuple[Array, Lazy[Any]]]] = {}
        for key, found in self._known.items():
            stacks.setdefault((key[0], *found[0].shape), []).append(found)
        here = all(array_api_compat.is_numpy_array(x) for x, _ in self._known.values())
        self._known.clear()

        def settle(which: tuple) -> None:
            xs, answers = zip(*stacks[which], strict=True)
            for answer, found in zip(answers, MEASURES[which[0]](xs), strict=True):
                answer.settle(found)

        # Processes of a fleet make the same calls in the same order; and where there are more
        # threads than sides, each side has work for all of them.
        if here and thread_count() <= len(stacks):
            entries = self.Q.size + self.K.size + self.V.size
            side_by_side(settle, stacks, float(MEASURED_WORK) * entries)
        else:
            for which in stacks:
                settle(which)

    @property
    def sizes(self) -> tuple[tuple[int, ...], int, int, int, int]:
        """Leading dimensions, n, m, d and d_v."""
        return (self.lead, *self.Q.shape[-2:-1], *self.K.shape[-2:], self.V.shape[-1])

    def heads(self) -> Iterator[Head]:
        """Yield each head in C order of the leading dimensions; masked keys are dropped."""
        yield from self._heads

    def _head(self, index: tuple[int, ...]) -> Head:
        (Q, K, V), keys = self._parts(index)
        queries, own_keys, values = map(self._once, keys, (Q, K, V))
        return Head(Q, K, V, self.scale, sides=(queries, own_keys, values))

    def _parts(self, index: tuple[int, ...]) -> tuple[tuple[Array, ...], tuple[Key, ...]]:
        """Return Q, K and V of a head, and what they are: the same where the arrays are."""
        (Q, i), (K, j), (V, k) = (_pick(x, index, 2) for x in (self.Q, self.K, self.V))
        mask: tuple[int, ...] = ()
        if self.key_mask is not None:
            chosen, mask = _pick(self.key_mask, index, 1)
            kept = self.xp.nonzero(chosen)[0]
            K, V = self.xp.take(K, kept, axis=0), self.xp.take(V, kept, axis=0)
        return (Q, K, V), (("Q", i), ("K", j, mask), ("V", k, mask))

    def _once(self, key: Key, x: Array) -> Lazy[Any]:
        """Return what is measured of an array, the same for all heads that share it."""
        return self._known.setdefault(key, (x, _later(key[0], x)))[1]


def _pick(x: Array, index: tuple[int, ...], inner: int) -> tuple[Array, tuple[int, ...]]:
    """Return x at the broadcast leading index, its last `inner` dimensions whole, and its own."""
    lead = x.shape[: x.ndim - inner]
    index = index[len(index) - len(lead) :]
    own = tuple(0 if size == 1 else i for i, size in zip(index, lead, strict=True))
    return x[own], own
