"""One side of a head, queries or keys, about a centre: how its rows enter, and their norms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.head.order import OrderStatistics


class NotFiniteError(ValueError):
    """A row has an entry that is not finite."""


@dataclass(frozen=True)
class Side:
    """How rows enter: (x * pre - centre) * post; centre (d,) in units of 1/pre."""

    pre: float
    centre: Array
    post: float

    @property
    def affine(self) -> tuple[float, Array, float]:
        """The three numbers, as the engine takes them."""
        return self.pre, self.centre, self.post

    def balanced(self, exponent: int) -> tuple[float, Array, float]:
        """Return the same with rows 2**exponent times as long."""
        return self.pre, self.centre, ldexp(self.post, exponent)


@dataclass(frozen=True)
class Rows:
    """The rows of one side about one centre, in units of 1/pre.

    Attributes
    ----------
    norms : array (n,)
        Rounded up; float32 where that loses nothing.
    mean : array (d,)
        Of the rows less the centre, within `slack`.
    furthest : array (1, d), optional
        The row of the largest norm as it is, on the host; of queries alone.
    """

    side: Side
    norms: np.ndarray
    mean: np.ndarray
    slack: float
    furthest: np.ndarray | None = None

    @cached_property
    def largest(self) -> float:
        """The largest norm."""
        return float(self.norms.max())

    def order(self, unit: float) -> OrderStatistics:
        """Return the order statistics of the norms times `unit`."""
        return OrderStatistics.of(self.norms, unit)


@dataclass(frozen=True)
class Measured:
    """A side measured: about zero where asked for, and about one or two centres.

    `sample` are some of its rows as they are, on the host, at most SAMPLE.
    """

    sample: np.ndarray
    about_zero: Rows | None
    centred: tuple[Rows, ...]


def ldexp(mantissa: float, exponent: int) -> float:
    """Return mantissa * 2**exponent, infinity past the range (nothing certifies there)."""
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf
