"""What a division into buckets costs, and what the certificate of its sums rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from subquad.arrays.arithmetic import product_up
from subquad.bounds.rounding import exact_logit_error
from subquad.cost.rates import Work
from subquad.cost.steps import (
    GATHERED,
    NONE,
    ORDERED,
    Overhead,
    accumulate_calls,
    contract_calls,
    exact_calls,
)
from subquad.head.stats import Stats
from subquad.methods.method import stored_norm_bound
from subquad.methods.polynomial.sums import passes_bytes, relative_sums
from subquad.methods.thresholds.division import Bucket, BucketParameters, cell_logit_bound, shell_of


def count_work(stats: Stats, p: BucketParameters) -> Work:
    """Return the pairs left exact, and the features of each bucket's keys and cells."""
    pairs, tokens, memory = {False: 0.0, True: 0.0}, 0.0, 0.0
    pairs[p.outer == "float64" != p.dtype] += float(p.outer_rows) * stats.m
    for bucket in p.buckets:
        pairs[bucket.wide] += float(bucket.keys) * (bucket.exact_rows - p.outer_rows)
        if bucket.cells and bucket.keys:
            tokens += float(bucket.shared.r) * bucket.keys
            tokens += sum(float(c.polynomial.r) * c.queries for c in bucket.cells)
            memory = max(memory, passes_bytes(stats.d, stats.d_v, bucket.shared))
    # Beyond one pass over the input: rows put in order, gathered; rows of each bucket merged.
    passes = 1.0 + ORDERED + GATHERED + (0.0 if len(p.buckets) == 1 else 0.5)
    elements = float(passes * (stats.n + stats.m) * (stats.d + stats.d_v))
    merged = sum(bool(b.cells) for b in p.buckets) - 1 + sum(b.own for b in p.buckets)
    elements += merge_elements(stats) * max(0, merged)
    return Work(
        pairs[False],
        tokens,
        elements,
        stats.d,
        stats.d_v,
        p.dtype,
        memory,
        wide_pairs=pairs[True],
        calls=sum((bucket_calls(stats, b) for b in p.buckets), NONE),
    )


def bucket_calls(stats: Stats, bucket: Bucket) -> Overhead:
    """Return the Calls of a bucket: its State, a contraction for each cell, the exact rows."""
    d, d_v = stats.d, stats.d_v
    calls = exact_calls(bucket.exact_rows, bucket.keys, d, d_v)
    if not bucket.cells or not bucket.keys:
        return calls
    calls += accumulate_calls(bucket.keys, d, d_v, bucket.shared.degree)
    for cell in bucket.cells:
        calls += contract_calls(cell.queries, d, d_v, cell.polynomial.degree)
    return calls


def merge_elements(stats: Stats) -> float:
    """Return what one bucket more costs, in entries prepared: queries balanced, sums merged."""
    return 0.5 * stats.n * (stats.d + stats.d_v)


def exact_error(
    stats: Stats, criterion: str, largest: float, dtype: str, reach: float = math.inf
) -> float:
    """Return the largest error of a logit, exact in `dtype`, of keys of magnitude `largest`.

    Of queries up to `reach`; where they are centred, that says nothing of them as they are.
    """
    root = 1.0 if criterion == "norm" else math.sqrt(stats.d)
    query = (
        math.inf if stats.keys_weighted or reach == math.inf else product_up(max(reach, 0.0), root)
    )
    norm = product_up(largest, root)
    b = product_up(min(query, stats.full_query_norm), min(norm, stats.key_norms.largest))
    return float(exact_logit_error(stored_norm_bound(b, dtype), stats.d, dtype))


@dataclass(frozen=True)
class CellAccount:
    """One cell of one bucket as the certificate sees it."""

    eps: float
    reach: float
    query_norm: float
    sums: float
    floor: float
    moved: float | None = None
    """Largest |q.(own centre - centre of the Frame)|, None where they are the same."""


def parts_of(stats: Stats, p: BucketParameters) -> Iterator[CellAccount]:
    """Yield the cells; eps is infinite where a logit may lie outside the cell's interval."""
    for bucket in p.buckets:
        for cell in bucket.cells:
            q, b = cell.polynomial, cell_logit_bound(stats, p.criterion, bucket, cell)
            upper = q.polynomial.upper
            if not (upper < 1.0 and stored_norm_bound(b, p.dtype) <= q.logit_bound):
                yield CellAccount(math.inf, q.logit_bound, 0.0, 0.0, 1.0)
                continue
            shared, shell = bucket.shared, shell_of(stats, bucket) if bucket.own else None
            offset = 1.0 if shell is None else shell.offset
            sums, floor = relative_sums(stats, q, stats.m, offset, shared)
            norm = cell.largest * (1.0 if p.criterion == "norm" else math.sqrt(stats.d))
            norm = min(norm * (1.0 + 2.0**-50), stats.query_norms.largest)
            moved = None if shell is None else product_up(norm, shell.away)
            yield CellAccount(upper, shared.logit_bound, norm, sums, floor, moved)


def sums_over_normaliser(stats: Stats, parts: list[CellAccount]) -> float:
    """Return the rounding of the polynomial parts of a row over its normaliser.

    A row's rounding is at most the sum over its parts of `sums` times their key weight, times
    exp(`moved`) where their centre is their own. Its normaliser is at least, part by part, `floor`
    times that weight, likewise; and, by Jensen over all keys, at least all the weight times
    exp(-|q| |mean of the keys|), less a relative eps.
    """
    eps = max((p.eps for p in parts), default=0.0)
    if not parts or not eps < 1.0:
        return 0.0
    away = stats.key_offset * stats.key_norms.largest
    by_part = max(p.sums / p.floor for p in parts)
    exponents = [p.query_norm * away + (p.moved or 0.0) for p in parts]
    if not max(exponents) < 600.0:
        return by_part
    whole = max(
        p.sums * math.exp(x) * (1.0 + eps) * (1.0 + 2.0**-40)
        for p, x in zip(parts, exponents, strict=True)
    )
    return min(by_part, whole)
