"""One side of a head, queries or keys, about a centre: how its rows enter, their norms by rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from subquad.arrays.arithmetic import Affine
from subquad.arrays.lazy import Lazy

EXACT_RANKS = 64
RANK_RATIO = 1.05
LEVELS = 2.0**16 - 256.0
"""Steps into which magnitudes are rounded where there are too many rows to sort one by one."""


class NotFiniteError(ValueError):
    """A row has an entry that is not finite."""


@dataclass(frozen=True)
class CentredRows:
    """The rows of one side about one centre, in units of 1/in_scale.

    Attributes
    ----------
    norms : array (n,)
        Rounded up; float32 where that loses nothing.
    mean : array (d,), optional
        Of the rows less the centre, within `slack`; of keys alone.
    furthest : array (1, d), optional
        The row of the largest norm as it is, on the host; of queries alone.
    """

    side: Affine
    norms: np.ndarray
    mean: np.ndarray | None
    slack: float
    furthest: np.ndarray | None = None

    @cached_property
    def largest(self) -> float:
        """The largest norm."""
        return float(self.norms.max())


@dataclass(frozen=True)
class MeasuredSide:
    """A side measured: about zero where asked for, and about one or two centres.

    `sample` are some of its rows as they are, on the host, at most SAMPLE.
    """

    sample: np.ndarray
    about_zero: CentredRows | None
    centred: tuple[CentredRows, ...]


@dataclass(frozen=True, eq=False)
class OrderStatistics:
    """The largest magnitudes of a set of rows: ranks 0..63, then geometric, then the last.

    `values[i]` bounds the magnitude of every row but the `ranks[i]` largest.

    Parameters
    ----------
    count : int
        Number of rows.
    table : Lazy
        Returns `ranks`, ascending, and `values`, descending, when they are first asked for:
        O(count log count).
    known_largest : float, optional
        The largest magnitude where it is known already, so that no table is needed for it.
    """

    count: int
    table: Lazy[tuple[np.ndarray, np.ndarray]]
    known_largest: float | None = None

    @classmethod
    def of(cls, magnitudes: np.ndarray, unit: float = 1.0) -> OrderStatistics:
        """Return the order statistics of magnitudes that are at hand.

        Parameters
        ----------
        magnitudes : array (count,)
            All of them are kept where there are at most 64.
        unit : float, optional
            What each is multiplied by.

        Returns
        -------
        OrderStatistics
            In the unit of magnitudes times `unit`.
        """
        largest = float(magnitudes.max()) * unit
        return cls(magnitudes.size, Lazy(lambda: _sorted(magnitudes, unit)), largest)

    @classmethod
    def constant(cls, count: int, value: float) -> OrderStatistics:
        """Return the statistics of rows of which only the largest magnitude is known.

        Parameters
        ----------
        count : int
            Number of rows.
        value : float
            Bounds the magnitude of each.

        Returns
        -------
        OrderStatistics
            With one rank, 0.
        """
        return cls(count, Lazy(lambda: (np.array([0]), np.array([value]))))

    @classmethod
    def later(cls, count: int, find: Lazy[np.ndarray]) -> OrderStatistics:
        """Return the statistics of magnitudes that are computed when first asked for.

        Parameters
        ----------
        count : int
            Number of rows.
        find : Lazy of array (count,)
            Computes the magnitudes.

        Returns
        -------
        OrderStatistics
            Once `table` is released unasked, no magnitude is known: all are infinity.
        """
        unknown = np.array([0]), np.array([math.inf])
        return cls(count, Lazy(lambda: _sorted(find(), 1.0), unknown))

    @property
    def ranks(self) -> np.ndarray:
        """Which of the largest rows are known, from 0 up."""
        return self.table()[0]

    @property
    def values(self) -> np.ndarray:
        """The magnitudes at `ranks`."""
        return self.table()[1]

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return float(self.values[0]) if self.known_largest is None else self.known_largest

    def count_above(self, threshold: float) -> int:
        """Return an upper bound of the number of rows above a threshold.

        Parameters
        ----------
        threshold : float
            In the unit of `values`.

        Returns
        -------
        int
            Exact where it is below 64.
        """
        place = int(np.searchsorted(-self.values, -threshold))  # first value <= threshold
        return int(self.ranks[place]) if place < self.ranks.size else self.count

    def lowered(self, threshold: float) -> float:
        """Return the least known threshold that leaves the same rows above it.

        Parameters
        ----------
        threshold : float
            In the unit of `values`.

        Returns
        -------
        float
            At most `threshold`.
        """
        place = int(np.searchsorted(-self.values, -threshold))
        if place == self.ranks.size:
            return threshold
        known = place == 0 or self.ranks[place] == self.ranks[place - 1] + 1
        return float(self.values[place]) if known else threshold

    def sum_of_largest(self, count: int) -> float:
        """Return an upper bound of the sum of the largest magnitudes.

        Parameters
        ----------
        count : int
            How many of them.

        Returns
        -------
        float
            In the unit of `values`.
        """
        ends = np.minimum(np.append(self.ranks[1:], self.count), count)
        return float(np.sum(self.values * np.maximum(ends - self.ranks, 0)))

    def scaled_to(self, count: int) -> OrderStatistics:
        """Return the statistics of another number of rows of the same distribution.

        Parameters
        ----------
        count : int
            Number of rows.

        Returns
        -------
        OrderStatistics
            With the same largest magnitude, ranks in proportion.
        """
        share = count / self.count
        table = Lazy(lambda: (np.round(self.ranks * share).astype(np.int64), self.values))
        return OrderStatistics(count, table, self.known_largest)


def _sorted(magnitudes: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranks kept and the magnitudes there times `unit`, the largest first."""
    count = magnitudes.size
    steps = np.arange(max(0.0, math.log(max(count, 1) / EXACT_RANKS) / math.log(RANK_RATIO)))
    spread = (EXACT_RANKS * RANK_RATIO**steps).astype(np.int64)
    ranks = np.unique(np.concatenate([np.arange(EXACT_RANKS), spread, [count - 1]]))
    ranks = ranks[ranks < count]
    step = float(magnitudes.max()) / LEVELS
    if count > LEVELS / 8.0 and 2.0**-100 < step < 2.0**100:
        return ranks, _by_level(magnitudes, step, ranks) * unit
    return ranks, np.sort(magnitudes)[::-1][ranks].astype(np.float64) * unit


def _by_level(magnitudes: np.ndarray, step: float, ranks: np.ndarray) -> np.ndarray:
    """Return upper bounds of the magnitudes at `ranks`, the first EXACT_RANKS of them exact.

    Magnitudes are raised to multiples of `step`, which sort by counting; division in float32 may
    lose 2^-23 of one, hence the factor, and what underflows is below the first.
    """
    level = np.floor(magnitudes / magnitudes.dtype.type(step)).astype(np.uint16) + np.uint16(1)
    levels = np.sort(level, kind="stable")[::-1]
    values = levels[ranks] * (step * (1.0 + 2.0**-20))
    few = magnitudes[level >= levels[EXACT_RANKS - 1]]
    values[:EXACT_RANKS] = np.sort(few)[::-1][:EXACT_RANKS]
    return np.minimum.accumulate(values)
