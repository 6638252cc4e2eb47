"""The search for cuts: which buckets and cells cost least, by dynamic programming.

A bucket costs what its first key and its number of keys say (`cut_tables`), so the best division
of the keys from any place on is the best first bucket and the best rest.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import numpy as np

from subquad.bounds.softmax import logit_perturbation_bound
from subquad.cost.rates import Rates
from subquad.head.stats import Stats
from subquad.methods.method import stored_norm_bound
from subquad.methods.polynomial.sums import LOGIT_BOUND_MIN, parameters_for
from subquad.methods.thresholds.accounts import exact_error
from subquad.methods.thresholds.division import (
    Bucket,
    BucketParameters,
    Cell,
    all_exact,
    bucket_height,
    cell_logit_bound,
    magnitudes,
)
from subquad.methods.thresholds.tables import (
    CutPlaces,
    DegreeLadder,
    cell_seconds,
    counts_above,
    prices_of,
)

GRID = 16
"""Logit bounds are rounded up to this many per octave, so that cells share polynomials."""
_ABOVE = 1.0 + 2.0**-18  # what preparation in float32 may add to a product of norms


def cheapest_cuts(
    stats: Stats,
    criterion: str,
    dtype: str,
    rates: Rates,
    eps: float,
    limit: float,
    most: int | None = None,
    own: bool = False,
    slack: float = math.inf,
    tol: float = math.inf,
) -> BucketParameters:
    """Return the buckets of least predicted cost with estimated errors at most eps.

    `limit` is the largest logit left to a polynomial, whatever its degree; `most` the number of
    buckets that may have one. With `own`, by norm, they may have their own centres. Where exact
    logits in `dtype` err by more than `slack`, they are left to float64; those of rows exact
    throughout where that alone takes most of `tol`.
    """
    queries, _, factor = magnitudes(stats, criterion)
    ladder = DegreeLadder.of(stats, eps, limit)
    if ladder.degrees.size == 0 or most == 0:
        return all_exact(stats, criterion, dtype)
    places = CutPlaces.shells(stats) if own else CutPlaces.of(stats, criterion)
    reach = ladder.reach[:, None, None] / _ABOVE
    above = counts_above(queries, reach, factor * places.heights[None, :, :])
    above = np.broadcast_to(above, (*above.shape[:2], places.starts.size))
    prices = prices_of(stats, dtype, rates)
    priced = np.full(places.starts.size, prices[0]), *prices[1:]
    cuts = _best_cuts(stats, places.starts, above, ladder, priced, most)
    inner = _reach(stats, criterion, places, ladder, cuts)
    first = (
        0
        if dtype == "float64"
        else bisect_left(  # the larger the keys, the larger the error
            places.edges,
            True,
            key=lambda edge: exact_error(stats, criterion, float(edge), dtype, inner) <= slack,
        )
    )
    buckets = []
    for place, end, top in cuts:
        if top >= 0:
            bucket = _bucket(stats, places, place, end, place < first)
            bucket = replace(bucket, own=bool(places.own[place, min(end, places.own.shape[1]) - 1]))
            buckets.append(_with_cells(stats, criterion, dtype, bucket, ladder, top, rates))
            continue
        middle = min(max(place, first), end)
        for start, stop in ((place, middle), (middle, end)):
            if start < stop:
                buckets.append(_bucket(stats, places, start, stop, start < first))
    error = float(logit_perturbation_bound(exact_error(stats, criterion, math.inf, dtype)))
    outer = dtype if error <= 0.9 * tol else "float64"
    return BucketParameters(criterion, dtype, tuple(_joined(buckets)), outer)


def _reach(
    stats: Stats,
    criterion: str,
    places: CutPlaces,
    ladder: DegreeLadder,
    cuts: list[tuple[int, int, int]],
) -> float:
    """Return at least the largest query that some bucket of the cuts has a polynomial for."""
    factor, heights = magnitudes(stats, criterion)[2], places.heights
    return max(
        (
            float(ladder.reach[top])
            / max(factor * float(heights[i, min(j, heights.shape[1]) - 1]), 1e-300)
            for i, j, top in cuts
            if top >= 0
        ),
        default=-math.inf,
    )


def _best_cuts(
    stats: Stats,
    starts: np.ndarray,
    above: np.ndarray,
    ladder: DegreeLadder,
    prices: tuple[np.ndarray, float, float],
    most: int | None,
) -> list[tuple[int, int, int]]:
    """Return (start, end, top step, -1 if exact) of each bucket of the best division, in order."""
    pairs, token, bucket = prices
    before = np.concatenate([np.full_like(above[:1], float(stats.n)), above[:-1]])
    rows = np.cumsum(ladder.r[:, None, None] * (before - above), axis=0)  # features of cells' rows
    edges = np.append(starts, float(stats.m))
    whole = pairs * stats.n * np.diff(edges)
    exactly = np.append(np.cumsum(whole[::-1])[::-1], 0.0)  # from each place on, no bucket left
    exactly_all, found = exactly, []
    for _ in range(1 if most is None else min(most, starts.size)):
        best, steps = np.zeros(starts.size + 1), [(0, 0)] * starts.size
        rest = best if most is None else exactly
        for i in range(starts.size - 1, -1, -1):
            keys = edges[i + 1 :] - edges[i]
            per_key = token * ladder.r[:, None] + pairs[i] * above[:, i, i:]
            by_step = per_key * keys + token * rows[:, i, i:] + bucket
            top = np.argmin(by_step, axis=0)
            with_bucket = by_step[top, np.arange(keys.size)] + rest[i + 1 :]
            without = exactly_all[i] - exactly_all[i + 1 :] + best[i + 1 :]
            j = int(np.argmin(np.minimum(with_bucket, without)))
            best[i] = min(with_bucket[j], without[j])
            steps[i] = i + 1 + j, int(top[j]) if with_bucket[j] < without[j] else -1
        exactly = best
        found.append(steps)
    return _followed(found, starts.size, most is not None)


def _followed(
    found: list[list[tuple[int, int]]], places: int, limited: bool
) -> list[tuple[int, int, int]]:
    """Return the buckets of a division from the best steps, the last layer allowing the most."""
    place, layer, division = 0, len(found) - 1, []
    while place < places:
        end, top = found[layer][place] if layer >= 0 else (places, -1)
        division.append((place, end, top))
        place = end
        if top >= 0 and limited:
            layer -= 1
    return division


def _bucket(stats: Stats, places: CutPlaces, place: int, end: int, wide: bool) -> Bucket:
    """Return the bucket of places `place` to `end`, without a cell."""
    last = end == places.starts.size
    lower = -1.0 if last else float(places.edges[end])
    upper = math.inf if place == 0 else float(places.edges[place])
    count = int((stats.m if last else places.starts[end]) - places.starts[place])
    return Bucket(lower, upper, count, stats.n, wide=wide)


def _joined(buckets: list[Bucket]) -> Iterator[Bucket]:
    """Yield the buckets, neighbours without a cell as one."""
    for (exact, _), run in groupby(buckets, key=lambda bucket: (not bucket.cells, bucket.wide)):
        same = list(run)
        if not exact:
            yield from same
            continue
        keys = sum(bucket.keys for bucket in same)
        yield replace(same[0], smallest=same[-1].smallest, keys=keys)


def _with_cells(
    stats: Stats,
    criterion: str,
    dtype: str,
    bucket: Bucket,
    ladder: DegreeLadder,
    top: int,
    rates: Rates,
) -> Bucket:
    """Return the bucket with its cells up to step `top`; cells not worth a call are left out."""
    queries = magnitudes(stats, criterion)[0]
    _, token, _ = prices_of(stats, dtype, rates)
    call = cell_seconds(stats, dtype, rates)
    factor = magnitudes(stats, criterion)[2]
    height = max(factor * bucket_height(stats, criterion, bucket), 1e-300)
    cells, done = [], 0
    for step in range(top + 1):
        reach = float(ladder.reach[step])
        largest = queries.lowered(reach / _ABOVE / height)
        count = stats.n - queries.count_above(largest) - done
        dearer = (ladder.r[min(step + 1, top)] - ladder.r[step]) * token * count
        if step < top and dearer <= call:
            continue
        p = parameters_for(int(ladder.degrees[step]), LOGIT_BOUND_MIN, dtype, stats.d)
        cell = Cell(largest, count, p)
        b = stored_norm_bound(cell_logit_bound(stats, criterion, bucket, cell), dtype)
        cells.append(replace(cell, polynomial=replace(p, logit_bound=_on_grid(b, reach))))
        done += count
        if done == stats.n:
            break
    return replace(bucket, exact_rows=stats.n - done, cells=tuple(cells))


def _on_grid(logit_bound: float, reach: float) -> float:
    """Return logit_bound rounded up to the grid, but to no more than `reach` if it is within."""
    if logit_bound <= LOGIT_BOUND_MIN:
        return LOGIT_BOUND_MIN
    up = max(logit_bound, 2.0 ** (math.ceil(GRID * math.log2(logit_bound)) / GRID))
    return max(logit_bound, min(up, reach))
