"""What errors of the weights do to the output of softmax attention, in units of value_radius.

One row: true weights w_j > 0, computed w~_j with known sum D~, values centred at mid-range and
scaled so that |v_j| <= 1. Every bound here is on the l1 distance of the two softmax rows, which
is what the output can move by when the values may be anything in [-1, 1].
"""

from __future__ import annotations

from subquad.arrays.arithmetic import OUTWARD, Array, namespace


def output_bound(relative_error: Array, ratio: Array) -> Array:
    """Return F(e, a), the sharp output bound; infinity where e >= 1 or e is not a number.

    Parameters
    ----------
    relative_error : float or array
        e = E / D~ with E >= sum_j |w_j - w~_j|.
    ratio : float or array
        a >= max_j |w_j - w~_j| / w~_j; 1 or more means that only the sum is known, and then
        the w~_j may be of either sign.

    Notes
    -----
    Claim `output-bound`. The distance is 2 max_A (p(A) - p~(A)), largest with errors +a_j on A
    and -a_j off A; with all the error on computed mass e/a, of which a part z lies off A,
    p(A) - p~(A) = a z (1 + e/a - 2z) / (1 + e - 2az). The stationary point
    1 + e - 2az = sqrt((1+e)(1-a)) gives (sqrt(1+e) - sqrt(1-a))^2 / a, the end z = e/a gives
    2e(1 - e/a)/(1 - e). Special cases: a = e is `ratio_bound`, a = 1 is `additive_bound`.
    Written without cancellation, so that it is true for e of 1e-300 as for 0.9.
    """
    xp = namespace(relative_error, ratio)
    e = xp.asarray(relative_error, dtype=xp.float64)
    a = xp.minimum(xp.asarray(ratio, dtype=xp.float64), 1.0)
    # Where a ratio is known for every key, the sum of the errors is at most a D~.
    e = xp.where(a < 1.0, xp.minimum(e, a), e)
    known = (e >= 0.0) & (e < 1.0) & (a > 0.0)
    e_, a_ = xp.where(known, e, 0.5), xp.where(known, a, 1.0)
    roots = xp.sqrt(1.0 + e_) + xp.sqrt(1.0 - a_)
    stationary = (e_ + a_) / a_ * ((e_ + a_) / roots**2)  # no square that underflows
    boundary = 2.0 * e_ * (1.0 - e_ / a_) / (1.0 - e_)
    # 1 - e <= sqrt((1+e)(1-a)), squared and collected.
    bound = xp.where(a_ * (1.0 + e_) <= e_ * (3.0 - e_), stationary, boundary)
    bound = xp.where(a_ >= 1.0, 2.0 * e_, bound) * OUTWARD
    return xp.where(e == 0.0, 0.0, xp.where(known, bound, xp.inf))


def ratio_bound(eps: Array) -> Array:
    """Return 2(1 - sqrt(1 - eps^2))/eps: every computed weight within eps of the true one.

    Claim `ratio-sharp`: about eps, half of the usual 2 eps; attained.
    """
    return output_bound(eps, eps)


def ratio_bound_inverse(bound: float) -> float:
    """Return the largest eps with ratio_bound(eps) <= bound, that is 4t/(4 + t^2); 0 < t <= 2."""
    return 4.0 * bound / (4.0 + bound * bound) / OUTWARD**3


def additive_bound(relative_error: Array) -> Array:
    """Return 2e: only E = sum |w_j - w~_j| is known, e = E / D~ with the computed D~.

    Claim `additive-sharp`: the weights w~ may be of either sign.
    """
    return output_bound(relative_error, 1.0)


def logit_perturbation_bound(perturbation: Array) -> Array:
    """Return 2 tanh(delta / 2): every logit of the row within delta of the true one.

    Claim `logit-perturbation`: sharp, attained by two groups of keys with errors +-delta.
    """
    xp = namespace(perturbation)
    delta = xp.asarray(perturbation, dtype=xp.float64)
    return 2.0 * xp.tanh(delta / 2.0) * OUTWARD


def normaliser_lower_bound(total_weight: Array, logit_bound: Array, offset: Array = 1.0) -> Array:
    """Return a lower bound of sum_j w_j exp(q . k_j), w_j of sum `total_weight`.

    Claim `normaliser-jensen`: by Jensen the sum is at least total_weight exp(q . mean), and
    |q . mean| <= logit_bound * offset, where offset = |weighted mean of the keys| / max |k|.
    With keys centred at their mean offset is 0 and the bound is the number of keys.
    """
    xp = namespace(total_weight, logit_bound, offset)
    return total_weight * xp.exp(-xp.asarray(logit_bound * offset, dtype=xp.float64)) / OUTWARD
