"""What floating point costs: every function returns a proved bound, u is the unit roundoff.

The model is the usual one: fl(x op y) = (x op y)(1 + t) + h with |t| <= u and |h| <= eta, eta the
smallest subnormal, 0 for sums; a dot product of length n, in any order and with or without fused
multiply-adds, is within gamma_n sum |x_j y_j| of the truth (Higham 2002, section 3.1). It rests
on the assumptions in `ASSUMPTIONS`, which the tests try to refute.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subquad.arrays.arithmetic import OUTWARD, Array, namespace
from subquad.arrays.formats import FORMATS, U64

ASSUMPTIONS = (
    "the library's exp is within 4 ulp wherever its result is a normal number",
    "matrix products are sums of products in any order (no Strassen), each operation rounded",
)
TENSOR_CORES = (
    "a step of the tensor cores is off by 5 2^-23 at most of the sum of the absolute values of "
    "its products and the sum so far"
)
"""Of the fused passes alone: `engine.fused_rounding.STEP_ERROR`."""
EXP_ULPS = 4


def gamma(length: Array, u: float) -> Array:
    """Return gamma_k = k u / (1 - k u), the relative error of k roundings; infinity at k u >= 1."""
    xp = namespace(length)
    ku = xp.asarray(length, dtype=xp.float64) * u
    return xp.where(ku < 1.0, ku / xp.where(ku < 1.0, 1.0 - ku, 1.0), xp.inf) * OUTWARD


def preparation_error(logit_bound: Array, dtype: str) -> Array:
    """Return a bound of |q . k - q' . k'|, q' and k' as stored after centring and scaling.

    Each component passes through at most two roundings in float64 and one to `dtype`, by way of
    float32 where that is narrower. The last summand covers components that underflow; it supposes
    |q'| and |k'| balanced, which `Frame` does.
    """
    form = FORMATS[dtype]
    if dtype == "float64":
        relative = gamma(4, U64)
    else:  # the cross terms are in the eight
        before = FORMATS["float32"].u if form.u > FORMATS["float32"].u else U64
        relative = gamma(2, form.u) + gamma(8, before)
    # sqrt(d) eta (|q'| + |k'|), and more.
    return relative * logit_bound + (1.0 + logit_bound) * form.normal * 2.0**10


def exact_logit_error(logit_bound: Array, d: int, dtype: str) -> Array:
    """Return a bound of the error, as one of the logit, of a weight of the exact path.

    Preparation, a dot product of length d, the shift by an integer multiple of ln 2 (the
    constant, the product and the difference are rounded: at most (4B + 4) u), and exp.
    """
    form = FORMATS[dtype]
    xp = namespace(logit_bound)
    b = xp.asarray(logit_bound, dtype=xp.float64)
    products = gamma(d, form.u) * b
    # Times u first, a power of two: 4 b may be past the range of floats.
    u = form.u
    shift_and_exp = (4.0 * u * b + 4.0 * u + 2.0 * EXP_ULPS * u) * (1.0 + 64.0 * u)
    return preparation_error(b, dtype) + products + shift_and_exp


def exact_sum_error(normaliser: Array, keys: int, block: int, blocks: int, dtype: str) -> Array:
    """Return a bound of |numerator error| + |normaliser error| of a row of the exact path.

    Products of at most `block` terms in `dtype`, `blocks` of them added in float64; weights that
    underflow lose at most the smallest normal number each.
    """
    form = FORMATS[dtype]
    relative = gamma(block + 1, form.u) + gamma(blocks + 1, U64)
    # The computed sum stands for the true one: one more factor 1/(1 - relative).
    return 2.0 * (normaliser * relative / (1.0 - relative) + 2.0 * keys * form.normal) * OUTWARD


def polynomial_sum_error(
    coefficients: Array, query_norm: Array, norm_moments: Array, gammas: Array
) -> Array:
    """Return rho, a bound of |numerator error| + |normaliser error| per row, shape (..., n).

    rho = 2 sum_k |c_k| |q|^k M_k gamma_k with M_k = sum_j w_j |k_j|^k.
    Claim `rounding-polynomial`: by Cauchy-Schwarz the sum over |alpha| = k of
    multinomial |q^alpha| |k^alpha| is at most (|q| |k|)^k, so each degree is a dot product whose
    absolute values sum to |q|^k M_k.

    Parameters
    ----------
    coefficients, norm_moments, gammas : array (degree + 1,)
        c_k, M_k and the accumulated relative error of degree k (`polynomial_gammas`).
    query_norm : array (..., n)
        |q| or an upper bound.
    """
    xp = namespace(query_norm)
    rho = xp.zeros_like(query_norm)
    for weight in reversed(
        [
            abs(float(c)) * float(m) * float(g)
            for c, m, g in zip(coefficients, norm_moments, gammas, strict=True)
        ]
    ):  # Horner in |q|: the terms of high degree are the small ones
        rho = rho * query_norm + weight
    return 2.0 * rho * OUTWARD


def polynomial_underflow(
    coefficients: Array,
    block_sizes: Sequence[int],
    keys: int,
    d: int,
    logit_bound: float,
    dtype: str,
) -> float:
    """Return a bound of |numerator error| + |normaliser error| from products that underflow.

    A product that underflows loses at most the smallest subnormal eta; carried through the rest
    of the two passes that is at most 4 eta |c_k| X^k (k m + r_k) in degree k, where X bounds
    max(1, |q|_1) max(1, |k|_1): rows are balanced, so each norm is at most sqrt(2 B). Key weights
    are at most 1. Claim `rounding-polynomial`.
    """
    form = FORMATS[dtype]
    reach = np.float64(max(1.0, 2.0 * d * logit_bound))
    k = np.arange(len(block_sizes), dtype=np.float64)
    sizes = np.asarray([float(r) for r in block_sizes])
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN refuse, as they should
        lost = np.abs(coefficients) * reach**k * (k * keys + sizes)
    return float(8.0 * form.normal * 2.0 * form.u * lost.sum()) * OUTWARD


def polynomial_gammas(lengths: Sequence[float], dtype: str) -> np.ndarray:
    """Return the accumulated relative error of each degree of the two passes, shape (degree + 1,).

    `lengths` counts, degree by degree, the roundings of the engine in units of u
    (`subquad.engine.contraction_length`). Four more: [V, 1] times the key weights is rounded
    before (two), the coefficient and its product after.
    """
    return np.asarray(gamma(np.asarray(lengths, dtype=np.float64) + 4.0, FORMATS[dtype].u))


def storage_error(value_ratio: float, compute_dtype: str, output_dtype: str) -> float:
    """Return a bound of what rounding the values and the output costs, in units of value_radius.

    Parameters
    ----------
    value_ratio : float
        max over columns of (max|V_c| + smallest normal number) / value_radius_c.
    compute_dtype, output_dtype : str
        The values enter as (V - mid)/radius rounded to the first; the output leaves as
        mid + radius * x, computed in float64 and rounded to the second.
    """
    u_out = FORMATS[output_dtype].u
    if value_ratio == 0.0:  # every column is constant and comes back as it is
        return 0.0
    entering = FORMATS[compute_dtype].u + 4.0 * U64
    leaving = (u_out + 4.0 * U64) * value_ratio + 8.0 * U64
    return (entering + leaving) * OUTWARD


def conversion_error(value_ratio: float) -> float:
    """Return a bound of the rounding to float32, in units of value_radius, where a plan runs again.

    It keeps the units of the data it was made for; `storage_error` is not included.

    Values (v * in_scale - mid in two parts) / radius and their weights: 8 and 4 roundings; the
    output, divided, times the radius, plus mid: 4 of at most 2 and 3 of at most max|V|, per
    value_radius.

    Parameters
    ----------
    value_ratio : float
        As for `storage_error`.
    """
    return FORMATS["float32"].u * (20.0 + 4.0 * value_ratio) * OUTWARD
