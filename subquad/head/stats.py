"""Stats: what the planner knows of one head, numbers only, never an array of the input's size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from subquad.arrays.arithmetic import product_up
from subquad.arrays.lazy import Lazy
from subquad.engine.fused.sizes import DEGREES, fusable
from subquad.head.basis import Rotation
from subquad.head.frame import Frame, value_ratio
from subquad.head.magnitudes import RowMagnitudes
from subquad.head.sample import HeadSample
from subquad.head.shells import KeyShells
from subquad.head.sides import OrderStatistics

NO_OFFSET = Lazy.known_to_be(1.0)
"""Nothing is known of the mean of the keys."""


@dataclass(frozen=True)
class Stats:
    """Sizes and proved magnitudes of one head, in the prepared units of its Frame.

    A method's `fit`, `certify` and `work` are given this and no array.

    Parameters
    ----------
    n, m, d, d_v : int
        Queries, keys, head dimension, columns of V.
    dtype : str
        Of the input and of the output.
    query_norms, key_norms, query_entries, key_entries : OrderStatistics
        About the centres; a logit is at most the product of two norms, or d times that of two
        largest entries.
    full_query_norm : float
        Largest |scale * q|, about zero: bounds the logits of the exact path.
    find_offset : callable
        Returns `key_offset`; where the keys carry weights measured at the first call, O(m d).
    keys_weighted : bool
        Whether queries are centred and the keys carry weights.
    value_ratio : float
        max|V| / value_radius over columns, the cost of storing the output.
    query_unit, key_unit : float
        What a magnitude of 1 in the units of the input is in prepared units.
    operands : tuple of str
        Compute dtypes of the fused passes that the head's device has for its shape.
    magnitudes_known : bool
        False where only the largest magnitudes are known.
    sample : HeadSample, optional
        Returns the RowSample, made at the first call; None where there are no data.
    find_rotation : callable, optional
        Returns a basis with the second moments and the largest entry of each coordinate in it,
        or None where none is of use; measured at the first call, O((n + m) d^2).
    shells : KeyShells, optional
        Centres and radii of keys between two norms, measured at the first call.
    """

    n: int
    m: int
    d: int
    d_v: int
    dtype: str
    query_norms: OrderStatistics
    key_norms: OrderStatistics
    query_entries: OrderStatistics
    key_entries: OrderStatistics
    full_query_norm: float
    find_offset: Lazy[float]
    keys_weighted: bool
    value_ratio: float
    query_unit: float = 1.0
    key_unit: float = 1.0
    operands: tuple[str, ...] = ()
    magnitudes_known: bool = True
    sample: HeadSample | None = None
    find_rotation: Lazy[Rotation | None] | None = None
    shells: KeyShells | None = None

    @property
    def key_offset(self) -> float:
        """|weighted mean of the keys| / largest key norm, at most 1."""
        return self.find_offset()

    @property
    def rotation(self) -> Rotation | None:
        """What `find_rotation` returns; None without data."""
        return None if self.find_rotation is None else self.find_rotation()

    @property
    def logit_bound(self) -> float:
        """The largest |logit| about the centres, by norms."""
        return product_up(self.query_norms.largest, self.key_norms.largest)

    @property
    def full_logit_bound(self) -> float:
        """The largest |logit| of the exact path, which does not centre the queries."""
        return product_up(self.full_query_norm, self.key_norms.largest)

    def with_length(self, n: int) -> Stats:
        """Return the Stats of a longer or shorter head of the same distribution and bounds.

        Parameters
        ----------
        n : int
            Number of queries; the keys are as many times more or fewer.

        Returns
        -------
        Stats
            With the same largest magnitudes.
        """
        m = max(1, round(self.m * (n / self.n)))
        return replace(
            self,
            n=n,
            m=m,
            query_norms=self.query_norms.scaled_to(n),
            key_norms=self.key_norms.scaled_to(m),
            query_entries=self.query_entries.scaled_to(n),
            key_entries=self.key_entries.scaled_to(m),
        )

    def known_only(self) -> Stats:
        """Return the Stats without what no method has asked for yet.

        Returns
        -------
        Stats
            Reading it measures nothing more and keeps no array.
        """
        turned = self.find_rotation is not None and self.find_rotation.known
        cut = self.shells is not None and self.shells.known
        return replace(
            self,
            find_offset=self.find_offset if self.find_offset.known else NO_OFFSET,
            find_rotation=self.find_rotation if turned else None,
            shells=self.shells if cut else None,
        )

    def release(self) -> None:
        """Let go of the arrays: what no method has asked for is not known any more."""
        entries = self.query_entries.table, self.key_entries.table
        for later in (*entries, self.find_offset, self.find_rotation, self.shells):
            if later is not None:
                later.release()


def stats_of(
    frame: Frame,
    rows: RowMagnitudes,
    dtype: str,
    d: int,
    d_v: int,
    sample: HeadSample,
    shells: KeyShells,
    operands: tuple[str, ...] = (),
) -> Stats:
    """Return the Stats of one head from its Frame, row magnitudes and what its device has."""
    n, m = rows.query.norms.size, rows.key.norms.size
    return Stats(
        n=n,
        m=m,
        d=d,
        d_v=d_v,
        dtype=dtype,
        query_norms=OrderStatistics.of(rows.query.norms, rows.units[0]),
        key_norms=OrderStatistics.of(rows.key.norms, rows.units[1]),
        query_entries=OrderStatistics.later(n, rows.find_entries[0]),
        key_entries=OrderStatistics.later(m, rows.find_entries[1]),
        full_query_norm=rows.largest[2],
        find_offset=rows.find_offset,
        keys_weighted=frame.query_tilt is not None,
        value_ratio=value_ratio(frame, dtype),
        query_unit=frame.query.in_scale * frame.query.out_scale,
        key_unit=frame.key.in_scale * frame.key.out_scale,
        operands=operands if fusable(d, d_v, DEGREES[0]) else (),
        sample=sample,
        find_rotation=rows.find_rotation,
        shells=shells,
    )


def stats_without_data(n: int, m: int, d: int, d_v: int, logit_bound: float, dtype: str) -> Stats:
    """Return the Stats of a head of which only the sizes and the logit bound are known.

    Values are taken as centred (max|V| = value_radius) and the keys as centred at any point.
    """
    root = math.sqrt(logit_bound) * (1.0 + 2.0**-52)
    norms = OrderStatistics.constant(n, root), OrderStatistics.constant(m, root)
    return Stats(
        *(n, m, d, d_v, dtype),
        *(*norms, *norms),
        full_query_norm=root,
        find_offset=NO_OFFSET,
        keys_weighted=False,
        value_ratio=1.0,
        magnitudes_known=False,
    )
