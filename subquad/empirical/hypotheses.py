"""Norms of a sample and tests of what the support-basis theorem assumes, from one matrix (n, d).

A finite sample is sub-Gaussian whatever it was drawn from: the parameter fitted to it always fits.
So no test here asks "is it sub-Gaussian?". What can be wrong, and is tested, is

* `gaussian_tail`: that the variance of the entries is also their sub-Gaussian parameter, which
  is what a prediction of the number of large rows needs;
* `coordinates_test`: that the coordinates of a row are independent of each other;
* `rows_test`: that successive rows are independent.

The first takes rows to be independent and lets the entries of a row depend on each other at will.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

_LARGEST_EXPONENT = 600.0  # exp stays finite; sums that meet it are far above any value compared


@dataclass(frozen=True)
class Test:
    """One test: the size of the effect met, and the p-value of an effect as large by chance.

    `p_value` is 1 where the sample is too small or too constant to test anything.
    """

    __test__ = False  # pytest is not to collect it

    effect: float
    p_value: float


def psi_2(x: np.ndarray) -> float:
    """Return the sub-Gaussian norm of the sample: the s > 0 with mean exp(x^2/s^2) = 2.

    Then the share of entries above t is at most 2 exp(-t^2/s^2), on the sample always (Markov).
    Vershynin, High-Dimensional Probability, Definition 2.5.6. sigma sqrt(8/3) for N(0, sigma^2).
    Zero for a sample of zeros.
    """
    largest = float(np.max(np.abs(x)))
    if largest == 0:
        return 0.0
    squares = (np.ravel(x) / largest) ** 2
    # Jensen from below, the largest entry alone from above: the root lies between.
    low = math.sqrt(float(np.mean(squares)) / math.log(2)) * (1 - 1e-12)
    high = (1 + 1e-12) / math.sqrt(math.log(2))

    def excess(s: float) -> float:
        exponent = np.minimum(squares / s**2, _LARGEST_EXPONENT)
        return float(np.log(np.mean(np.exp(exponent)))) - math.log(2)

    if excess(low) <= 0:
        return low * largest
    return largest * float(optimize.brentq(excess, low, high, xtol=1e-14, rtol=1e-13))


def proxy_grid(sigma: float, size: int) -> np.ndarray:
    """Return the lambda, of both signs, at which the proxy of `size` entries is looked for.

    They end at lambda sigma = sqrt(log(size) / 2): there the mean of exp(lambda x) over Gaussian
    entries has a relative error of size^(-1/4), and beyond it shows the largest entry only. A
    heavy tail peaks before, near 2 log(size) / max|x|, inside the grid up to 200 sigma.
    """
    end = max(0.2, math.sqrt(math.log(size) / 2))
    half = np.geomspace(0.1, end, 16) / sigma
    return np.concatenate([-half, half])


def exp_row_sums(x: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Return sum_l exp(rate x_il), shape (n, len(rates)): a mean over rows is then a product."""
    sums = [np.exp(np.minimum(rate * x, _LARGEST_EXPONENT)).sum(axis=1) for rate in rates]
    return np.stack(sums, axis=1)


def variance_proxy(
    mean: np.ndarray, variance: np.ndarray, mean_exp: np.ndarray, rates: np.ndarray
) -> np.ndarray:
    """Return max(variance, max over lambda of 2 log(mean exp(lambda (x - mean))) / lambda^2).

    The smallest p with mean exp(lambda (x - mean)) <= exp(p lambda^2 / 2) at every lambda of the
    grid; shapes (...), (...), (..., L), (L,). Boucheron, Lugosi, Massart 2013, section 2.3.
    """
    logarithm = np.log(mean_exp) - rates * np.asarray(mean)[..., np.newaxis]
    return np.maximum(variance, np.max(2 * logarithm / rates**2, axis=-1))


def gaussian_tail(centred: np.ndarray) -> Test:
    """Return the test of "every column is sub-Gaussian with its variance as the parameter".

    Null: rows independent, and P(|x_il| > t sigma_l) <= 2 exp(-t^2 / 2) for every column l and
    every t. Then a row has an entry above t = sqrt(2 log(2 n d / E)) of its sigma_l with
    probability at most E/n (union bound, so entries of a row may depend on each other), and the
    number of such rows reaches a count with at most the binomial's probability. E is sqrt(n),
    1, 1e-2 and 1e-4; `p_value` is the smallest of the four times 4 (Bonferroni), `effect` the
    count over E there. sigma_l is the sample's, which a heavy tail makes larger: a loss of power.
    The union bound is some 10 times the mean count of Gaussian entries, so these are rejected
    far more rarely than the level. O(n d).
    """
    # Exact, and no column's squares underflow or overflow.
    centred = np.ldexp(centred, -np.frexp(np.max(np.abs(centred), axis=0))[1])
    sigma = np.sqrt(np.mean(centred**2, axis=0))
    varying = centred[:, sigma > 0]
    n, d = varying.shape
    if d == 0 or n < 2:
        return Test(0.0, 1.0)
    largest = np.max(np.abs(varying) / sigma[sigma > 0], axis=1)
    found = []
    for expected in (math.sqrt(n), 1.0, 1e-2, 1e-4):
        count = int(np.sum(largest > math.sqrt(2 * math.log(2 * n * d / expected))))
        p = float(stats.binom.sf(count - 1, n, expected / n))
        found.append((min(1.0, 4 * p), count / expected))
    p_value, effect = min(found)
    return Test(effect, p_value)


def _scores(x: np.ndarray) -> np.ndarray:
    """Return the ranks of every column, centred and of unit length; a constant column is zero.

    Ranks make the null exact in mean whatever the tails: a correlation of t3 entries is no use.
    """
    ranks = stats.rankdata(x, axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.linalg.norm(ranks, axis=0)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


def coordinates_test(x: np.ndarray) -> Test:
    """Return the test of independence between the coordinates of a row.

    Spearman correlations r of all pairs of columns, of the entries and of their distances from
    the column's median (a common scale of the row leaves the entries uncorrelated). Null: columns
    independent of each other, rows exchangeable; then r^2 has mean 1/(n - 1) exactly, and
    (n - 1) times the sum over pairs is nearly chi-squared. `p_value` is twice the smaller of the
    two, `effect` the largest |r|. O(n d^2).
    """
    n, found = len(x), list[tuple[float, float]]()
    for table in (x, np.abs(x - np.median(x, axis=0))):
        scores = _scores(table)
        scores = scores[:, np.any(scores != 0, axis=0)]
        pairs = scores.shape[1] * (scores.shape[1] - 1) // 2
        if n < 4 or pairs == 0:
            continue
        r = (scores.T @ scores)[np.triu_indices(scores.shape[1], 1)]
        p = float(stats.chi2.sf((n - 1) * np.sum(r**2), pairs))
        found.append((min(1.0, 2 * p), -float(np.max(np.abs(r)))))
    if not found:
        return Test(0.0, 1.0)
    p_value, effect = min(found)
    return Test(-effect, p_value)


def permutation_moments(y: np.ndarray) -> tuple[float, float]:
    """Return mean and variance, over all orders of the rows, of sum_i <y_i, y_(i+1)>.

    `y` has columns of mean zero, shape (n, d), n >= 4. With G = y y^T, whose rows sum to zero,
    every sum over distinct indices reduces to the trace, to sum G_aa^2 and to |y^T y|_F^2, so
    that G is never formed: O(n d^2).
    """
    n = len(y)
    diagonal = np.sum(y**2, axis=1)
    trace, fourth = float(np.sum(diagonal)), float(np.sum(diagonal**2))
    off = float(np.sum((y.T @ y) ** 2)) - fourth  # sum over a != b of G_ab^2
    same = off / (n * (n - 1))
    adjacent = (fourth - off) / (n * (n - 1) * (n - 2))  # mean of G_ab G_bc
    apart = (trace**2 - 4 * fourth + 2 * off) / (n * (n - 1) * (n - 2) * (n - 3))
    second = (n - 1) * same + 2 * (n - 2) * adjacent + (n - 2) * (n - 3) * apart
    return -trace / n, second - (trace / n) ** 2


def rows_test(x: np.ndarray) -> Test:
    """Return the test of independence between successive rows.

    Statistic: the sum over i of the inner product of rows i and i + 1, on ranks per column. Null:
    all orders of the rows are equally likely (entries of a row may depend on each other); mean
    and variance over the orders are exact, the law is taken as normal (Hoeffding 1951). `effect`
    is the lag-1 autocorrelation. O(n d^2).
    """
    if len(x) < 8:
        return Test(0.0, 1.0)
    scores = _scores(x)
    mean, variance = permutation_moments(scores)
    if not variance > 0:
        return Test(0.0, 1.0)
    statistic = float(np.sum(scores[:-1] * scores[1:]))
    p_value = 2 * float(stats.norm.sf(abs(statistic - mean) / math.sqrt(variance)))
    return Test(statistic / float(np.sum(scores**2)), p_value)
