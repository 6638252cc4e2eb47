"""Buckets of keys by magnitude and, for each, cells of queries: a division, its work, its sums.

A bucket is a run of the sorted keys with one State; a cell is a run of the sorted queries with one
degree for that bucket, a prefix of the State. Queries above a bucket's last cell attend to it
exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from subquad.arrays import product_up
from subquad.bounds.rounding import exact_logit_error
from subquad.cost import Work
from subquad.engine import stored_dtype
from subquad.engine.calls import (
    GATHERED,
    NONE,
    ORDERED,
    Calls,
    accumulate_calls,
    contract_calls,
    exact_calls,
)
from subquad.methods.method import widened
from subquad.methods.polynomial_sums import PolynomialParameters, passes_bytes, relative_sums
from subquad.order import OrderStatistics
from subquad.shells import Shell
from subquad.stats import Stats

CRITERIA = ("norm", "entry")
"""Magnitude of a row: its norm, or its largest entry."""

@dataclass(frozen=True)
class Cell:
    """Queries of magnitude at most `largest` and above the cell before: how many, which degree."""

    largest: float
    queries: int
    polynomial: PolynomialParameters


@dataclass(frozen=True)
class Bucket:
    """Keys of magnitude in (smallest, largest], how many, the rows exact, cells by magnitude.

    With `own`, the polynomials are about the centre of these very keys, which `KeyShells` finds.
    With `wide`, the rows exact are so in float64, those above every bucket's cells apart: their
    logits are too large for the other dtype.
    """

    smallest: float
    largest: float
    keys: int
    exact_rows: int
    cells: tuple[Cell, ...] = ()
    own: bool = False
    wide: bool = False

    @property
    def reach(self) -> float:
        """Queries above this attend to the bucket exactly."""
        return self.cells[-1].largest if self.cells else -math.inf

    @property
    def shared(self) -> PolynomialParameters:
        """The polynomial of highest degree and of largest bound over the cells; sets the State."""
        top = max(self.cells, key=lambda cell: cell.polynomial.degree).polynomial
        return replace(top, logit_bound=max(c.polynomial.logit_bound for c in self.cells))


@dataclass(frozen=True)
class BucketParameters:
    """The buckets, from the largest keys down, by which magnitude, and the compute dtype.

    `outer` is the dtype of the queries above the cells of every bucket, whose rows are exact
    throughout and so have no truncation to share the tolerance with; None for that of the bucket.
    """

    criterion: str
    dtype: str
    buckets: tuple[Bucket, ...]
    outer: str | None = None

    def __post_init__(self) -> None:
        tops = (math.inf, *(b.smallest for b in self.buckets))
        if tuple(b.largest for b in self.buckets) != tops[:-1] or not tops[-1] < 0.0:
            ends = [(b.smallest, b.largest) for b in self.buckets]
            msg = f"buckets over {ends} leave keys out: each goes on where the one above ends."
            raise ValueError(msg)

    @property
    def reach(self) -> float:
        """Queries above this attend to all keys, in `outer`; infinity where that is None."""
        return math.inf if self.outer is None else max(b.reach for b in self.buckets)

    @property
    def outer_rows(self) -> int:
        """Queries above `reach`."""
        return 0 if self.outer is None else min(b.exact_rows for b in self.buckets)

    def __str__(self) -> str:
        small = [b for b in self.buckets if b.cells]
        if not small:
            return f"by {self.criterion}, every pair exact, {self.dtype}"
        word = "bucket" if len(small) == 1 else "buckets"
        degrees = " ".join(str(b.shared.degree) for b in small)
        exact = sum(b.keys for b in self.buckets if not b.cells)
        few, many = min(b.exact_rows for b in small), max(b.exact_rows for b in small)
        rows = f"{few:,} to {many:,}" if few < many else f"{few:,}"
        own = sum(b.own for b in small)
        centres = f" ({own} about its own centre)" if own == 1 else (
            f" ({own} about their own centres)" if own else "")  # fmt: skip
        return (f"{len(small)} {word} by {self.criterion}{centres}: degrees {degrees}, "
                f"exact {exact:,} keys; {rows} rows exact, {self._dtypes()}")

    def _dtypes(self) -> str:
        wide = self.outer not in (None, self.dtype) or any(b.wide for b in self.buckets)
        return f"{self.dtype}, the largest in float64" if wide else self.dtype

    def exact_dtype(self, bucket: Bucket) -> str:
        """Return the dtype of the rows that attend to a bucket exactly."""
        return "float64" if bucket.wide else stored_dtype(self.dtype)


def check_criterion(criterion: str) -> str:
    """Return the criterion; ValueError where it is none of `CRITERIA`."""
    if criterion not in CRITERIA:
        msg = f"`criterion` is {criterion!r}; the criteria are {', '.join(CRITERIA)}."
        raise ValueError(msg)
    return criterion


def magnitudes(stats: Stats, criterion: str) -> tuple[OrderStatistics, OrderStatistics, float]:
    """Return the magnitudes of queries and keys, and the factor on their product."""
    if criterion == "norm":
        return stats.query_norms, stats.key_norms, 1.0
    return stats.query_entries, stats.key_entries, float(stats.d)


def shell_of(stats: Stats, bucket: Bucket) -> Shell | None:
    """Return the ball of a bucket that has its own centre; None where it is not known."""
    return None if stats.shells is None else stats.shells.between(bucket.smallest, bucket.largest)


def bucket_height(stats: Stats, criterion: str, bucket: Bucket) -> float:
    """Return the largest magnitude of the bucket's keys, about its own centre where it has one."""
    if not bucket.own:
        return min(bucket.largest, magnitudes(stats, criterion)[1].largest)
    shell = shell_of(stats, bucket) if criterion == "norm" else None
    return math.inf if shell is None else shell.radius


def cell_logit_bound(stats: Stats, criterion: str, bucket: Bucket, cell: Cell) -> float:
    """Return the largest logit of a cell about the bucket's centre, rounded up."""
    queries, _, factor = magnitudes(stats, criterion)
    height = bucket_height(stats, criterion, bucket)
    return product_up(factor, min(cell.largest, queries.largest), height)


def exact_error(
    stats: Stats, criterion: str, largest: float, dtype: str, reach: float = math.inf
) -> float:
    """Return the largest error of a logit, exact in `dtype`, of keys of magnitude `largest`.

    Of queries up to `reach`; where they are centred, that says nothing of them as they are.
    """
    root = 1.0 if criterion == "norm" else math.sqrt(stats.d)
    query = math.inf if stats.tilted or reach == math.inf else product_up(max(reach, 0.0), root)
    norm = product_up(largest, root)
    b = product_up(min(query, stats.full_query_norm), min(norm, stats.key_norms.largest))
    return float(exact_logit_error(widened(b, dtype), stats.d, dtype))


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
        pairs[False], tokens, elements, stats.d, stats.d_v, p.dtype, memory,
        wide_pairs=pairs[True], calls=sum((bucket_calls(stats, b) for b in p.buckets), NONE),
    )  # fmt: skip


def bucket_calls(stats: Stats, bucket: Bucket) -> Calls:
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


def all_exact(stats: Stats, criterion: str, dtype: str) -> BucketParameters:
    """Return the single bucket without a cell: it certifies wherever `exact` does."""
    return BucketParameters(criterion, dtype, (Bucket(-1.0, math.inf, stats.m, stats.n),))


def single(
    stats: Stats, criterion: str, q_cut: float, k_cut: float, large: tuple[int, int],
    small: PolynomialParameters,
) -> BucketParameters:  # fmt: skip
    """Return one bucket of one cell: the split of `support_basis`, or all for `polynomial`."""
    k_cut = k_cut if large[1] else math.inf  # new data may have larger keys
    cell = Cell(q_cut, max(0, stats.n - large[0]), small)
    low = Bucket(-1.0, k_cut, max(0, stats.m - large[1]), large[0], (cell,))
    top = (Bucket(k_cut, math.inf, large[1], stats.n),) if large[1] else ()
    return BucketParameters(criterion, small.dtype, (*top, low))


@dataclass(frozen=True)
class Part:
    """One cell of one bucket as the certificate sees it."""

    eps: float
    reach: float
    query_norm: float
    sums: float
    floor: float
    moved: float | None = None
    """Largest |q.(own centre - centre of the Frame)|, None where they are the same."""


def parts_of(stats: Stats, p: BucketParameters) -> Iterator[Part]:
    """Yield the cells; eps is infinite where a logit may lie outside the cell's interval."""
    for bucket in p.buckets:
        for cell in bucket.cells:
            q, b = cell.polynomial, cell_logit_bound(stats, p.criterion, bucket, cell)
            upper = q.polynomial.upper
            if not (upper < 1.0 and widened(b, p.dtype) <= q.logit_bound):
                yield Part(math.inf, q.logit_bound, 0.0, 0.0, 1.0)
                continue
            shared, shell = bucket.shared, shell_of(stats, bucket) if bucket.own else None
            offset = 1.0 if shell is None else shell.offset
            sums, floor = relative_sums(stats, q, stats.m, offset, shared)
            norm = cell.largest * (1.0 if p.criterion == "norm" else math.sqrt(stats.d))
            norm = min(norm * (1.0 + 2.0**-50), stats.query_norms.largest)
            moved = None if shell is None else product_up(norm, shell.away)
            yield Part(upper, shared.logit_bound, norm, sums, floor, moved)


def polynomial_sums(stats: Stats, parts: list[Part]) -> float:
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
