"""attention(): check, plan, run, certify, return; plan(): the same plan, nothing run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from subquad.arrays.arguments import check_dtype, check_real, check_size, dtype_name
from subquad.arrays.arithmetic import Array
from subquad.arrays.libraries import at_home
from subquad.cost.rates import Rates
from subquad.engine.shards.fleets import fleet_of
from subquad.head.problem import Problem
from subquad.head.sharded import problem_on
from subquad.head.stats import Stats, stats_without_data
from subquad.methods import METHODS
from subquad.methods.exact import ExactParameters
from subquad.methods.method import Method
from subquad.planning.make import plan_of_problem, plan_of_stats
from subquad.planning.plan import Plan, Result, execute, require, stack


@at_home
def attention(
    Q: Array,
    K: Array,
    V: Array,
    /,
    *,
    tol: float,
    scale: float | None = None,
    key_mask: Array | None = None,
    method: str | Method = "auto",
    delta: float = 0.0,
    allow_exact: bool = True,
    seed: int | None = None,
    devices: Sequence[int | str] | Any = None,
    rates: Rates | None = None,
) -> Result:
    """Return softmax(scale Q K^T) V within tol, a certificate of its error, and the plan.

    For every row i and column c, |output - exact| <= tol * value_radius[c], where value_radius is
    half the range of column c of V (so at most tol * max|V|).

    Parameters
    ----------
    Q, K, V : array (..., n, d), (..., m, d), (..., m, d_v)
        One array library (NumPy, CuPy, torch) and dtype (float16, float32 or float64); leading
        dimensions broadcast. No gradient is computed.
    tol : float
        In (0, 2], in units of value_radius.
    scale : float, optional
        Positive; 1/sqrt(d) by default.
    key_mask : bool array (..., m), optional
        True where a key takes part; the others are dropped exactly, and may hold anything. One
        mask for all queries of a head; leading dimensions broadcast to those of Q, K and V. Of a
        mask (..., 1, m) of scores, as (B, 1, 1, m) of a padded batch, the axis of queries is
        left out.
    method : str or Method, optional
        "auto" takes the cheapest certified; a name from METHODS, or a Method, that one alone.
    delta : float, optional
        Allowed probability of failure, in [0, 1). No method is randomised yet: it is checked and
        has no effect, every bound holds always.
    allow_exact : bool, optional
        False removes the method `exact`, and with it what may send rows there after the run
        (`fitted`). Other methods may still do pairs exactly, at the worst all of them.
    seed : int, optional
        Not negative. No method is randomised yet: it is checked and has no effect.
    devices : sequence of int, sequence of "cpu", or communicator, optional
        Rows are divided over these CUDA devices, or over shards in this process's memory, at most
        one for each row; the arrays may be elsewhere, and the output is where Q is. Or an
        initialised communicator of `cupyx.distributed`, one process a device: each passes its own
        rows and gets its own back, `row_bounds` likewise. The methods `exact`, `polynomial` and
        `support_basis` run so. The same shards give the same bits; other shards, other last bits
        within the same bounds.
    rates : Rates, optional
        The cost model of one device; by default measured once on what holds the arrays (about
        0.2 s on a CPU, a second on a GPU).

    Returns
    -------
    Result
        `.output` like Q, `.certificate` with `.bound <= tol`, `.plan`.

    Raises
    ------
    ToleranceError
        If no allowed method can prove `tol`; never is a looser answer returned.
    TypeError, ValueError
        For bad input, with the argument in backticks, the value met and the one needed; for a
        keyword that does not exist, with the nearest one.
    """
    fleet = fleet_of(devices)
    problem = problem_on(fleet, Q, K, V, scale=scale, key_mask=key_mask)
    heads, made = plan_of_problem(
        problem,
        tol,
        method,
        delta=delta,
        allow_exact=allow_exact,
        seed=seed,
        fleet=fleet,
        rates=rates,
        scale=scale,
    )
    require(made)
    result = execute(problem, heads, made)
    for head in made.heads:
        for stats in head.views:
            stats.release()  # the plan of a Result does not keep the arrays
    return result


@at_home
def plan(
    Q: Array | None = None,
    K: Array | None = None,
    V: Array | None = None,
    /,
    *,
    tol: float,
    n: int | None = None,
    m: int | None = None,
    d: int | None = None,
    d_v: int | None = None,
    logit_bound: float | None = None,
    dtype: str = "float32",
    scale: float | None = None,
    key_mask: Array | None = None,
    method: str | Method = "auto",
    delta: float = 0.0,
    allow_exact: bool = True,
    seed: int | None = None,
    devices: Sequence[int | str] | Any = None,
    rates: Rates | None = None,
) -> Plan:
    """Return the Plan that `attention` would follow; from data, or from sizes and a logit bound.

    Parameters
    ----------
    Q, K, V : array, optional
        As for `attention`; give all three, or none of them and the sizes.
    tol : float
        In (0, 2], in units of value_radius.
    n, m, d, d_v : int, optional
        Sizes: m defaults to n, d_v to d.
    logit_bound : float, optional
        An upper bound of |logit|; values are taken as centred.
    dtype : str, optional
        Of the input, where there are no data: "float16", "float32" or "float64".
    scale, key_mask, method, delta, allow_exact, seed, devices, rates : optional
        As for `attention`. Without data there is no `scale` and no `key_mask`.

    Returns
    -------
    Plan
        Prints as a table; `.run(Q, K, V)` follows it. Of data every row is read, no pair of rows.

    Raises
    ------
    TypeError, ValueError
        For bad input. A tolerance that nothing reaches is no error here: `heads[i].chosen` is
        None and the table says why.
    """
    fleet = fleet_of(devices)
    choice = dict(
        delta=delta, allow_exact=allow_exact, seed=seed, fleet=fleet, rates=rates, scale=scale
    )
    given = [x is not None for x in (Q, K, V)]
    sizes = {"n": n, "d": d, "logit_bound": logit_bound}
    if any(given):
        extra = [k for k, v in {**sizes, "m": m, "d_v": d_v}.items() if v is not None]
        if not all(given) or extra:
            msg = (
                f"plan() got {sum(given)} of `Q`, `K`, `V` and {extra or 'no sizes'}: give all "
                "three arrays and no sizes, or no array and n, d, logit_bound."
            )
            raise TypeError(msg)
        problem = problem_on(fleet, Q, K, V, scale=scale, key_mask=key_mask)
        return plan_of_problem(problem, tol, method, **choice)[1]
    if scale is not None or key_mask is not None:
        msg = (
            "plan() without data takes no `scale` or `key_mask`: `logit_bound` includes the scale."
        )
        raise TypeError(msg)
    missing = [k for k, v in sizes.items() if v is None]
    if missing:
        msg = f"plan() without data needs n, d and logit_bound; missing: {', '.join(missing)}."
        raise TypeError(msg)
    stats = _stats_of_sizes(n, m, d, d_v, logit_bound, dtype)
    return plan_of_stats([(stats,)], (), tol, method, **choice)


def _stats_of_sizes(n, m, d, d_v, logit_bound, dtype) -> Stats:
    """Return the Stats of checked sizes: m is n and d_v is d where they are None."""
    bound = check_real("logit_bound", logit_bound)
    if not 0.0 <= bound < np.inf:
        msg = f"`logit_bound` is {bound:g}; it must be finite and not negative."
        raise ValueError(msg)
    every = {"n": n, "m": n if m is None else m, "d": d, "d_v": d if d_v is None else d_v}
    checked = {name: check_size(name, size) for name, size in every.items()}
    return stats_without_data(**checked, logit_bound=bound, dtype=check_dtype(dtype))


@at_home
def exact_attention(
    Q: Array, K: Array, V: Array, /, *, scale: float | None = None, key_mask: Array | None = None
) -> Array:
    """Return softmax(scale Q K^T) V, (..., n, d_v), computed in float64 and stored like Q.

    Parameters
    ----------
    Q, K, V : array (..., n, d), (..., m, d), (..., m, d_v)
        As for `attention`.
    scale : float, optional
        Positive; 1/sqrt(d) by default.
    key_mask : bool array (..., m), optional
        As for `attention`.

    Returns
    -------
    array (..., n, d_v)
        Of the library, device and dtype of Q.

    Raises
    ------
    TypeError, ValueError
        For bad input, as `attention` does; ValueError too where logits are so large, past 1e15,
        that a row has no weights in float64.

    Notes
    -----
    Blocked online softmax (Milakov and Gimelshein 2018): O(n m (d + d_v)) time, memory O(n + m)
    rows.
    """
    problem = Problem(Q, K, V, scale=scale, key_mask=key_mask)
    exact = METHODS["exact"]
    outputs = []
    for head in problem.heads:
        output, _ = exact.run(head, ExactParameters("float64")).finish()
        if not problem.xp.all(problem.xp.isfinite(output)):
            msg = (
                f"`Q`, `K` and `scale` give logits up to {head.stats.full_logit_bound:.3g}: past "
                "about 1e15 float64 rounds them by whole units; scale them down."
            )
            raise ValueError(msg)
        outputs.append(head.frame.restore(output, dtype_name(Q)))
    return stack(outputs, problem)
