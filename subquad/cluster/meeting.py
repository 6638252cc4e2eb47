"""What runs on the workers of `subquad.cluster`: ranks, and the actor through which they speak."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from subquad.attention import attention
from subquad.bounds.certificate import Certificate
from subquad.engine import threads
from subquad.engine.shards.fleets import ProcessFleet
from subquad.planning.plan import Plan

MARGIN = 10.0
"""Seconds that an answer of the actor may take beyond the patience."""

Record = tuple[Certificate, Plan] | Exception


class AbandonedError(RuntimeError):
    """A worker was lost, failed, or did not come in time."""


@contextmanager
def told() -> Iterator[None]:
    """Raise AbandonedError, a sentence, for the lists of tasks that dask raises when it drops them.

    The reason is a word of its own: "lost dependencies", "scheduler-connection-lost".
    """
    try:
        yield
    except CancelledError as error:
        groups = getattr(error, "error_groups", [error])
        reasons = sorted(
            {str(own.reason) for own in groups if getattr(own, "reason", None)} - {"unknown"}
        )
        msg = (
            f"dask dropped the tasks of this call ({', '.join(reasons) or 'without a reason'}): a "
            "worker or the scheduler was lost, or they were cancelled. Call again."
        )
        raise AbandonedError(msg) from None


def member(
    meeting: Any,
    rank: int,
    ranks: int,
    Q: np.ndarray,
    K: np.ndarray,
    V: np.ndarray,
    patience: float,
    options: dict[str, Any],
) -> tuple[np.ndarray | None, Record]:
    """Return the output of a rank's queries and its Record, on its worker.

    What it raises is an answer as well: a task that fails would fill the worker's log.
    """
    import distributed

    os.environ.setdefault(threads.VARIABLE, str(distributed.get_worker().state.nthreads))
    steps = iter(range(2**62))

    def gather(part: np.ndarray) -> Sequence[np.ndarray]:
        # Longer than the actor waits; an actor that is gone never answers.
        return meeting.exchange(next(steps), rank, part).result(timeout=patience + MARGIN)

    try:
        result = attention(Q, K, V, devices=ProcessFleet(rank, ranks, gather), **options)
    except Exception as error:
        with suppress(Exception):  # the actor may be gone, with its worker or the call
            meeting.leave(f"worker {rank} of {ranks} failed: {error!r}").result(timeout=MARGIN)
        return None, error
    return result.output, (result.certificate, replace(result.plan, fleet=None))


class Meeting:
    """Where ranks meet: an actor, whose methods wait without keeping a thread."""

    def __init__(self, ranks: int, patience: float) -> None:
        self._ranks, self._patience = ranks, patience
        self._parts: dict[int, dict[int, np.ndarray]] = {}
        self._complete: dict[int, asyncio.Event] = {}
        self._left = ""

    async def exchange(self, step: int, rank: int, part: np.ndarray) -> list[np.ndarray]:
        """Return the parts of all ranks in a step, by rank, once all are there."""
        parts = self._parts.setdefault(step, {})
        complete = self._complete.setdefault(step, asyncio.Event())
        parts[rank] = part
        if len(parts) == self._ranks:
            complete.set()
            del self._parts[step], self._complete[step]
        if not self._left:
            try:
                await asyncio.wait_for(complete.wait(), self._patience)
            except TimeoutError:
                late = sorted(set(range(self._ranks)) - set(parts))
                await self.leave(
                    f"workers {late} of {self._ranks} did not come within {self._patience:g} s."
                )
        if len(parts) < self._ranks:
            raise AbandonedError(self._left)
        return [parts[rank] for rank in range(self._ranks)]

    async def leave(self, why: str) -> None:
        """End the meeting: all that wait, and all that come, are told why."""
        self._left = self._left or why
        for complete in self._complete.values():
            complete.set()
