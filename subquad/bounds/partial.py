"""Partial: an unfinished softmax over some of the keys, and the one operation that joins two.

Small keys by polynomial and large keys exactly, bucket by bucket, chunk by chunk, shard by shard:
everything here is a sum over keys split into parts. Sums of weights are never divided anywhere
but in `finish`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from array_api_compat import is_numpy_array

from subquad.arrays.arithmetic import OUTWARD, Array, namespace
from subquad.arrays.formats import U64
from subquad.bounds.certificate import Term
from subquad.bounds.softmax import logit_perturbation_bound, output_bound

EMPTY_SHIFT = -(2**40)
"""The log_shift of a row that has seen no key: below that of any weight."""

ROWS_AT_ONCE = 2**12
"""Rows merged, or whose Terms are computed, at once: what they pass through stays in cache. Threads
would gain nothing: the passes are short, and wait for memory."""

_LOWEST = 1074
_POWERS = np.ldexp(1.0, -np.arange(_LOWEST + 1))  # looked up: exp2 need not be exact everywhere


@dataclass(frozen=True)
class Partial:
    """Sums over a set of keys, in units of 2**log_shift, with what is known of their errors.

    A method's `run` returns one. Queries are rows i, keys j, w_ij is the true weight of a key,
    exp(logit) times the weight that the Frame gives it.

    Parameters
    ----------
    numerator : array (..., n, d_v), float64
        Computed sums of w_ij v_j, the values centred and scaled to [-1, 1].
    normaliser : array (..., n), float64
        Computed sums of w_ij.
    log_shift : array (..., n), int64
        An integer, so that changing it is exact.
    error : array (..., n)
        Bounds the sum over these keys of |w_ij - computed w_ij|; adds under merge.
    ratio : array (..., n)
        Bounds max_j |w_ij - computed w_ij| / computed w_ij; 0 for exact keys, 1 where only
        `error` is known; maximum under merge.
    rounding : array (..., n)
        Bounds |numerator error| + |normaliser error| of the sums; adds under merge.
    perturbation : array (..., n)
        Bounds the error of a weight that is one of its logit (input rounded, dot product, exp);
        maximum under merge. Booked apart from `rounding`, where it would count twice.
    """

    numerator: Array
    normaliser: Array
    log_shift: Array
    error: Array
    ratio: Array
    rounding: Array
    perturbation: Array

    @classmethod
    def empty(cls, n: int, d_v: int, xp) -> Partial:
        """Return the identity of merge: n rows that have seen no key.

        Parameters
        ----------
        n, d_v : int
            Rows, and columns of V.
        xp : module
            The array namespace of the head's arrays.

        Returns
        -------
        Partial
            Sums of 0 at `log_shift` EMPTY_SHIFT; `finish` gives its rows infinite Terms.
        """
        zero = xp.zeros(n, dtype=xp.float64)
        shift = xp.full(n, EMPTY_SHIFT, dtype=xp.int64)
        return cls(xp.zeros((n, d_v), dtype=xp.float64), zero, shift, zero, zero, zero, zero)

    def rows(self, index: Array) -> Partial:
        """Return the Partial of some rows.

        Parameters
        ----------
        index : int array (k,)
            Which rows.

        Returns
        -------
        Partial
            Of k rows, in the order of `index`.
        """
        xp = namespace(self.normaliser)
        return Partial(*(xp.take(getattr(self, f.name), index, axis=0) for f in fields(self)))

    def merge(self, other: Partial) -> Partial:
        """Return the Partial over the keys of both; commutative, with `empty` as identity.

        Parameters
        ----------
        other : Partial
            The same rows over other keys, about the same centre.

        Returns
        -------
        Partial
            In the larger of the two units, row by row. Re-shifting is exact; each addition rounds
            once, which is booked in `rounding`. O(n d_v).
        """
        blocks = self._blocks()
        if not blocks:
            return self._merged(other)
        names = [f.name for f in fields(Partial)]
        pairs = [(getattr(self, name), getattr(other, name)) for name in names]
        columns = [np.empty_like(a, dtype=np.result_type(a, b)) for a, b in pairs]
        for rows in blocks:
            merged = self._some(rows)._merged(other._some(rows))
            for column, name in zip(columns, names, strict=True):
                column[rows] = getattr(merged, name)
        return Partial(*columns)

    def _merged(self, other: Partial) -> Partial:
        xp = namespace(self.normaliser)
        shift = xp.maximum(self.log_shift, other.log_shift)
        a, b = self.in_units(shift), other.in_units(shift)
        normaliser, error = a.normaliser + b.normaliser, a.error + b.error
        rounding = a.rounding + b.rounding
        both = (self.log_shift != EMPTY_SHIFT) & (other.log_shift != EMPTY_SHIFT)
        # Values are at most 1 and weights positive: the numerator is at most the sum of |computed
        # weights|, that the sum of weights and `error`, that the sum of computed weights and
        # `error`; and either sum is computed to `rounding`. So no entry need be looked at.
        largest = 2.0 * (xp.abs(normaliser) + error + rounding)
        own = xp.where(both, U64 * OUTWARD * largest, 0.0)
        numerator, ratio = a.numerator + b.numerator, xp.maximum(a.ratio, b.ratio)
        perturbation = xp.maximum(a.perturbation, b.perturbation)
        return Partial(numerator, normaliser, shift, error, ratio, rounding + own, perturbation)

    def times_exp(self, logits: Array, slack: Array) -> Partial:
        """Return the Partial with the weights of each row times exp(logits).

        For keys computed about another centre.

        Parameters
        ----------
        logits : array (n,)
            One for each row; past 2**30 in size it leaves no finite sum.
        slack : array (n,)
            Bounds the error of each of `logits` together with that of exp; added to
            `perturbation`.

        Returns
        -------
        Partial
            The integer power of two goes into `log_shift`, the rest into the sums, its roundings
            into `rounding`.
        """
        xp = namespace(self.normaliser)
        known = xp.abs(logits) < 2.0**30
        steps = xp.round(xp.where(known, logits, 0.0) / math.log(2.0))
        rest = xp.where(known, logits, 0.0) - steps * math.log(2.0)
        factor = xp.where(known, xp.exp(rest), xp.nan)
        numerator, normaliser = self.numerator * factor[..., None], self.normaliser * factor
        largest = xp.max(xp.abs(numerator), axis=-1) + xp.abs(normaliser)
        seen = self.log_shift != EMPTY_SHIFT
        lost = xp.where(seen, 2.0**-1020, 0.0)  # products that underflow
        return replace(
            self,
            numerator=numerator,
            normaliser=normaliser,
            log_shift=self.log_shift + xp.where(seen, xp.astype(steps, xp.int64), 0),
            error=self.error * factor * OUTWARD + xp.where(self.error > 0.0, 2.0**-1020, 0.0),
            rounding=(self.rounding * factor + U64 * largest) * OUTWARD + lost,
            perturbation=xp.where(seen, self.perturbation + slack, self.perturbation),
        )

    def in_units(self, shift: Array) -> Partial:
        """Return the same sums in larger units.

        Parameters
        ----------
        shift : int array (n,)
            The units are to be 2**shift, at least those of now.

        Returns
        -------
        Partial
            Exact but for underflow, which is booked in `error` and `rounding`.
        """
        xp = namespace(self.normaliser)
        down = xp.clip(self.log_shift - shift, -2 * _LOWEST, 0)
        lowest = int(xp.min(down)) if down.size else 0
        if lowest == 0:
            return self
        powers = xp.asarray(_POWERS)
        # Two exact factors where one power of two would lie outside the range of a float.
        first, *second = (down,) if lowest >= -_LOWEST else (down // 2, down - down // 2)
        factors = [xp.take(powers, -x) for x in (first, *second)]

        def scale(x: Array) -> Array:
            for factor in factors:
                x = x * (factor[..., None] if x.ndim > factor.ndim else factor)
            return x

        lost: Array = 0.0
        if lowest < -900:
            lost = xp.where((down < -900) & (self.normaliser != 0.0), 2.0**-1020, 0.0)
        return Partial(
            scale(self.numerator),
            scale(self.normaliser),
            shift,
            scale(self.error) + lost,
            self.ratio,
            scale(self.rounding) + lost,
            self.perturbation,
        )

    def finish(self) -> tuple[Array, tuple[Term, ...]]:
        """Return the output and the Terms of its error: the only division of sums.

        Returns
        -------
        output : array (..., n, d_v), float64
            (softmax V - mid-range) / value_radius; `Frame.restore` gives the units of V.
        terms : tuple of Term
            "truncation", "logits" and "sums", arrays (..., n) in units of value_radius. A row whose
            normaliser is not safely positive gets an infinite Term; none is refused here.
        """
        divisor, terms = self.certified()
        return self.numerator / divisor[..., None], terms

    def certified(self) -> tuple[Array, tuple[Term, ...]]:
        """Return the divisor that `finish` uses, and the Terms.

        Returns
        -------
        divisor : array (..., n)
            The normaliser; NaN where it is not safely positive.
        terms : tuple of Term
            As `finish` returns them.
        """
        blocks = self._blocks()
        if not blocks:
            return self._certified()
        divisors, terms = zip(*(self._some(rows)._certified() for rows in blocks), strict=True)
        return np.concatenate(divisors), tuple(
            replace(column[0], value=np.concatenate([term.value for term in column]))
            for column in zip(*terms, strict=True)
        )

    def _blocks(self) -> list[slice]:
        """Return the rows in blocks, on NumPy; none where there is but one."""
        n = self.normaliser.shape[-1]
        if not is_numpy_array(self.normaliser) or self.normaliser.ndim > 1 or n <= ROWS_AT_ONCE:
            return []
        return [slice(start, start + ROWS_AT_ONCE) for start in range(0, n, ROWS_AT_ONCE)]

    def _some(self, rows: slice) -> Partial:
        return Partial(*(getattr(self, f.name)[rows] for f in fields(self)))

    def _certified(self) -> tuple[Array, tuple[Term, ...]]:
        xp = namespace(self.normaliser)
        with np.errstate(invalid="ignore"):  # infinity less infinity is not positive
            floor = self.normaliser - self.rounding  # a lower bound of the sum without rounding
        positive = (floor > 0.0) & xp.isfinite(self.normaliser)
        safe = xp.where(positive, floor, 1.0)
        truncation = output_bound(xp.where(positive, self.error / safe, xp.inf), self.ratio)
        # |N/D| <= 1 when the computed weights are positive, else at most 1 + truncation.
        size = xp.where(self.ratio < 1.0, 1.0, 1.0 + truncation)
        sums = xp.where(positive, self.rounding * size / safe, xp.inf) * OUTWARD + 2.0 * U64
        return xp.where(positive, self.normaliser, xp.nan), (
            Term("truncation", "output-bound", truncation),
            Term("logits", "logit-perturbation", logit_perturbation_bound(self.perturbation)),
            Term("sums", "rounding-sums", sums),
        )


def join_rows(parts: list[tuple[Array, Partial]]) -> Partial:
    """Return one Partial from (row indices, Partial) pairs that cover the rows 0..n-1 once."""
    rows = [index for index, _ in parts]
    columns = {
        f.name: _scattered(rows, [getattr(part, f.name) for _, part in parts])
        for f in fields(Partial)
    }
    return Partial(**columns)


def _scattered(rows: list[Array], parts: list[Array]) -> Array:
    """Return the array whose rows `rows[i]` are `parts[i]`."""
    xp = namespace(parts[0])
    out = xp.empty((sum(len(index) for index in rows), *parts[0].shape[1:]), dtype=parts[0].dtype)
    for index, part in zip(rows, parts, strict=True):
        out[xp.asarray(index)] = part
    return out


def stack_rows(parts: Sequence[Partial]) -> Partial:
    """Return one Partial of the rows of each, in order; one alone is not copied."""
    if len(parts) == 1:
        return parts[0]
    xp = namespace(parts[0].normaliser)
    names = [f.name for f in fields(Partial)]
    return Partial(*(xp.concat([getattr(part, name) for part in parts]) for name in names))
