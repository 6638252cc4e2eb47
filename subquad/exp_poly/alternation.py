"""The points where the error of the best polynomial alternates, to some nine digits, in float64.

Let x_0 > ... > x_n be a reference, w_i the weights of its divided difference (see `reference`), and
p the polynomial of degree n - 1 whose relative error is +-E there in turn, E the levelled error.
Write a_i = |w_i| e^{x_i} / sum_j |w_j| e^{x_j} and w(x) = prod_i (x - x_i). By Lagrange's formula
over all the points, and Newton's remainder of exp,

    p(x) e^{-x} - 1 = c w(x) e^{-x} (rho(x) + sum_i a_i / (x - x_i)),

c a constant and rho(x) = exp[x_0 .. x_n, x] / exp[x_0 .. x_n], a quotient of divided differences.
All that depends on x is a quotient: however small E is, float64 has the extrema of the error to
nearly all its digits. From each point one step of Newton's towards the extremum beside it gives the
next reference, and that converges quadratically. [Derived here; measured: with 1 <= B <= 64 and an
error below 1/2, four steps from `kepler_points` leave moves below 1e-8 of a gap.]

Nothing is proved here: it spares the exchange of `minimax` steps in ball arithmetic.
"""

import math

import numpy as np

from subquad.exp_poly.reference import kepler_points

_STEPS = 6
_SMALL = 2.0**-20
"""A move, in gaps between points, after which the next one would be 2^-40 or so."""


def alternation_points(degree: int, logit_bound: float) -> list[float]:
    """Return degree + 2 points of [-1, 1], decreasing: where the best error alternates over B.

    Those of `kepler_points` where Newton's steps do not settle: the error is then near 1, and what
    it leaves of 1 is not seen in float64. O(degree^2) time, some ms for degree 256.
    """
    points = first = np.array(kepler_points(degree, logit_bound))
    for _ in range(_STEPS):
        step = _newton_step(points, logit_bound)
        gaps = points[:-1] - points[1:]
        move = np.abs(step[1:-1]) / np.minimum(gaps[1:], gaps[:-1])
        points = points + step
        if not (np.isfinite(points).all() and (points[:-1] > points[1:]).all()):
            break
        if move.max(initial=0.0) < _SMALL:
            return [float(x) for x in points]
    return [float(x) for x in first]


def _newton_step(t: np.ndarray, B: float) -> np.ndarray:
    """Return how far to go from each point, x = B t, to the extremum beside it; 0 at the ends.

    Of log |error| at t_i, the factor (t - t_i) taken into the bracket, the derivatives are
    first = -B + sum 1/(t_i - t_j) + q and second = -sum 1/(t_i - t_j)^2 + 2 q' - q^2, with
    q a_i = rho + sum a_j/(t_i - t_j), sums over j != i. No product of matrices: a BLAS may add in
    an order that depends on the number of its threads.
    """
    apart = t[:, None] - t[None, :]
    np.fill_diagonal(apart, 1.0)
    with np.errstate(all="ignore"):
        log_a = B * t - np.log(np.abs(apart)).sum(axis=1)
        a = np.exp(log_a - log_a.max())
        a /= a.sum()
        np.fill_diagonal(apart, np.inf)
        inverse = 1.0 / apart
        rho, rho_slope = _remainder_ratio(t, B)
        q = (rho + (inverse * a).sum(axis=1)) / a
        q_slope = (rho_slope - (inverse**2 * a).sum(axis=1)) / a
        slope = inverse.sum(axis=1) - B + q
        step = -slope / (2.0 * q_slope - (inverse**2).sum(axis=1) - q**2)
    step[0] = step[-1] = 0.0
    return step


def _remainder_ratio(t: np.ndarray, B: float) -> tuple[np.ndarray, np.ndarray]:
    """Return rho and its derivative by t at each point t_i, the points as in `_newton_step`.

    exp[x_0 .. x_n] is the sum over k of h_k (2 B)^k / (n + k)! but for a factor, h_k the complete
    symmetric polynomial of u = (1 + t) / 2: all terms are positive (see `reference`). That of the
    points and t_i once more, or twice, follows by h_k(u, u_i) = h_k(u) + u_i h_{k-1}(u, u_i).
    """
    n, u = t.size - 1, (1.0 + t) / 2.0
    count = int(2.0 * B + 12.0 * math.sqrt(2.0 * B) + 25.0)
    sums = np.vander(u, count + 1, increasing=True).sum(axis=0)  # of powers: Newton's identities
    symmetric, (once, twice) = np.ones(count + 1), np.ones((2, count + 1, n + 1))
    for k in range(1, count + 1):
        symmetric[k] = (sums[1 : k + 1] * symmetric[k - 1 :: -1]).sum() / k
        once[k] = symmetric[k] + u * once[k - 1]
        twice[k] = once[k] + u * twice[k - 1]

    def series(size: int, terms: np.ndarray) -> np.ndarray:
        factors = np.cumprod(np.append(1.0, 2.0 * B / (size + np.arange(1.0, count + 1.0))))
        return (terms.T * factors).sum(axis=-1)

    whole = series(n, symmetric)
    rho = B / (n + 1) * series(n + 1, once) / whole
    return rho, B**2 / ((n + 1) * (n + 2)) * series(n + 2, twice) / whole
