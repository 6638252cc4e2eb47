"""Some rows of a head, kept on the host: to predict with, never to prove."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from subquad.engine.threads import single_threaded_blas
from subquad.head.frame import Frame

LARGEST, SPREAD = 32, 96
DEGREE = 8
MOMENT_ROWS = 1024


@dataclass(frozen=True, eq=False)
class RowSample:
    """Some queries and their sums by degree over some keys.

    Attributes
    ----------
    norms : array (rows,)
        Of the queries, about the centre, decreasing; the first is the largest of all.
    shares : array (rows,)
        Share of all queries that each stands for; they sum to 1.
    sums : array (rows, DEGREE + 1)
        sum_j w_j x_j^k over sum_j w_j, x_j the logits about the centres; the sum above is over
        the keys asked for, the one below over all.
    norm_moments : array (DEGREE + 1,)
        sum_j w_j |k_j|^k over sum_j w_j, likewise.
    """

    norms: np.ndarray
    shares: np.ndarray
    sums: np.ndarray
    norm_moments: np.ndarray


@dataclass(frozen=True, eq=False)
class HeadSample:
    """Returns the RowSample when called, made at the first call, of rows that it keeps itself.

    Attributes
    ----------
    largest_query, queries, keys : array (1, d), (rows, d), (rows, d)
        Rows of the head as they are, on the host; the last two taken without regard to their size.
    frame : Frame
    largest : float
        The largest query norm, rounded up, in the units of the Frame.
    """

    largest_query: np.ndarray
    queries: np.ndarray
    keys: np.ndarray
    frame: Frame
    largest: float
    _found: dict[float, RowSample] = field(default_factory=dict, repr=False)

    @cached_property
    def _queries(self) -> np.ndarray:
        return np.concatenate([self.largest_query, self.queries])

    def __call__(self, key_norm: float = math.inf) -> RowSample:
        """Return the RowSample over keys of norm at most `key_norm`; some 10 ms at d = 64."""
        if key_norm not in self._found:
            self._found[key_norm] = self._row_sample(key_norm)
        return self._found[key_norm]

    def effective_dimension(self) -> float:
        """Return about how many coordinates matter, from 1 to d, whatever the common basis.

        With S_i^2 the eigenvalues of the product of both second moments, which no common basis
        changes: (sum S_i^2)^2 / sum S_i^4. It is d where all are equal.
        """
        with single_threaded_blas(), np.errstate(all="ignore"):
            q, k = (
                _strided(x, MOMENT_ROWS).astype(np.float64) * side.in_scale - side.centre
                for x, side in ((self._queries, self.frame.query), (self.keys, self.frame.key))
            )
            product = (q.T @ q / len(q)) @ (k.T @ k / len(k))
            trace, square = float(np.trace(product)), float(np.sum(product * product.T))
        return trace * trace / square if square > 0.0 else 1.0

    def _row_sample(self, key_norm: float) -> RowSample:
        frame, queries = self.frame, self._queries
        q = frame.queries(queries, "float64")
        norms = np.linalg.norm(q, axis=1)
        order = np.argsort(-norms)
        order = np.concatenate([[0], order[order != 0]])  # the largest of all
        last = order.size - 1
        spread = np.linspace(min(LARGEST, last), last, SPREAD).astype(np.int64)
        ranks = np.union1d(np.arange(min(LARGEST, order.size)), spread)
        ends = np.append((ranks[1:] + ranks[:-1] + 1) // 2, order.size)
        weights, _ = frame.key_weights(self.keys)
        w = np.ones(len(self.keys)) if weights is None else weights
        k = frame.keys(self.keys, "float64")
        small = np.linalg.norm(k, axis=1) <= key_norm
        sums, moments = _power_sums(q[order[ranks]], k[small], (w / w.sum())[small])
        norms[0] = self.largest  # rounded up: what is chosen by it must take every row
        return RowSample(
            norms[order[ranks]], np.diff(np.append(0, ends)) / order.size, sums, moments
        )


def _strided(x: np.ndarray, most: int) -> np.ndarray:
    return x[:: -(-len(x) // most)]


def _power_sums(q: np.ndarray, k: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sum_j w_j (q_i . k_j)^g and sum_j w_j |k_j|^g for g = 0..DEGREE."""
    sums, moments = np.full((len(q), DEGREE + 1), w.sum()), np.full(DEGREE + 1, w.sum())
    with single_threaded_blas(), np.errstate(over="ignore", invalid="ignore"):
        logits, norms = q @ k.T, np.linalg.norm(k, axis=1)
        power, norm_power = np.ones_like(logits), np.ones_like(norms)
        for degree in range(1, DEGREE + 1):
            power *= logits
            norm_power *= norms
            sums[:, degree], moments[degree] = power @ w, norm_power @ w
    return sums, moments
