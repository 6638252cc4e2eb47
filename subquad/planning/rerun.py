"""A plan by the fused passes, again on new data: in the units of the plan, checked on the way.

The plan's polynomial, centres and balance are kept; nothing is measured first. Any centre is a
true one, and the a priori Terms hold for whatever norms, mean of the keys and ranges the new data
have: they come back from the device with the work already under way. What does not hang on the
data is found once for a plan (`RerunPlan`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

import array_api_compat
import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.bounds.certificate import Term
from subquad.engine.rows import fused_operands
from subquad.exp_poly import minimax
from subquad.head.frame import Frame, balancing_exponent
from subquad.head.stats import Stats
from subquad.planning.choose import HeadPlan
from subquad.planning.rerun_terms import FAR, UNIT, RerunBounds

ROWS_AT_ONCE = 2**23
"""Rows of all heads of one launch: what is packed of them takes a few GiB."""
HEADS_AT_ONCE = 2**15
"""Of one launch: a grid has no more than 65,535 of them."""


@dataclass(frozen=True)
class RerunPlan:
    """The heads of a plan and their Frames, with what every run of them needs."""

    heads: tuple[HeadPlan, ...]
    frames: tuple[Frame, ...]
    lead: tuple[int, ...]
    tol: float

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: a copy has no launches, which hold memory of a device."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of Q, K, V and the output."""
        stats = self.heads[0].stats
        rows = (stats.n, stats.d), (stats.m, stats.d), (stats.m, stats.d_v), (stats.n, stats.d_v)
        return tuple((*self.lead, *own) for own in rows)

    @cached_property
    def able(self) -> bool:
        """Whether the fused passes may run, heads of one size, in units that float32 has."""
        sizes = {(own.stats.n, own.stats.m, own.stats.d, own.stats.d_v) for own in self.heads}
        return (
            len(self.frames) == len(self.heads)
            and len(sizes) == 1
            and all(map(_replayable, self.heads, self.frames))
        )

    @cached_property
    def _launches(self) -> dict[int, list[tuple[slice, Any]]]:
        return {}

    def launches(self) -> list[tuple[slice, Any]]:
        """Return (which heads, their `FusedHeads`) of what goes together on the current device.

        Nothing where it has no fused passes.
        """
        from subquad.engine.fused import rerun as fused_rerun  # brings CuPy

        device = fused_rerun.device()
        if device not in self._launches:
            runs = _runs(self.heads) if fused_rerun.available() else []
            self._launches[device] = [self._together(run) for run in runs]
        return self._launches[device]

    def ran(self) -> bool:
        """Return whether these heads ran so before: then there is CuPy."""
        return bool(self._launches)

    def _together(self, run: list[int]) -> tuple[slice, Any]:
        from subquad.engine.fused import rerun as fused_rerun

        units, coefficients, stats = [], [], self.heads[0].stats
        for i in run:
            p = self.heads[i].parameters
            sides = _sides(self.heads[i], self.frames[i])
            units.append(fused_rerun.Units(*sides, self.frames[i].query_tilt))
            coefficients.append(_coefficients(p.degree, p.logit_bound))
        shape = stats.n, stats.m, stats.d, stats.d_v
        operands = self.heads[run[0]].parameters.dtype
        members = slice(run[0], run[-1] + 1)
        limits = self.proofs.limits[members]
        return members, fused_rerun.FusedHeads(
            shape, units, np.array(coefficients), operands, limits
        )

    @cached_property
    def reach(self) -> np.ndarray:
        """By how much the norm of a key moves the logarithm of its weight at most, (heads,)."""
        found = [
            0.0
            if frame.query_tilt is None
            else float(np.linalg.norm(frame.query_tilt))
            / frame.key.out_scale
            * 2.0 ** _balance(head.stats)
            * UNIT
            for head, frame in zip(self.heads, self.frames, strict=True)
        ]
        return np.array(found)

    @cached_property
    def proofs(self) -> RerunBounds:
        """What is proved of these heads on new data."""
        return RerunBounds(self.heads, self.reach, self.tol)


def replay(
    ready: RerunPlan, arrays: tuple[Array, Array, Array]
) -> tuple[Array, tuple[Term, ...], Array] | None:
    """Return (output (..., n, d_v), Terms, their sum (..., n)) of Q, K, V as planned.

    None where they must be run the long way: where a method is not `polynomial` by the fused
    passes, an array is not float32 in C order with the leading dimensions and sizes of the plan,
    or a bound is not met: the device rounds norms up, by about 1% (`bfloat16`) or 0.01%
    (`bfloat16x3`) of the logit bound, for which `polynomial` leaves room where tol does.
    """
    if not ready.able or not (ready.ran() or fused_operands(arrays[0])):
        return None
    from subquad.engine.fused import rerun as fused_rerun  # brings CuPy

    if not (
        fused_rerun.replayable(*arrays)
        and tuple(x.shape for x in arrays) == ready.shapes[:3]
        and (launches := ready.launches())
    ):
        return None
    output, proofs = fused_rerun.empty(ready.shapes[3], "float32"), ready.proofs
    pending: list[Any] = []
    try:  # While the passes run: what is left for after them is one comparison.
        for run, heads in launches:
            pending.append(heads.start(*arrays, output, run.start))
        shape = 1 + len(proofs.names), len(ready.heads)
        per_head = fused_rerun.empty(shape, "float64")
        terms, rows = _by_row(proofs.names, per_head, ready)
        found = _joined([under_way.keys() for under_way in pending])
        bounds, room = proofs.bounds(found), proofs.room(found.key_norms)
        fused_rerun.fill(per_head, bounds)
        met = bool((bounds[0] <= ready.tol).all())
    finally:
        query_norms = [under_way.queries() for under_way in pending]
    query_norm = query_norms[0] if len(query_norms) == 1 else np.concatenate(query_norms)
    met = met and bool((query_norm <= room).all())
    return (output, terms, rows) if met else None


def _joined(reports: list[Any]) -> Any:
    """Return the reports of some heads as one report of all."""
    if len(reports) == 1:
        return reports[0]
    names = [field.name for field in fields(reports[0])]
    return type(reports[0])(*(np.concatenate([getattr(r, n) for r in reports]) for n in names))


def _by_row(
    names: tuple[tuple[str, str], ...], per_head: Array, ready: RerunPlan
) -> tuple[tuple[Term, ...], Array]:
    """Return Terms and their sum as arrays (..., n), views of (sum, values...) of each head."""
    xp = array_api_compat.array_namespace(per_head)
    shape = len(per_head), *ready.lead, ready.heads[0].stats.n
    rows = xp.broadcast_to(per_head.reshape(-1, *ready.lead, 1), shape)
    terms = (Term(name, claim, rows[i]) for i, (name, claim) in enumerate(names, start=1))
    return tuple(terms), rows[0]


def _sides(head: HeadPlan, frame: Frame) -> tuple[Any, Any]:
    """Return the Affine of the queries and of the keys, balanced."""
    balance = _balance(head.stats)
    return frame.query.balanced(balance), frame.key.balanced(-balance)


def _replayable(head: HeadPlan, frame: Frame) -> bool:
    """Return whether the fused passes may run, and float32 has the units of the plan."""
    chosen = head.chosen
    if chosen is None or not chosen.method.rerunnable(chosen.parameters):
        return False
    sides = _sides(head, frame)
    near = all(
        1.0 / FAR <= x <= FAR for in_scale, _, out_scale in sides for x in (in_scale, out_scale)
    )
    centres = all(np.array_equal(c, c.astype(np.float32)) for _, c, _ in sides)
    return near and centres and math.frexp(sides[1][2])[0] == 0.5


def _balance(stats: Stats) -> int:
    return balancing_exponent(stats.query_norms.largest, stats.key_norms.largest)


def _runs(heads: tuple[HeadPlan, ...]) -> list[list[int]]:
    """Return the heads in runs that one launch of the passes can take."""
    rows = max(heads[0].stats.n, heads[0].stats.m)
    most = max(1, min(HEADS_AT_ONCE, ROWS_AT_ONCE // rows))
    runs: list[list[int]] = []
    for _, run in groupby(range(len(heads)), key=lambda i: _passes(heads[i])):
        members = list(run)
        runs += [members[i : i + most] for i in range(0, len(members), most)]
    return runs


def _passes(head: HeadPlan) -> tuple[int, str]:
    return head.parameters.degree, head.parameters.dtype


@lru_cache(maxsize=1024)
def _coefficients(degree: int, logit_bound: float) -> np.ndarray:
    return minimax(degree, logit_bound).scaled()
