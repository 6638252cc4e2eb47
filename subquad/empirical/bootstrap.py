"""Resampling of rows, for the interval of every estimate.

Intervals resample ROWS: the entries of a row are not taken to be independent, successive rows are
(see `hypotheses.rows_test`). They are percentile intervals of a bootstrap (Efron 1979). A
statistic that is a function of means over rows needs its row sums once, and then one product with
the shares of the rows: O(n d) work, then O(resamples n).
"""

import math

import numpy as np

from subquad.empirical.hypotheses import exp_row_sums

ROWS = 20_000  # more rows than this are sampled
RUN = 100  # rows are sampled in runs, so that most neighbours stay neighbours


def sample_rows(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return x, or where it has more than ROWS rows that many of them, in order, in random runs."""
    if len(x) <= ROWS:
        return x
    runs = np.sort(rng.choice(len(x) // RUN, ROWS // RUN, replace=False))
    return x[(runs[:, np.newaxis] * RUN + np.arange(RUN)).ravel()]


def weights(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the share of each row, (1 + resamples, n): the sample itself, then its resamples."""
    shares = np.full((1 + resamples, n), 1 / n)
    for row in shares[1:]:
        row[:] = np.bincount(rng.integers(n, size=n), minlength=n) / n
    return shares


def percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    """Return the two ends of the middle share `level` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_psi_2(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return psi_2 of each resample, by interpolation over 1/s^2 on a grid that encloses all."""
    squares = weights @ np.mean(x**2, axis=1)
    if not np.any(squares > 0):
        return np.zeros(len(weights))
    # Jensen from below, and from above the largest entry alone, as in `psi_2`.
    low = np.min(squares[squares > 0]) / math.log(2)
    high = np.max(x**2) / math.log(2)
    inverse = np.geomspace(1 / high, 1 / low, 40) * np.linspace(1 - 1e-12, 1 + 1e-12, 40)
    table = np.log(weights @ exp_row_sums(x**2, inverse) / x.shape[1])  # rises along the grid
    found = np.array([np.interp(math.log(2), row, inverse) for row in table])
    return np.where(squares > 0, 1 / np.sqrt(found), 0.0)
