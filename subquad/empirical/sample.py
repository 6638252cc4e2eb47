"""What one matrix (n, d) shows of its entries, every estimate with an interval.

`row_max` apart, everything is of at most 20,000 rows. Whatever is squared is first divided by the
power of two next above the largest entry, and what comes of it multiplied back: both exact, so
that no size of the entries changes a verdict, and only what a float cannot hold is inf or 0.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from subquad.arrays.arguments import check_real
from subquad.arrays.arithmetic import ldexp
from subquad.empirical.bootstrap import percentiles, resampled_psi_2, sample_rows, weights
from subquad.empirical.hypotheses import (
    Test,
    coordinates_test,
    exp_row_sums,
    gaussian_tail,
    proxy_grid,
    psi_2,
    rows_test,
    variance_proxy,
)

FAR = 2.0**400
"""A threshold in units of the largest entry past which no law predicts a row: exp(-FAR^2) is 0."""
_MULTIPLES = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0])


@dataclass(frozen=True)
class Estimate:
    """A value on the sample and the interval [low, high] of its resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class TailCurve:
    """Share of centred entries with |x| > threshold, observed and as two laws have it.

    All arrays have shape (13,): twelve multiples of sigma and the `mark` sigma sqrt(log n).
    `gaussian` is N(0, sigma^2); `subgaussian` is 2 exp(-t^2 / (2 proxy)), at most 1.
    """

    thresholds: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    gaussian: np.ndarray
    subgaussian: np.ndarray
    mark: float


@dataclass(frozen=True)
class LargeRows:
    """Rows that have an entry above `threshold` in magnitude, counted and predicted.

    `predicted` is the union bound 2 n d exp(-T^2 / (2 sigma^2)), at most n, of Aliakbarpour et al.
    2025 with sigma^2 = psi_2^2 / 2: never below the count where psi_2 is that of all n rows
    (Markov). `gaussian` takes for sigma^2 the mean square of the entries, which is what calling
    them Gaussian amounts to; a count above it says that they are not, or not about zero. `low`
    and `high` enclose the expected count (Clopper and Pearson 1934, rows independent).
    """

    matrix: str
    head: tuple[int, ...]
    threshold: float
    rows: int
    counted: int
    low: float
    high: float
    predicted: float
    gaussian: float


@dataclass(frozen=True, eq=False)
class MatrixStatistics:
    """Statistics of one matrix of one head; `rows_used` of its `n` rows were looked at.

    `psi_2` is that of the entries as they are; `psi_2_centred`, `variance`, `proxy`, `kurtosis`
    (excess; NaN for constant columns) and `tail` are of the entries minus their column's mean.
    `row_max` holds the largest magnitude of every row, all n of them, sorted. Entries were divided
    by 2**unit before they were squared; `unit_square` is their mean square then.
    """

    matrix: str
    head: tuple[int, ...]
    n: int
    d: int
    rows_used: int
    psi_2: Estimate
    psi_2_centred: Estimate
    variance: Estimate
    proxy: Estimate
    kurtosis: Estimate
    tail: TailCurve
    gaussian_tail: Test
    coordinates: Test
    rows: Test
    mean_square: float
    row_max: np.ndarray
    unit: int
    unit_square: float

    def large_rows(self, threshold: float, level: float = 0.95) -> LargeRows:
        """Return the rows above the threshold; ValueError unless it is a number >= 0."""
        if not check_real("threshold", threshold) >= 0:
            msg = f"`threshold` is {threshold}; a magnitude of at least 0 is needed"
            raise ValueError(msg)
        counted = self.n - int(np.searchsorted(self.row_max, threshold, side="right"))
        interval = stats.binomtest(counted, self.n).proportion_ci(level)
        reach = min(ldexp(float(threshold), -self.unit), FAR)

        def union(variance: float) -> float:
            exponent = -(reach**2) / (2 * variance) if variance > 0 else -math.inf
            return min(float(self.n), 2 * self.n * self.d * math.exp(exponent))

        ends = self.n * float(interval.low), self.n * float(interval.high)
        variances = ldexp(self.psi_2.value, -self.unit) ** 2 / 2, self.unit_square
        which = self.matrix, self.head, threshold, self.n
        return LargeRows(*which, counted, *ends, *map(union, variances))


def matrix_statistics(
    x: np.ndarray,
    name: str,
    head: tuple[int, ...],
    *,
    level: float,
    resamples: int,
    rng: np.random.Generator,
) -> MatrixStatistics:
    """Return the statistics of x, shape (n, d), float64."""
    row_max = np.sort(np.max(np.abs(x), axis=1))
    n, d = x.shape
    x = sample_rows(x, rng)
    unit = math.frexp(np.max(np.abs(x)))[1]
    x = np.ldexp(x, -unit)
    centred = np.where(np.ptp(x, axis=0) > 0, x - x.mean(axis=0), 0.0)
    shares = weights(len(x), resamples, rng)

    def estimate(values: np.ndarray, power: int = 0) -> Estimate:
        ends = float(values[0]), *percentiles(values[1:], level)
        return Estimate(*(ldexp(end, power * unit) for end in ends))

    def norm(entries: np.ndarray) -> Estimate:
        resampled = resampled_psi_2(entries, shares[1:])
        return estimate(np.append(psi_2(entries), resampled), 1)

    means, squares, fourths = (shares @ np.mean(centred**k, axis=1) for k in (1, 2, 4))
    rates = proxy_grid(math.sqrt(squares[0]) or 1.0, centred.size)
    proxies = variance_proxy(means, squares, shares @ exp_row_sums(centred, rates) / d, rates)
    proxies, safe = np.where(squares > 0, (proxies, squares), ([0.0], [1.0]))
    mean_square = float(np.mean(x**2))
    return MatrixStatistics(
        name,
        head,
        n,
        d,
        len(x),
        psi_2=norm(x),
        psi_2_centred=norm(centred),
        variance=estimate(squares, 2),
        proxy=estimate(proxies, 2),
        kurtosis=estimate(np.where(squares > 0, fourths / safe**2 - 3, math.nan)),
        tail=_tail(centred, shares, math.sqrt(squares[0]), float(proxies[0]), level, unit),
        gaussian_tail=gaussian_tail(centred),
        coordinates=coordinates_test(x),
        rows=rows_test(x),
        mean_square=ldexp(mean_square, 2 * unit),
        row_max=row_max,
        unit=unit,
        unit_square=mean_square,
    )


def _tail(
    centred: np.ndarray, weights: np.ndarray, sigma: float, proxy: float, level: float, unit: int
) -> TailCurve:
    """Return the curve of entries divided by 2**unit, with thresholds of those that they were."""
    deviation = sigma or 1.0
    mark = sigma * math.sqrt(math.log(len(centred)))
    thresholds = np.sort(np.append(deviation * _MULTIPLES, mark))
    magnitude = np.abs(centred)
    shares = weights @ np.stack([np.mean(magnitude > t, axis=1) for t in thresholds], axis=1)
    low, high = np.quantile(shares[1:], [(1 - level) / 2, (1 + level) / 2], axis=0)
    gaussian = 2 * stats.norm.sf(thresholds / deviation) * (sigma > 0)
    subgaussian = 2 * np.exp(-(thresholds**2) / (2 * (proxy or 1.0))) * (proxy > 0)
    # Constant columns have no deviation: their thresholds are the plain multiples.
    back = unit if sigma > 0 else 0
    there = np.array([ldexp(t, back) for t in thresholds.tolist()])
    return TailCurve(
        there, shares[0], low, high, gaussian, np.minimum(1.0, subgaussian), ldexp(mark, back)
    )
