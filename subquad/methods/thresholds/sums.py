"""The sums of one bucket: its cells by polynomial, about its own centre or not, the rest exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import array_api_compat
import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.bounds.partial import Partial, stack_rows
from subquad.bounds.rounding import exact_logit_error
from subquad.engine.rows import rows_of
from subquad.engine.threads import parallel_map
from subquad.head.problem import Head
from subquad.head.shells import Shell
from subquad.methods.exact import exact_sums
from subquad.methods.method import stored_norm_bound
from subquad.methods.polynomial.sums import KeySums, contract_queries, key_state
from subquad.methods.thresholds.division import Bucket, shell_of


@dataclass(frozen=True)
class SortedRows:
    """Rows of a head in ascending order of magnitude."""

    query_order: np.ndarray
    query_magnitudes: np.ndarray
    key_order: np.ndarray
    key_magnitudes: np.ndarray
    Q: Array

    @classmethod
    def of(cls, head: Head, queries: np.ndarray, keys: np.ndarray) -> SortedRows:
        """Return the order of magnitudes (n,) and (m,), and the queries in it."""
        xp = array_api_compat.array_namespace(head.Q)
        q, k = parallel_map(np.argsort, (queries, keys))
        return cls(q, queries[q], k, keys[k], xp.take(head.Q, xp.asarray(q), axis=0))


def bucket_partial(
    head: Head, sides: SortedRows, bucket: Bucket, exact_dtypes: tuple[str, str], reach: float
) -> Partial:
    """Return the sums of all queries, in ascending order, over the keys of one bucket.

    Exact ones in the first dtype, in the second from queries above `reach` on.
    """
    xp = array_api_compat.array_namespace(head.Q)
    limits = bucket.smallest, bucket.largest
    low, high = np.searchsorted(sides.key_magnitudes, limits, side="right")
    index, n = sides.key_order[low:high], sides.query_order.size
    if index.size == 0:
        return Partial.empty(n, head.V.shape[1], xp)
    K, V = (xp.take(x, xp.asarray(index), axis=0) for x in (head.K, head.V))
    key_norms = head.rows.key_norms[index]
    parts = list(_cells(head, sides, bucket, (K, key_norms), V))
    small = sum(part.normaliser.shape[0] for part in parts)
    outer = max(small, int(np.searchsorted(sides.query_magnitudes, reach, side="right")))
    for dtype, start, stop in _exact_runs(exact_dtypes, small, outer, n):
        rows = slice(start, stop)
        queries = sides.Q[rows], head.rows.full_query_norms[sides.query_order[rows]]
        parts.append(exact_sums(head, queries, (K, float(key_norms.max())), V, dtype))
    return stack_rows(parts)


def _cells(
    head: Head, sides: SortedRows, bucket: Bucket, keys: tuple[Array, np.ndarray], V: Array
) -> Iterator[Partial]:
    """Yield the sums by polynomial of the rows of each cell that has any, in order from row 0."""
    ends = [
        int(np.searchsorted(sides.query_magnitudes, cell.largest, side="right"))
        for cell in bucket.cells
    ]
    if max(ends, default=0) == 0:
        return
    norms = head.rows.query_norms[sides.query_order]
    shell = shell_of(head.stats, bucket) if bucket.own else None
    sums = _key_sums(head, float(norms[: max(ends)].max()), keys, V, bucket, shell)
    start = 0
    for end, cell in zip(ends, bucket.cells, strict=True):
        if end > start:
            queries = sides.Q[start:end], norms[start:end]
            part = contract_queries(head, queries, sums, cell.polynomial)
            if shell is not None:
                part = moved_back(head, queries, part, shell)
            yield part
            start = end


def _key_sums(
    head: Head,
    query_norm: float,
    keys: tuple[Array, np.ndarray],
    V: Array,
    bucket: Bucket,
    shell: Shell | None,
) -> KeySums:
    """Return the sums of a bucket's keys, about the centre of its shell where it has one."""
    (K, norms), side, shared = keys, None, bucket.shared
    if shell is not None:
        side = shell.side
        about, _ = rows_of(K).row_measures(K, side.in_scale, side.centre)
        norms = about * side.out_scale
    key_norm = float(norms.max())
    state = key_state(head, query_norm, (K, key_norm), V, shared.degree, shared.dtype, side)
    return KeySums(state, key_norm, shared)


def moved_back(
    head: Head, queries: tuple[Array, np.ndarray], part: Partial, shell: Shell
) -> Partial:
    """Return the sums of some queries about the centre of `shell` in units of the Frame's."""
    Q, norms = queries
    xp = array_api_compat.array_namespace(Q)
    side = head.frame.query
    logits = rows_of(Q).row_dots(
        Q, side.in_scale, side.centre, shell.displacement(head.frame) * side.out_scale
    )
    slack = centre_error(norms * shell.away, head.stats.d)
    return part.times_exp(logits, xp.asarray(slack))


def centre_error(moved: Array, d: int) -> Array:
    """Return the error of exp(q.c), `moved` >= |q| |c|, as one of the logit.

    In float64: two roundings of each component of c on top of those of q, a dot product, the shift
    by a multiple of ln 2 and exp.
    """
    return exact_logit_error(stored_norm_bound(moved, "float64"), d + 2, "float64")


def _exact_runs(
    dtypes: tuple[str, str], small: int, outer: int, n: int
) -> Iterator[tuple[str, int, int]]:
    """Yield (dtype, start, stop) of the rows `small` to `outer` and on to n, one run if it can."""
    if dtypes[0] == dtypes[1]:
        outer = n
    for dtype, start, stop in zip(dtypes, (small, outer), (outer, n), strict=True):
        if stop > start:
            yield dtype, start, stop
