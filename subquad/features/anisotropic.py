"""Monomials chosen by what they are worth on a box, not by degree: for steep spectra.

On the box |x_i y_i| <= b_i the monomial of exponents alpha adds at most prod b_i^alpha_i / alpha_i!
to exp(x.y). Keeping the worthiest first, the order depends on b alone and a looser tolerance takes
a prefix. Every monomial is its parent, which comes before it, times one variable.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MONOMIALS_MAX = 2**16
"""Most monomials that are ever kept: their features on 64 tokens fill 32 MiB."""

Box = tuple[float, ...]
"""b_i >= max |x_i y_i|, one per coordinate, not negative."""


@dataclass(frozen=True)
class MonomialSet:
    """Monomials by parent: number s is number `parents[s]` times the variable `variables[s]`.

    Number 0 is the monomial 1. Degrees ascend, and within a degree the variables, so that each
    run of one variable is one multiplication of gathered rows.

    Attributes
    ----------
    parents, variables, powers : int arrays (r,)
        `powers` is the exponent that the variable has reached; those of number 0 mean nothing.
    runs : tuple of (start, stop, variable)
        Rows of one degree and one variable, in order; their parents come before `start`.
    degree : int
        The highest.
    """

    parents: np.ndarray
    variables: np.ndarray
    powers: np.ndarray
    runs: tuple[tuple[int, int, int], ...]
    degree: int

    @property
    def r(self) -> int:
        """The number of monomials."""
        return len(self.parents)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """Return every monomial of x (d, t), shape (r, t), by at most degree - 1 products each."""
        out = np.ones((self.r, x.shape[1]), dtype=x.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity refuses further on
            for start, stop, variable in self.runs:
                out[start:stop] = out[self.parents[start:stop]] * x[variable]
        return out

    def coefficients(self) -> np.ndarray:
        """Return 1 / prod alpha_i!, shape (r,), by at most degree - 1 divisions each."""
        out = np.ones(self.r)
        for start, stop, _ in self.runs:
            out[start:stop] = out[self.parents[start:stop]] / self.powers[start:stop]
        return out

    def exponents(self, d: int) -> np.ndarray:
        """Return the exponents (r, d), for reference and tests."""
        out = np.zeros((self.r, d), dtype=np.int64)
        for s in range(1, self.r):
            out[s] = out[self.parents[s]]
            out[s, self.variables[s]] += 1
        return out


class BestFirst:
    """The monomials of a box, the worthiest of those within reach first; grown as far as asked.

    Variables are taken in the order given, which should be that of falling b. Within reach are
    the first missing sibling and the first children of those taken; so where every b_i <= 1 the
    order is that of falling worth, and each prefix is closed under division.
    """

    def __init__(self, box: Box) -> None:
        if not all(b >= 0.0 for b in box):
            msg = f"`box` is {box}: products of magnitudes are not negative."
            raise ValueError(msg)
        self._box = box
        self._parents, self._variables, self._powers = [0], [0], [0]
        self._degrees, self._worth = [0], [1.0]
        self._total, self._lost = 1.0, 0.0  # compensated sum of the worth
        self._whole = _exp_up(math.fsum(box))
        self._heap: list[tuple[float, int, int, int]] = []
        # No descendant of a monomial is worth more than this many times as much.
        self._peak = math.prod(max(1.0, _largest_term(b)) for b in box)
        self._push(0, 0, 1)

    @property
    def taken(self) -> int:
        """How many monomials it has grown to."""
        return len(self._parents)

    @property
    def exhausted(self) -> bool:
        """Whether every other monomial is worth nothing."""
        return not self._heap

    @property
    def tail(self) -> float:
        """About what the monomials left out are worth together; `box_tail` is the proof."""
        return self._whole - self._total + self._lost

    def grow(self, tail: float, most: int) -> int:
        """Return the least number of monomials that leaves at most `tail`, `most` + 1 if more."""
        reached = self._first_within(tail, most)
        while reached is None:
            if len(self._parents) >= most or not self._heap:
                return most + 1
            if len(self._parents) % 512 == 0 and self.at_least(tail) > most:
                return most + 1
            self._take()
            if self.tail <= tail:
                reached = len(self._parents)
        return reached

    def at_least(self, tail: float) -> int:
        """Return a number of monomials below which no set, grown from here, leaves `tail`."""
        missing = self.tail - tail
        if missing <= 0.0 or not self._heap:
            return len(self._parents)
        each = -self._heap[0][0] * self._peak
        more = missing / each if each > 0.0 else math.inf
        return len(self._parents) + math.ceil(min(more, 1e300))

    def take(self, count: int) -> MonomialSet:
        """Return the first `count` monomials, fewer where no other is worth anything."""
        while len(self._parents) < count and self._heap:
            self._take()
        count = min(count, len(self._parents))
        return _arranged(
            *(
                np.array(x[:count], dtype=np.int64)
                for x in (self._parents, self._variables, self._powers, self._degrees)
            )
        )

    def _first_within(self, tail: float, most: int) -> int | None:
        """Return the answer of `grow` where it lies among the monomials already taken."""
        if self.tail > tail:
            return None
        left = self._whole - np.cumsum(self._worth)
        return min(int(np.searchsorted(-left, -tail)) + 1, len(self._worth), most + 1)

    def _push(self, parent: int, variable: int, power: int) -> None:
        worth = self._worth[parent] * self._box[variable] / power
        if worth > 0.0:
            heapq.heappush(self._heap, (-worth, parent, variable, power))

    def _take(self) -> None:
        negative, parent, variable, power = heapq.heappop(self._heap)
        number = len(self._parents)
        self._parents.append(parent)
        self._variables.append(variable)
        self._powers.append(power)
        self._degrees.append(self._degrees[parent] + 1)
        self._worth.append(-negative)
        total = self._total - negative
        self._lost += (self._total - total) - negative
        self._total = total
        self._push(number, variable, power + 1)
        if variable + 1 < len(self._box):
            self._push(number, variable + 1, 1)  # first child
            if power == 1:
                self._push(parent, variable + 1, 1)  # next sibling


def _arranged(
    parents: np.ndarray, variables: np.ndarray, powers: np.ndarray, degrees: np.ndarray
) -> MonomialSet:
    """Return the set in ascending degree, and ascending variable within a degree."""
    order = np.lexsort((np.arange(len(parents)), variables, degrees))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    parents, variables, degrees = place[parents[order]], variables[order], degrees[order]
    change = np.flatnonzero((np.diff(variables) != 0) | (np.diff(degrees) != 0)) + 1
    cuts = [*change.tolist(), len(order)]
    runs = [(a, b, int(variables[a])) for a, b in zip(cuts[:-1], cuts[1:], strict=True) if a > 0]
    return MonomialSet(parents, variables, powers[order], tuple(runs), int(degrees[-1]))


def box_tail(box: Box, kept: MonomialSet) -> float:
    """Return a bound of |exp(x.y) - sum over `kept` of x^alpha y^alpha / alpha!| on the box.

    Claim `box-taylor`: exp(x.y) is the sum of all x^alpha y^alpha / alpha!, so what is left out is
    at most the sum of prod b_i^alpha_i / alpha_i! over the others, which is exp(sum b_i) minus that
    over `kept`: for any set, attained at x_i y_i = b_i. The difference is rounded up: a monomial
    of degree g is off by at most 2g roundings, `fsum` by one.
    """
    if not max(box, default=0.0) <= 700.0 or not math.fsum(box) <= 700.0:
        return math.inf
    with np.errstate(all="ignore"):
        values = kept.evaluate(np.asarray(box, dtype=np.float64)[:, None])[:, 0]
        worth = values * kept.coefficients()
    if not np.isfinite(worth).all():
        return math.inf  # a kept term past the range would make the difference meaningless
    below = math.fsum(worth.tolist()) * (1.0 - (2 * kept.degree + 8) * 2.0**-53)
    return (_exp_up(math.fsum(box)) - below) * (1.0 + 2.0**-51)


def _exp_up(x: float) -> float:
    """Return at least exp of any number that rounds to x >= 0; infinity past the range."""
    try:
        return math.exp(x) * (1.0 + (x + 8.0) * 2.0**-52)  # exp within 4 ulp, x within half of one
    except OverflowError:
        return math.inf


def _largest_term(b: float) -> float:
    """Return max_k b^k / k! or a little more, at most exp(b)."""
    if b > 700.0:
        return math.inf
    k = math.floor(b)
    return math.exp(k * math.log(b) - math.lgamma(k + 1)) * 1.000001 if k > 0 else 1.0


@lru_cache(maxsize=16)
def best_first(box: Box) -> BestFirst:
    """Return the one order of a box; it remembers how far it was grown."""
    return BestFirst(box)


@lru_cache(maxsize=16)
def best_set(box: Box, r: int) -> MonomialSet:
    """Return the first r monomials of a box."""
    return best_first(box).take(r)
