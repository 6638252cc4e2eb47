"""Running the heads of a plan: each by its method, certified, back in the units of its values.

Small heads of one shape that go exact run together: they share the cost that is not arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from subquad.arrays.arithmetic import Array, namespace
from subquad.bounds.certificate import Term, total
from subquad.bounds.partial import Partial, join_rows
from subquad.engine.shards.fleet import Sharded
from subquad.engine.threads import ENTRY_WORK, parallel_map
from subquad.head.problem import Head
from subquad.methods.exact import exact_rows
from subquad.methods.method import Proposal, storage_term
from subquad.methods.on_shards import finished

Ran = tuple[Array, tuple[Term, ...]]
"""The output, and the Terms of its rows."""

TOGETHER = 2**21
"""Entries of the outputs of heads that run together: so many are held in float64."""


def run_heads(heads: Sequence[Head], chosen: Sequence[Proposal], tol: float) -> Ran:
    """Return the output (heads, n, d_v) and its Terms, each (heads, n), as each is chosen to run.

    Rows whose bound exceeds tol go exact where the plan announced it, and up to that share.
    """
    parts = list(_parts(heads, chosen, tol))
    if len(parts) == 1:  # is not copied
        return parts[0]
    xp = namespace(parts[0][0])
    columns = zip(*(terms for _, terms in parts), strict=True)
    return xp.concat([output for output, _ in parts]), tuple(
        replace(column[0], value=xp.concat([term.value for term in column])) for column in columns
    )


def _parts(heads: Sequence[Head], chosen: Sequence[Proposal], tol: float) -> Iterator[Ran]:
    """Yield what runs of heads give, in order."""
    views = list(map(view_of, heads, chosen))
    keys = [own.method.batch_key(view, own) for view, own in zip(views, chosen, strict=True)]
    for key, run in groupby(range(len(views)), key=lambda i: keys[i]):
        members = list(run)
        if key is not None and len(members) > 1:
            yield _run_together([views[i] for i in members], chosen[members[0]])
            continue
        for i in members:
            output, terms = _run_head(views[i], chosen[i], tol)
            yield output[None], tuple(replace(t, value=t.value[None]) for t in terms)


def _run_together(heads: Sequence[Head], chosen: Proposal) -> Ran:
    """Return the output (heads, n, d_v) of heads that go exact and its Terms, each (heads, n)."""
    n, d_v = heads[0].Q.shape[0], heads[0].V.shape[1]
    output = np.empty((len(heads), n, d_v), heads[0].dtype)
    each = max(1, TOGETHER // (n * d_v))
    found = [
        _some_together(heads[i : i + each], chosen, output[i : i + each])
        for i in range(0, len(heads), each)
    ]
    return output, tuple(
        replace(column[0], value=np.concatenate([term.value for term in column]))
        for column in zip(*found, strict=True)
    )


def _some_together(heads: Sequence[Head], chosen: Proposal, output: Array) -> tuple[Term, ...]:
    """Write the output of the heads and return its Terms."""
    partial = chosen.method.run_together(heads, chosen.parameters)
    divisor, terms = partial.certified()

    def restore(i: int) -> None:
        own = heads[i].frame.restore(partial.numerator[i], heads[i].dtype, divisor[i])
        output[i] = own

    parallel_map(restore, range(len(heads)), float(ENTRY_WORK) * output.size, alone=True)
    stored = [storage_term(head.stats, chosen.work.dtype) for head in heads]
    values = np.array([[term.value] for term in stored])
    return (*terms, replace(stored[0], value=np.zeros_like(divisor) + values))


def _run_head(head: Head, chosen: Proposal, tol: float) -> Ran:
    """Return the output (n, d_v) of one head, in the view it was planned in, and its Terms."""
    if isinstance(head.Q, Sharded):
        return _run_sharded(head, chosen)
    partial = chosen.method.run(head, chosen.parameters)
    stored = storage_term(head.stats, chosen.work.dtype)
    divisor, terms = _certified(partial, stored)
    if chosen.fallback > 0.0:
        xp = namespace(divisor)
        failed = ~(total(terms, terms[0].value) <= tol)  # NaN fails
        rows = xp.nonzero(failed)[0]
        if 0 < rows.shape[0] <= chosen.fallback * failed.shape[0]:
            kept = xp.nonzero(~failed)[0]
            partial = join_rows([(kept, partial.rows(kept)), (rows, exact_rows(head, rows))])
            divisor, terms = _certified(partial, stored)
    return head.frame.restore(partial.numerator, head.dtype, divisor), terms


def _run_sharded(head: Head, chosen: Proposal) -> Ran:
    """Return the output of one head and its Terms, each shard certified on its own device."""
    names: list[tuple[Term, ...]] = []
    stored = storage_term(head.stats, chosen.work.dtype)  # measured of all shards, so not by one

    def finish(partial: Partial) -> tuple[Array, list[Array]]:
        divisor, terms = _certified(partial, stored)
        names.append(terms)
        like = namespace(divisor).zeros_like(divisor)
        output = head.frame.restore(partial.numerator, head.dtype, divisor)
        return output, [like + term.value for term in terms]

    assert chosen.method.run_on_shards is not None
    partials = chosen.method.run_on_shards(head, chosen.parameters)
    output, values = finished(head, partials, finish)
    return output, tuple(
        replace(term, value=value) for term, value in zip(names[0], values, strict=True)
    )


def _certified(partial: Partial, stored: Term) -> tuple[Array, tuple[Term, ...]]:
    """Return the divisor of the numerator and every Term, storage included, arrays (n,)."""
    divisor, terms = partial.certified()
    like = namespace(divisor).zeros_like(divisor)
    return divisor, (*terms, replace(stored, value=like + stored.value))


def view_of(head: Head, chosen: Proposal) -> Head:
    """Return the head in the Frame it was planned in; new data may have fewer Frames."""
    views = head.views
    return views[min(chosen.view, len(views) - 1)]
