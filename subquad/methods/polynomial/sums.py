"""What one polynomial over some keys is: parameters, rounding, State, sums of queries.

For every method that has a polynomial part: `polynomial` over all keys, `support_basis` over the
small ones, `multi_threshold` bucket by bucket, `fitted` with coefficients of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import array_api_compat
import numpy as np

from subquad.arrays.arithmetic import Affine, Array
from subquad.arrays.formats import FORMATS
from subquad.bounds.certificate import Term
from subquad.bounds.partial import Partial
from subquad.bounds.rounding import polynomial_gammas, polynomial_sum_error, polynomial_underflow
from subquad.bounds.softmax import normaliser_lower_bound
from subquad.engine import (
    KEY_TILE,
    OPERANDS,
    State,
    accumulate,
    contract,
    contraction_length,
    stored_dtype,
    tile_count,
    tile_size,
)
from subquad.engine.fused.rounding import fused_errors
from subquad.engine.fused.sizes import PARTIAL_BYTES
from subquad.engine.threads import thread_count
from subquad.exp_poly import ExpPolynomial
from subquad.exp_poly.arguments import MAX_LOGIT_BOUND
from subquad.exp_poly.minimax import solved
from subquad.features import block_sizes, feature_dimension
from subquad.head.frame import balancing_exponent
from subquad.head.problem import Head
from subquad.head.stats import Stats
from subquad.methods.method import a_priori_terms, input_error, stored_norm_bound

LOGIT_BOUND_MAX = MAX_LOGIT_BOUND
"""Of a polynomial, as `exp_poly` has them."""
LOGIT_BOUND_MIN = 2.0**-40
WIDER = 32
"""A polynomial is made wider by multiples of 1 / 32, so that runs of a plan share polynomials."""


@dataclass(frozen=True)
class PolynomialParameters:
    """Degree, the logit bound that its polynomial is for, the compute dtype, features r."""

    degree: int
    logit_bound: float
    dtype: str
    r: int

    def __str__(self) -> str:
        # On operands `polynomial` leaves room for other data.
        room = f"logits to {self.logit_bound:.3g}, " if self.dtype in OPERANDS else ""
        return f"degree {self.degree}, r {self.r:,}, {room}{self.dtype}"

    @property
    def polynomial(self) -> ExpPolynomial:
        """The minimax polynomial; computed once per degree and bound."""
        return solved(self.degree, self.logit_bound)[0]


def passes_bytes(d: int, d_v: int, parameters: PolynomialParameters) -> float:
    """Return the memory of the two passes: State, accumulators and table, tiles of features."""
    state = 8.0 * parameters.r * (d_v + 8)
    if parameters.dtype in OPERANDS:
        return 2.0 * state + PARTIAL_BYTES
    degree = parameters.degree
    tile = 8.0 * feature_dimension(d, max(degree - 1, 0)) * tile_size(d, degree)
    return 3.0 * state + thread_count() * tile


def parameters_for(degree: int, logit_bound: float, dtype: str, d: int) -> PolynomialParameters:
    """Return the parameters of a degree, the feature dimension filled in."""
    return PolynomialParameters(degree, logit_bound, dtype, feature_dimension(d, degree))


def widened(parameters: PolynomialParameters, logit_bound: float) -> PolynomialParameters:
    """Return the parameters for logits up to `logit_bound`, of the same degree.

    As they are where they hold these logits, or where no polynomial does.
    """
    needed = float(stored_norm_bound(logit_bound, parameters.dtype))
    if not parameters.logit_bound < needed <= LOGIT_BOUND_MAX:
        return parameters
    steps = math.ceil((needed / parameters.logit_bound - 1.0) * WIDER)
    wide = max(needed, parameters.logit_bound * (1.0 + steps / WIDER))
    return replace(parameters, logit_bound=min(wide, LOGIT_BOUND_MAX))


def least_rounding(logit_bound: float, dtype: str) -> float:
    """Return about the least that rounding costs: hopeless cases need no polynomial to see it.

    The absolute values of the terms sum to about exp(B) times the smallest computed weight.
    """
    if dtype in OPERANDS:  # two roundings a degree, none of the constant
        return 4.0 * FORMATS[dtype].u * math.expm1(logit_bound)
    return 2.0 * KEY_TILE * FORMATS[dtype].u * math.exp(logit_bound)


@lru_cache(maxsize=1024)
def gammas_for(
    d: int, keys: int, degree: int, dtype: str, state_degree: int | None = None
) -> np.ndarray:
    """Return the rounding of each degree of the two passes over `keys` keys.

    `state_degree` is that of the State where only a prefix of it is contracted. Of the sizes alone:
    heads of one shape share it, and planning and running.
    """
    whole = degree if state_degree is None else state_degree
    if dtype in OPERANDS:
        return _kept(np.asarray(fused_errors(d, whole, dtype, keys)[: degree + 1]))
    tiles = tile_count(keys, d, whole) + 8  # covers every subset of the keys as well
    lengths = [
        contraction_length(k, d=d, degree=whole, tiles=tiles, dtype=dtype)
        for k in range(degree + 1)
    ]
    return _kept(polynomial_gammas(lengths, dtype))


def _kept(shared: np.ndarray) -> np.ndarray:
    """Return the array, which nobody may write to any more."""
    shared.setflags(write=False)
    return shared


def relative_sums(
    stats: Stats,
    parameters: PolynomialParameters,
    keys: int,
    offset: float,
    shared: PolynomialParameters | None = None,
) -> tuple[float, float]:
    """Return (rounding, lower bound of the computed sum), both per unit of key weight.

    `shared` is the polynomial of highest degree and largest bound that uses the same State.
    """
    b, p, whole = parameters.logit_bound, parameters.polynomial, shared or parameters
    powers = np.ones(p.degree + 1)  # |q|^k M_k is at most B^k times the sum of key weights
    gammas = gammas_for(stats.d, keys, p.degree, parameters.dtype, whole.degree)
    rho = float(polynomial_sum_error(p.scaled(), np.asarray(b), powers, gammas))
    # The largest key weight exceeds 1/2.
    rho += 2.0 * underflow_for(parameters, keys, stats.d, whole.logit_bound)
    return rho, float(normaliser_lower_bound(1.0, b, offset)) / (1.0 + p.upper)


@lru_cache(maxsize=1024)
def underflow_for(parameters: PolynomialParameters, keys: int, d: int, logit_bound: float) -> float:
    """Return `polynomial_underflow` of the parameters, rows balanced for `logit_bound`."""
    sizes = block_sizes(d, parameters.degree)
    return polynomial_underflow(
        parameters.polynomial.scaled(), sizes, keys, d, logit_bound, parameters.dtype
    )


def certify_part(
    stats: Stats, parameters: PolynomialParameters, logit_bound: float, keys: int, offset: float
) -> tuple[Term, ...]:
    """Return the a priori Terms of a polynomial over `keys` keys with logits <= logit_bound."""
    p, dtype = parameters.polynomial, parameters.dtype
    inside = p.upper < 1.0 and stored_norm_bound(logit_bound, dtype) <= parameters.logit_bound
    sums, floor = relative_sums(stats, parameters, keys, offset) if inside else (0.0, 1.0)
    return a_priori_terms(
        stats,
        dtype,
        eps=p.upper if inside else math.inf,
        perturbation=input_error(parameters.logit_bound, stats.d, dtype, stats.keys_weighted),
        sums=sums,
        floor=floor,
    )


@dataclass(frozen=True)
class KeySums:
    """The State of some keys, for every polynomial of its degree or less, and what goes with it.

    `key_norm` is the largest norm of the keys; `shared` the polynomial of highest degree and
    largest bound that will use it.
    """

    state: State
    key_norm: float
    shared: PolynomialParameters


def key_state(
    head: Head,
    query_norm: float,
    keys: tuple[Array, float],
    V: Array,
    degree: int,
    dtype: str,
    side: Affine | None = None,
) -> State:
    """Return the State of some keys (rows of the input, and their largest norm), at least one.

    No query that is contracted with it may be larger than `query_norm`. Norms of keys are about
    the centre of `side`, by default that of the Frame; the sums are in units of that centre.
    """
    K, key_norm = keys
    weights, shift = head.frame.key_weights(K)  # those of the Frame, whatever the centre
    frame = head.frame if side is None else replace(head.frame, key=side)
    stored = stored_dtype(dtype)
    # Large rows elsewhere may have left these unbalanced, and powers overflow early.
    balance = balancing_exponent(query_norm, key_norm)
    return accumulate(
        frame.keys(K, stored, -balance),
        frame.values(V, weights, stored),
        degree,
        key_centre=frame.key.centre,
        weight_shift=shift,
        balance=balance,
        operands=dtype if dtype in OPERANDS else None,
    )


def contract_queries(
    head: Head, queries: tuple[Array, np.ndarray], sums: KeySums, parameters: PolynomialParameters
) -> Partial:
    """Return the sums of some queries (rows of the input, and their norms), at least one."""
    Q, query_norms = queries
    xp = array_api_compat.array_namespace(Q)
    state, p, dtype = sums.state, parameters.polynomial, parameters.dtype
    c = p.scaled()
    numerator, by_degree = contract(
        head.frame.queries(Q, stored_dtype(dtype), state.balance), state, c
    )
    normaliser = by_degree @ xp.asarray(c)
    norms = xp.asarray(stored_norm_bound(query_norms * 2.0**state.balance, dtype))
    gammas = gammas_for(state.d, state.count, p.degree, dtype, state.degree)
    moments = state.norm_moments[: p.degree + 1]
    rounding = polynomial_sum_error(c, norms, moments, gammas)
    rows_bound = sums.shared.logit_bound  # what the rows are balanced for
    rounding = rounding + underflow_for(parameters, state.count, state.d, rows_bound)
    # Outside its interval a polynomial proves nothing, whoever chose it.
    inside = xp.asarray(
        stored_norm_bound(query_norms * sums.key_norm, dtype) <= parameters.logit_bound
    )
    one = xp.ones_like(normaliser)
    weighted = head.frame.query_tilt is not None
    perturbation = input_error(rows_bound, state.d, dtype, weighted)
    return Partial(
        numerator,
        normaliser,
        xp.full(Q.shape[0], state.weight_shift, dtype=xp.int64),
        error=xp.where(inside, p.upper * (normaliser + rounding), xp.inf),
        ratio=xp.where(inside, p.upper * one, one),
        rounding=rounding,
        perturbation=perturbation * one,
    )


def polynomial_partial(
    head: Head,
    queries: tuple[Array, np.ndarray],
    keys: tuple[Array, np.ndarray],
    V: Array,
    parameters: PolynomialParameters,
) -> Partial:
    """Return the sums of some queries over some keys of a head by polynomial.

    `queries` and `keys` are rows of the input with their norms, V (m, d_v) the values of the keys.
    """
    Q, query_norms = queries
    if keys[0].shape[0] == 0 or Q.shape[0] == 0:
        return Partial.empty(Q.shape[0], V.shape[1], array_api_compat.array_namespace(Q))
    p, largest = parameters, (keys[0], float(keys[1].max()))
    state = key_state(head, float(query_norms.max()), largest, V, p.degree, p.dtype)
    return contract_queries(head, queries, KeySums(state, largest[1], p), p)
