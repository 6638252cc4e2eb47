"""Plan and Result: a plan prints, runs, and proves each row before it returns anything."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.arrays.libraries import at_home
from subquad.bounds.certificate import Certificate, Term, total
from subquad.bounds.rounding import ASSUMPTIONS, TENSOR_CORES
from subquad.cost.rates import Rates
from subquad.engine import OPERANDS
from subquad.engine.shards.fleet import Fleet
from subquad.head.frame import Frame
from subquad.head.problem import Head, Problem
from subquad.head.sharded import problem_on
from subquad.planning.choose import HeadPlan, ToleranceError
from subquad.planning.recheck import proved_again
from subquad.planning.refusal import refusal_message
from subquad.planning.rerun import RerunPlan, replay
from subquad.planning.run import run_heads
from subquad.planning.store import parts_of, read, record_of, write
from subquad.planning.words import choice_of, head_rows, in_short, rates_line, table


@dataclass(frozen=True, eq=False)
class Result:
    """What `attention` returns.

    Parameters
    ----------
    output : array (..., n, d_v)
        Of the library, device and dtype of Q.
    certificate : Certificate
        The proved error of each row, at most `tol`.
    plan : Plan
        What made it; keeps no array of the input.
    """

    output: Array
    certificate: Certificate
    plan: Plan

    def __repr__(self) -> str:
        ways = " | ".join(sorted({choice_of(head) for head in self.plan.heads}))
        shape = tuple(self.output.shape)
        return f"Result(output {shape}, bound {self.certificate.bound:.3e}, by {ways})"


@dataclass(frozen=True, eq=False)
class Plan:
    """What will be done to each head and why; prints as a table.

    Parameters
    ----------
    heads : tuple of HeadPlan
        In C order of the leading dimensions `lead`.
    lead : tuple of int
        Leading dimensions of Q, K, V and the mask after broadcasting.
    tol : float
        In units of value_radius.
    method : str
        The name that was asked for, or "auto".
    scale : float, optional
        Factor on Q K^T; None for 1/sqrt(d).
    rates : Rates
        The cost model by which methods were compared.
    frames : tuple of Frame, optional
        Of the chosen method of each head; empty where the plan was made without data.
    fleet : Fleet, optional
        The devices that it is for; None where the arrays are.
    """

    heads: tuple[HeadPlan, ...]
    lead: tuple[int, ...]
    tol: float
    method: str
    scale: float | None
    rates: Rates
    frames: tuple[Frame, ...] = ()
    fleet: Fleet | None = None

    @at_home
    def run(self, Q: Array, K: Array, V: Array, /, *, key_mask: Array | None = None) -> Result:
        """Return the Result of this plan on new data of the same shape, bounds proved again.

        Larger logits than the plan's are taken where the tolerance leaves room for them: degrees
        and cost stay, the polynomials are made for these logits. The certificate is proved for the
        new data.

        Parameters
        ----------
        Q, K, V : array (..., n, d), (..., m, d), (..., m, d_v)
            Of the sizes of the plan.
        key_mask : bool array (..., m), optional
            As for `attention`; it has to leave as many keys as the plan is for.

        Returns
        -------
        Result
            With the methods and parameters of the plan, without another search.

        Raises
        ------
        ValueError
            For another shape or number of keys.
        ToleranceError
            Where the new data break a bound, or no method was chosen.
        """
        if key_mask is None and (again := self._replay(Q, K, V)) is not None:
            return again
        problem = problem_on(self.fleet, Q, K, V, scale=self.scale, key_mask=key_mask)
        old = (self.lead, self.heads[0].stats.n, self.heads[0].stats.d, self.heads[0].stats.d_v)
        new = (problem.lead, problem.sizes[1], problem.sizes[3], problem.sizes[4])
        if old != new:
            msg = f"the plan is for (lead, n, d, d_v) = {old}, the data have {new}: plan again."
            raise ValueError(msg)
        require(self)
        places = [place(index, self.lead) for index in range(len(self.heads))]
        proved = tuple(map(proved_again, self.heads, problem.heads, places))
        result = execute(problem, problem.heads, dataclasses.replace(self, heads=proved))
        return dataclasses.replace(result, plan=self)

    @cached_property
    def _ready(self) -> RerunPlan:
        return RerunPlan(self.heads, self.frames, self.lead, self.tol)

    def _replay(self, Q: Array, K: Array, V: Array) -> Result | None:
        """Return the Result on new data in the units of the plan, where that can be had."""
        if not self.frames or self.fleet is not None:
            return None
        found = replay(self._ready, (Q, K, V))
        if found is None:
            return None
        output, terms, bounds = found
        return Result(output, _certificate(terms, bounds, self), self)

    def table(self) -> str:
        """Return one line a head: index, logit bound, method, its bound, and the crossover.

        Returns
        -------
        str
            The crossover is the length at which another method would win, where `exact` was
            chosen: a search, some milliseconds a head at the first call.
        """
        return head_rows(self.heads, [str(index) for index in np.ndindex(*self.lead)])

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON types, with a "version"; `from_dict` makes it a plan again.

        Floats are exact; those that are not finite are {"float": "inf"}. All that `run`, `str` and
        `table` need is there; the order and samples of the rows, which only another search would
        need, are not.

        Returns
        -------
        dict
            What `json.dump` takes.

        Raises
        ------
        TypeError
            For a method of one's own and for processes as devices.
        """
        return record_of(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Plan:
        """Return the plan of `to_dict`; it runs with the same bits.

        Parameters
        ----------
        record : dict
            From `to_dict`.

        Returns
        -------
        Plan
            It has the largest norms of the plan's data, no order of rows and no samples.

        Raises
        ------
        ValueError
            For another version, and for what is no such record.
        """
        return cls(**parts_of(record))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` to a file as JSON: it is replaced as a whole, or stays as it was.

        Parameters
        ----------
        path : path-like
            Of the file.
        """
        write(self.to_dict(), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Return the plan that `save` wrote; nothing in the file is executed.

        Parameters
        ----------
        path : path-like
            Of the file.

        Returns
        -------
        Plan
            That of `from_dict`.

        Raises
        ------
        ValueError
            For another version, and for a file that holds no plan.
        """
        return cls.from_dict(read(path))

    def __repr__(self) -> str:
        return f"Plan({in_short(self.heads)})"

    def __str__(self) -> str:
        groups = []
        by_choice = sorted(range(len(self.heads)), key=lambda i: choice_of(self.heads[i]))
        for choice, members in groupby(by_choice, key=lambda i: choice_of(self.heads[i])):
            indices = sorted(members, key=lambda i: self.heads[i].stats.logit_bound)
            lines = table(self.heads[indices[len(indices) // 2]])
            if len(self.heads) > 1:
                spread = [self.heads[i].stats.logit_bound for i in (indices[0], indices[-1])]
                title = f"{len(indices)} of {len(self.heads)} heads: {choice}, logit bounds "
                lines.insert(0, title + f"{spread[0]:.3g} to {spread[1]:.3g}; the median one:")
            groups.append("\n".join(lines))
        return "\n\n".join([*groups, rates_line(self.rates)])


def execute(problem: Problem, heads: list[Head], made: Plan) -> Result:
    """Run every head, certify it, and refuse to return a row above the tolerance."""
    xp, lead = problem.xp, problem.lead
    output, terms = run_heads(heads, [own.chosen for own in made.heads if own.chosen], made.tol)
    joined = tuple(
        dataclasses.replace(t, value=xp.reshape(t.value, (*lead, t.value.shape[-1]))) for t in terms
    )
    frames = [head.frame for head in heads]
    with np.errstate(over="ignore"):
        radii = [
            np.nextafter(frame.value_radius / frame.value_pre, np.inf) * (frame.value_radius > 0.0)
            for frame in frames
        ]
    radius = np.reshape(radii, (*lead, -1))
    certificate = _certificate(joined, total(joined, joined[0].value), made, radius)
    if not bool(xp.all(certificate.row_bounds <= made.tol)):
        msg = (
            f"the run proves only {certificate.bound:.3e}, tol is {made.tol:g}: the plan's "
            "bound was smaller, which should not happen; nothing is returned."
        )
        raise ToleranceError(msg)
    return Result(xp.reshape(output, (*lead, *output.shape[-2:])), certificate, made)


def _certificate(
    terms: tuple[Term, ...], bounds: Array, made: Plan, radius: np.ndarray | None = None
) -> Certificate:
    """Return the Certificate of Terms and their sum (..., n), with what the dtypes suppose."""
    dtypes = {own.chosen.work.dtype for own in made.heads if own.chosen is not None}
    assumed = (*ASSUMPTIONS, TENSOR_CORES) if dtypes & set(OPERANDS) else ASSUMPTIONS
    return Certificate(terms, bounds, "always", assumed, radius)


def stack(per_head: list[Array], problem: Problem) -> Array:
    """Return the arrays of all heads as one, the leading dimensions in front."""
    xp = problem.xp
    joined = per_head[0] if len(per_head) == 1 else xp.stack(per_head)  # one is not copied
    return xp.reshape(joined, (*problem.lead, *per_head[0].shape))


def require(made: Plan) -> None:
    """Raise ToleranceError for the first head for which no method was chosen."""
    for index, head in enumerate(made.heads):
        if head.chosen is None:
            where = place(index, made.lead)
            raise ToleranceError(refusal_message(made.heads, index, made.method, where))


def place(index: int, lead: tuple[int, ...]) -> str:
    """Return " in head (i, j)", empty where there are no leading dimensions."""
    if not lead:
        return ""
    return f" in head {tuple(int(i) for i in np.unravel_index(index, lead))}"
