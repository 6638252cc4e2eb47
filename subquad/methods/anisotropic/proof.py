"""What a set of monomials proves of a head, a priori: tail, rounding, error of a logit.

The theorem stands in `anisotropic`; the rounding in `subquad.engine.lengths`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from subquad.arrays.arithmetic import OUTWARD, Array, namespace
from subquad.arrays.formats import FORMATS, U64
from subquad.bounds.rounding import gamma
from subquad.bounds.softmax import logit_perturbation_bound, normaliser_lower_bound
from subquad.engine.lengths import set_length, set_underflow
from subquad.features.anisotropic import Box, MonomialSet, best_set, box_tail
from subquad.head.basis import Rotation
from subquad.head.stats import Stats
from subquad.methods.method import input_error, storage_term, stored_norm_bound

_NOTHING = (math.inf, math.inf, 1.0, 0.0)


@dataclass(frozen=True)
class AnisotropicParameters:
    """How many monomials r, of which box, their highest degree, the compute dtype."""

    r: int
    degree: int
    dtype: str
    box: Box = field(repr=False)

    def __str__(self) -> str:
        return f"{self.r:,} monomials, degree {self.degree}, {self.dtype}"

    @property
    def kept(self) -> MonomialSet:
        """The monomials."""
        return best_set(self.box, self.r)


def box_of(stats: Stats, dtype: str) -> Box:
    """Return b_i: the products of the largest entries as stored in `dtype`, rounded up."""
    rotation = stats.rotation
    assert rotation is not None
    b = (
        stored_norm_bound(rotation.query_reach, dtype)
        * stored_norm_bound(rotation.key_reach, dtype)
        * OUTWARD
    )
    return tuple(b.tolist())


def a_priori(stats: Stats, parameters: AnisotropicParameters) -> tuple[float, float, float, float]:
    """Return (tail, rounding, lower bound of the sum of weights, error of a logit).

    The first three per unit of key weight; the third is of the weights that the set stands for.
    """
    if stats.rotation is None:
        return _NOTHING
    dtype = parameters.dtype
    box = box_of(stats, dtype)
    perturbation = perturbation_of(stats, stats.rotation, dtype)
    relative, underflow = rounding_of(stats, parameters)
    sums = relative * float(exp_up(np.asarray(math.fsum(box) * OUTWARD), stats.d))
    # The largest key weight exceeds 1/2; the mean over keys of x.y is within the perturbation.
    least = float(normaliser_lower_bound(1.0, stats.logit_bound, stats.key_offset))
    floor = least * (1.0 - perturbation) / OUTWARD if perturbation < 1.0 else 0.0
    return box_tail(box, parameters.kept), (sums + 2.0 * underflow) * OUTWARD, floor, perturbation


def tail_within(stats: Stats, parameters: AnisotropicParameters, tol: float) -> float:
    """Return about the largest tail t that leaves the bound within tol; not positive: none.

    With room = tol less the other Terms, (2 t + sums (1 + room)) / (floor - 2 sums - t) <= room.
    """
    _, sums, floor, perturbation = a_priori(stats, parameters)
    room = tol - float(logit_perturbation_bound(perturbation)) - 2.0**-49
    room -= float(storage_term(stats, parameters.dtype).value)
    left = room * (floor - 2.0 * sums) - sums * (1.0 + room)
    return left / (2.0 + room) if room > 0.0 and math.isfinite(sums) else -1.0


def rounding_of(stats: Stats, parameters: AnisotropicParameters) -> tuple[float, float]:
    """Return (2 gamma_L, what underflow adds) of |numerator error| + |normaliser error|.

    Two more roundings: [V, 1] times the key weights.
    """
    r, degree, dtype, rotation = (parameters.r, parameters.degree, parameters.dtype, stats.rotation)
    assert rotation is not None
    length = set_length(stats.m, r, degree, dtype) + 2.0
    top = stored_norm_bound(np.maximum(rotation.query_reach, rotation.key_reach), dtype)
    return (
        2.0 * float(gamma(length, FORMATS[dtype].u)),
        set_underflow(stats.m, r, degree, float(top.max()), dtype),
    )


def perturbation_of(stats: Stats, rotation: Rotation, dtype: str) -> float:
    """Return a bound of |x.y - q.k|, and of what the key weights are off by as one of a logit."""
    form = FORMATS[dtype]
    logit_bound = stored_norm_bound(stats.logit_bound, "float64")
    lost = stored_norm_bound(rotation.query_reach + rotation.key_reach, dtype).sum()
    underflow = (stats.d + 2) * 2.0 * form.normal * form.u * float(lost)
    return (
        input_error(logit_bound, stats.d, "float64", stats.keys_weighted)
        + logit_bound * rotation.distortion(form.u if dtype != "float64" else U64)
        + underflow
    ) * OUTWARD


def exp_up(x: Array, d: int) -> Array:
    """Return at least exp of a sum of d products that rounds to x >= 0."""
    with np.errstate(over="ignore"):
        return namespace(x).exp(x) * (1.0 + (x + 8.0) * (d + 8) * 2.0**-52) * OUTWARD
