"""RowMagnitudes: those of the rows of one head in the units of its Frame, rounded outwards.

What is not at hand once the rows are measured (the largest entries, a basis in which they are
small, the mean of weighted keys) is found when first asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from subquad.arrays.arithmetic import Affine, Array
from subquad.arrays.lazy import Lazy
from subquad.engine.rows import rows_of
from subquad.head.basis import Rotation
from subquad.head.sides import CentredRows


@dataclass(frozen=True)
class RowMagnitudes:
    """Row magnitudes in prepared units, on the host, float64, each rounded outwards.

    |logit_ij| <= query_norms[i] * key_norms[j] about the centres; the largest full query (about
    zero) times the largest key bounds the logits of the exact path.

    Parameters
    ----------
    query, full, key : CentredRows
        The queries about their centre and about zero, and the keys about theirs.
    units : tuple of float
        Of the queries and of the keys: what a norm of 1 of CentredRows is in units of the Frame.
    find_offset : Lazy of float
        |weighted mean of the keys| / largest key norm, rounded up, at most 1.
    find_entries : tuple of Lazy
        The largest entries of each query (n,) and of each key (m,).
    find_rotation : Lazy
        See `rotation`.
    """

    query: CentredRows
    full: CentredRows
    key: CentredRows
    units: tuple[float, float]
    find_offset: Lazy[float]
    find_entries: tuple[Lazy[np.ndarray], Lazy[np.ndarray]]
    find_rotation: Lazy[Rotation | None]

    @cached_property
    def query_norms(self) -> np.ndarray:
        """Of the queries about their centre, (n,)."""
        return self.query.norms.astype(np.float64) * self.units[0]

    @cached_property
    def key_norms(self) -> np.ndarray:
        """Of the keys about their centre, (m,)."""
        return self.key.norms.astype(np.float64) * self.units[1]

    @cached_property
    def full_query_norms(self) -> np.ndarray:
        """Of the queries about zero, (n,)."""
        if self.query is self.full:
            return self.query_norms
        return self.full.norms.astype(np.float64) * self.units[0]

    @property
    def largest(self) -> tuple[float, float, float]:
        """The largest of query_norms, key_norms and full_query_norms."""
        of_query, of_key = self.units
        return (
            self.query.largest * of_query,
            self.key.largest * of_key,
            self.full.largest * of_query,
        )

    @property
    def query_entries(self) -> np.ndarray:
        """Largest entry of each query, (n,); O(n d) at the first call."""
        return self.find_entries[0]()

    @property
    def key_entries(self) -> np.ndarray:
        """Largest entry of each key, (m,); O(m d) at the first call."""
        return self.find_entries[1]()

    def by(self, criterion: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the magnitudes of the rows by one criterion.

        Parameters
        ----------
        criterion : {"norm", "entry"}
            The norm of a row, or its largest entry.

        Returns
        -------
        tuple of array (n,), (m,)
            Of the queries and of the keys, about their centres, in units of the Frame.
        """
        if criterion == "norm":
            return self.query_norms, self.key_norms
        return self.query_entries, self.key_entries

    @property
    def rotation(self) -> Rotation | None:
        """A basis in which most coordinates are small on both sides, where there is one of use.

        O((n + m) d^2) at the first call.
        """
        return self.find_rotation()


def entries_of(x: Array, rows: CentredRows, unit: float) -> np.ndarray:
    """Return the largest entries, rounded up so far that sqrt(d) of them bound the norms as given.

    Norms may be of float32 and rounded up by more; what is bounded by entries is then by norms.
    """
    entries = rows_of(x).row_measures(x, rows.side.in_scale, rows.side.centre)[1] * unit
    norms = rows.norms.astype(np.float64) * unit
    return np.maximum(entries, norms * ((1.0 + 2.0**-50) / math.sqrt(x.shape[1])))


def mean_offset(K: Array, side: Affine, weights: Array | None, radius: float) -> float:
    """Return |weighted mean of the keys - centre| over the largest key norm, rounded up."""
    mean = rows_of(K).weighted_mean(K, side.in_scale, weights)
    # The mean of rows of norm at most that: sums of blocks, far inside 2**-30 of the truth.
    largest = radius + float(np.linalg.norm(side.centre))
    away = float(np.linalg.norm(mean - side.centre)) + 2.0**-30 * largest
    return min(1.0, away / radius) if radius > 0.0 else 1.0
