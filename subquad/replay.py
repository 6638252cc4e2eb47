"""A plan by the fused passes, again on new data: in the units of the plan, checked on the way.

The plan's polynomial, centres and balance are kept; nothing is measured first. Any centre is a
true one, and the a priori Terms hold for whatever norms, mean of the keys and ranges the new data
have: they come back from the device with the work already under way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import Any

import array_api_compat
import numpy as np

from subquad.arrays import Array, product_up
from subquad.bounds.rounding import FORMATS, conversion_error
from subquad.certificate import Term
from subquad.engine import OPERANDS, prepare
from subquad.engine.fused_sizes import fused_errors
from subquad.exp_poly import minimax
from subquad.frame import WEIGHT_RANGE, Frame, balancing_exponent
from subquad.methods.method import widened
from subquad.methods.polynomial import Polynomial
from subquad.order import OrderStatistics
from subquad.planner import HeadPlan
from subquad.stats import Stats

UNIT = 1.0 + 2.0**-50
FAR = 2.0**100
"""Beyond that, and below its inverse, float32 has no room for units."""
ROWS_AT_ONCE = 2**23
"""Rows of all heads of one launch: what is packed of them takes a few GiB."""
HEADS_AT_ONCE = 2**15
"""Of one launch: a grid has no more than 65,535 of them."""
STEPS = 32
"""Offsets of the keys are rounded up to multiples of one in so many."""


def replay(
    heads: tuple[HeadPlan, ...], frames: tuple[Frame, ...], lead: tuple[int, ...], tol: float,
    arrays: tuple[Array, Array, Array],
) -> tuple[Array, tuple[Term, ...], Array] | None:  # fmt: skip
    """Return (output (..., n, d_v), Terms, their sum (..., n)) of checked Q, K, V as planned.

    None where they must be run the long way: where a method is not `polynomial` by the fused
    passes, an array is not float32 in C order with the leading dimensions and sizes of the plan,
    or a bound is not met.
    """
    stats = heads[0].stats
    shapes = ((stats.n, stats.d), (stats.m, stats.d), (stats.m, stats.d_v))
    sizes = {(own.stats.n, own.stats.m, own.stats.d, own.stats.d_v) for own in heads}
    if (len(frames) != len(heads) or len(sizes) > 1 or not prepare.operands(arrays[0])
            or not all(map(_replayable, heads, frames))
            or any(x.shape != (*lead, *own) for x, own in zip(arrays, shapes, strict=True))):
        return None
    from subquad.engine import gpu_replay  # brings CuPy

    if not gpu_replay.replayable(*arrays):
        return None
    Q, K, V = (x.reshape(-1, *own) for x, own in zip(arrays, shapes, strict=True))
    xp = array_api_compat.array_namespace(Q)
    output = xp.empty((len(heads), stats.n, stats.d_v), dtype=Q.dtype)
    reads = [
        _start([heads[i] for i in run], [frames[i] for i in run],
               *(x[run[0] : run[-1] + 1] for x in (Q, K, V, output)))
        for run in _runs(heads)
    ]  # fmt: skip
    # While the query passes run: what is left for after them is one number a head.
    found = [report for read in reads for report in read()]
    terms = [_certified(*of_one, tol) for of_one in zip(heads, frames, found, strict=True)]
    values = np.array([[t.value for t in of_one] for of_one in terms])
    names = terms[0]
    bounds = np.stack([values.sum(axis=1) * UNIT, *values.T])
    rows = xp.broadcast_to(xp.asarray(bounds).reshape(-1, *lead, 1), (len(bounds), *lead, stats.n))
    made = tuple(replace(term, value=rows[i + 1]) for i, term in enumerate(names))
    if not (all(map(_inside, heads, found)) and np.all(bounds[0] <= tol)):
        return None
    return output.reshape(*lead, *output.shape[1:]), made, rows[0]


def _replayable(head: HeadPlan, frame: Frame) -> bool:
    """Return whether the fused passes may run, and float32 has the units of the plan."""
    chosen = head.chosen
    if (chosen is None or not isinstance(chosen.method, Polynomial)
            or chosen.parameters.dtype not in OPERANDS):  # fmt: skip
        return False
    balance = _balance(head.stats)
    sides = frame.query.balanced(balance), frame.key.balanced(-balance)
    near = all(1.0 / FAR <= x <= FAR for pre, _, post in sides for x in (pre, post))
    centres = all(np.array_equal(c, c.astype(np.float32)) for _, c, _ in sides)
    return near and centres and math.frexp(sides[1][2])[0] == 0.5


def _balance(stats: Stats) -> int:
    return balancing_exponent(stats.query_norms.largest, stats.key_norms.largest)


def _runs(heads: tuple[HeadPlan, ...]) -> list[list[int]]:
    """Return the heads in runs that one launch of the passes can take."""
    rows = max(heads[0].stats.n, heads[0].stats.m)
    most = max(1, min(HEADS_AT_ONCE, ROWS_AT_ONCE // rows))
    runs: list[list[int]] = []
    for _, run in groupby(range(len(heads)), key=lambda i: _passes(heads[i])):
        members = list(run)
        runs += [members[i : i + most] for i in range(0, len(members), most)]
    return runs


def _passes(head: HeadPlan) -> tuple[int, str]:
    assert head.chosen is not None
    return head.chosen.parameters.degree, head.chosen.parameters.dtype


def _start(
    heads: list[HeadPlan], frames: list[Frame], Q: Array, K: Array, V: Array, out: Array
) -> Callable[[], list[Any]]:
    """Launch the passes of some heads; return what waits for their Reports."""
    from subquad.engine import gpu_replay

    units, coefficients = [], []
    for head, frame in zip(heads, frames, strict=True):
        assert head.chosen is not None
        balance = _balance(head.stats)
        sides = frame.query.balanced(balance), frame.key.balanced(-balance)
        units.append(gpu_replay.Units(*sides, frame.query_tilt))
        p = head.chosen.parameters
        coefficients.append(_coefficients(p.degree, p.logit_bound))
    return gpu_replay.start(Q, K, V, units, np.array(coefficients), _passes(heads[0])[1], out)


def _certified(head: HeadPlan, frame: Frame, found: Any, tol: float) -> tuple[Term, ...]:
    """Return the a priori Terms of a head with what was found of its data, were it `_inside`.

    Those of offsets and ratios rounded up are kept: most data of one kind have the same.
    """
    if not _supposed(head, frame, found):
        return _terms(head, 1.0, math.inf)
    offset, ratio = _offset(head, found), _ratio(head.stats.dtype, found)
    nearby = math.ceil(offset * STEPS) / STEPS, 2.0 ** (math.ceil(4.0 * math.log2(ratio)) / 4.0)
    if nearby not in head.certified:
        head.certified[nearby] = _terms(head, nearby[0], nearby[1] * UNIT)
    terms = head.certified[nearby]
    return terms if sum(t.value for t in terms) <= tol else _terms(head, offset, ratio)


@lru_cache(maxsize=1024)
def _coefficients(degree: int, logit_bound: float) -> np.ndarray:
    return minimax(degree, logit_bound).scaled()


def _terms(head: HeadPlan, offset: float, ratio: float) -> tuple[Term, ...]:
    """Return the Terms of a head whose keys and values are so, and no logit outside."""
    chosen, nothing = head.chosen, OrderStatistics.constant(1, 0.0)
    assert chosen is not None
    stats = replace(head.stats, query_norms=nothing, key_norms=nothing, key_offset=offset,
                    value_ratio=ratio)  # fmt: skip
    conversion = Term("conversion", "rounding-storage", conversion_error(ratio))
    return (*chosen.method.certify(stats, chosen.parameters), conversion)


def _supposed(head: HeadPlan, frame: Frame, found: Any) -> bool:
    """Return whether the data are what the roundings suppose: values and key weights in range."""
    size, reach = np.maximum(abs(found.low), abs(found.high)), 0.0
    if frame.query_tilt is not None:
        reach = float(np.linalg.norm(frame.query_tilt)) * found.key_norm / frame.key.post
        reach *= 2.0 ** _balance(head.stats) * UNIT
    near = (size == 0.0) | ((1.0 / FAR <= size) & (size <= FAR))
    return reach <= WEIGHT_RANGE and bool(near.all())


def _ratio(dtype: str, found: Any) -> float:
    """Return max|V| over value_radius, as `Frame.value_ratio` does, at least 1."""
    width, size = found.high - found.low, np.maximum(abs(found.low), abs(found.high))
    moving = width > 0.0
    if not moving.any():
        return 1.0
    normal = float(np.finfo(dtype).smallest_normal)
    return max(1.0, float(((size + normal)[moving] / width[moving]).max()) * 2.0 * UNIT)


def _inside(head: HeadPlan, found: Any) -> bool:
    """Return whether no logit leaves the polynomial's interval, the rows balanced for it."""
    assert head.chosen is not None
    p, query_norm = head.chosen.parameters, found.query_norm()
    logit_bound = widened(product_up(query_norm, found.key_norm), p.dtype)
    longest = max(query_norm, found.key_norm)
    return bool(logit_bound <= p.logit_bound and longest**2 <= 2.0 * p.logit_bound)


def _offset(head: HeadPlan, found: Any) -> float:
    """Return |mean of the keys| over the largest norm, from their mean as the passes have it."""
    assert head.chosen is not None
    if not found.key_norm > 0.0:
        return 1.0
    d, m, p = head.stats.d, head.stats.m, head.chosen.parameters
    # Rounding keys to operands, and what the passes lose of a sum of degree 1.
    slack = fused_errors(d, p.degree, p.dtype, m)[1] + 2.0 * FORMATS[p.dtype].u
    return min(1.0, float(np.linalg.norm(found.key_mean)) / found.key_norm * UNIT + slack)
