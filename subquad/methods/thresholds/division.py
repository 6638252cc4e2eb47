"""Buckets of keys by magnitude and, for each, cells of queries: a division.

A bucket is a run of the sorted keys with one State; a cell is a run of the sorted queries with one
degree for that bucket, a prefix of the State. Queries above a bucket's last cell attend to it
exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from subquad.arrays.arithmetic import product_up
from subquad.engine import stored_dtype
from subquad.head.shells import Shell
from subquad.head.sides import OrderStatistics
from subquad.head.stats import Stats
from subquad.methods.polynomial.sums import PolynomialParameters, widened

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
        whose = "its own centre" if own == 1 else "their own centres"
        centres = f" ({own} about {whose})" if own else ""
        return (
            f"{len(small)} {word} by {self.criterion}{centres}: degrees {degrees}, "
            f"exact {exact:,} keys; {rows} rows exact, {self._dtypes()}"
        )

    def _dtypes(self) -> str:
        wide = self.outer not in (None, self.dtype) or any(b.wide for b in self.buckets)
        return f"{self.dtype}, the largest in float64" if wide else self.dtype

    def exact_dtype(self, bucket: Bucket) -> str:
        """Return the dtype of the rows that attend to a bucket exactly."""
        return "float64" if bucket.wide else stored_dtype(self.dtype)


def check_criterion(criterion: str, criteria: tuple[str, ...] = CRITERIA) -> str:
    """Return the criterion; ValueError where it is none of `criteria`."""
    if criterion not in criteria:
        msg = f"`criterion` is {criterion!r}; the criteria are {', '.join(criteria)}."
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


def widened_bucket(stats: Stats, criterion: str, bucket: Bucket) -> Bucket:
    """Return the bucket with its cells' polynomials for the logits of `stats`."""
    bounds = (cell_logit_bound(stats, criterion, bucket, cell) for cell in bucket.cells)
    cells = tuple(
        replace(cell, polynomial=widened(cell.polynomial, bound))
        for cell, bound in zip(bucket.cells, bounds, strict=True)
    )
    return replace(bucket, cells=cells)


def all_exact(stats: Stats, criterion: str, dtype: str) -> BucketParameters:
    """Return the single bucket without a cell: it certifies wherever `exact` does."""
    return BucketParameters(criterion, dtype, (Bucket(-1.0, math.inf, stats.m, stats.n),))


def single(
    stats: Stats,
    criterion: str,
    q_cut: float,
    k_cut: float,
    large: tuple[int, int],
    small: PolynomialParameters,
) -> BucketParameters:
    """Return one bucket of one cell: the split of `support_basis`, or all for `polynomial`."""
    k_cut = k_cut if large[1] else math.inf  # new data may have larger keys
    cell = Cell(q_cut, max(0, stats.n - large[0]), small)
    low = Bucket(-1.0, k_cut, max(0, stats.m - large[1]), large[0], (cell,))
    top = (Bucket(k_cut, math.inf, large[1], stats.n),) if large[1] else ()
    return BucketParameters(criterion, small.dtype, (*top, low))
