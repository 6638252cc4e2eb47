"""attention(): check, plan, run, certify, return; plan(): the same plan, nothing run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from subquad.arrays.arithmetic import Array
from subquad.arrays.libraries import at_home
from subquad.cost.rates import Rates, measured_rates, rates_for
from subquad.engine.shards.fleets import fleet_of
from subquad.head.inputs import (
    check_delta,
    check_dtype,
    check_real,
    check_seed,
    check_size,
    check_tol,
    dtype_name,
    refuse_options,
)
from subquad.head.problem import Head, Problem
from subquad.head.sharded import ShardedProblem, fleet_rates, problem_on
from subquad.head.stats import stats_without_data
from subquad.methods import METHODS
from subquad.methods.exact import ExactParameters
from subquad.methods.method import Method
from subquad.methods.on_shards import runs_on_shards
from subquad.planning.choose import choose
from subquad.planning.plan import Plan, Result, execute, place, require, stack, view_of

MEMBERS = ("name", "fit", "certify", "work", "run")
OPTIONS = ("tol", "scale", "key_mask", "method", "delta", "allow_exact", "seed", "devices", "rates")


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
    **options,
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
        mask for all queries of a head; leading dimensions broadcast to those of Q, K and V.
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
        Rows are divided over these CUDA devices, or over shards in this process's memory; the
        arrays may be elsewhere, and the output is where Q is. Or an initialised communicator of
        `cupyx.distributed`, one process a device: each passes its own rows and gets its own back,
        `row_bounds` likewise. The methods `exact`, `polynomial` and `support_basis` run so. The
        same shards give the same bits; other shards, other last bits within the same bounds.
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
        For bad input, with the argument in backticks, the value met and the one needed.
    """
    refuse_options(options, OPTIONS)
    fleet = fleet_of(devices)
    problem = problem_on(fleet, Q, K, V, scale=scale, key_mask=key_mask)
    heads, made = _plan(
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
    for index, head in enumerate(made.heads):
        require(head, made.method, place(index, made.lead))
    result = execute(problem, heads, made)
    for head in made.heads:
        for stats in head.views:
            stats.settle()  # the plan of a Result does not keep the arrays
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
    **options,
) -> Plan:
    """Return the Plan that `attention` would follow; from data, or from sizes and a logit bound.

    Parameters
    ----------
    Q, K, V : array, optional
        As for `attention`; give all three, or none of them and the sizes.
    n, m, d, d_v : int, optional
        Sizes: m defaults to n, d_v to d.
    logit_bound : float, optional
        An upper bound of |logit|; values are taken as centred.
    dtype : str, optional
        Of the input, where there are no data.

    Raises
    ------
    TypeError, ValueError
        For bad input. A tolerance that nothing reaches is no error here: `heads[i].chosen` is
        None and the table says why.
    """
    refuse_options(options, (*OPTIONS, "n", "m", "d", "d_v", "logit_bound", "dtype"))
    fleet = fleet_of(devices)
    choice = {
        "delta": delta,
        "allow_exact": allow_exact,
        "seed": seed,
        "fleet": fleet,
        "rates": rates,
        "scale": scale,
    }
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
        return _plan(problem, tol, method, **choice)[1]
    if scale is not None or key_mask is not None:
        msg = (
            "plan() without data takes no `scale` or `key_mask`: `logit_bound` includes the scale."
        )
        raise TypeError(msg)
    missing = [k for k, v in sizes.items() if v is None]
    if missing:
        msg = f"plan() without data needs n, d and logit_bound; missing: {', '.join(missing)}."
        raise TypeError(msg)
    bound = check_real("logit_bound", logit_bound)
    if not 0.0 <= bound < np.inf:
        msg = f"`logit_bound` is {bound:g}; it must be finite and not negative."
        raise ValueError(msg)
    stats = stats_without_data(
        check_size("n", n),
        check_size("m", n if m is None else m),
        check_size("d", d),
        check_size("d_v", d if d_v is None else d_v),
        bound,
        check_dtype(dtype),
    )
    return _planned([(stats,)], (), tol, method, **choice)


@at_home
def exact_attention(
    Q: Array, K: Array, V: Array, /, *, scale: float | None = None, key_mask: Array | None = None
) -> Array:
    """Return softmax(scale Q K^T) V, (..., n, d_v), computed in float64 and stored like Q.

    Blocked online softmax: O(n m d) time, O(n) memory. Errors as for `attention`.
    """
    problem = Problem(Q, K, V, scale=scale, key_mask=key_mask)
    exact = METHODS["exact"]
    outputs = []
    for head in problem.heads():
        output, _ = exact.run(head, ExactParameters("float64")).finish()
        outputs.append(head.frame.restore(output, dtype_name(Q)))
    return stack(outputs, problem)


def _plan(problem: Problem, tol, method, *, rates, **choice) -> tuple[list[Head], Plan]:
    if rates is None:
        if isinstance(problem, ShardedProblem):
            rates = problem.on_a_device(rates_for)
        else:
            rates = rates_for(problem.Q)
    heads = list(problem.heads())
    views = [tuple(view.stats for view in head.views()) for head in heads]
    made = _planned(views, problem.lead, tol, method, rates=rates, **choice)
    frames = tuple(
        view_of(head, own.chosen).frame
        for head, own in zip(heads, made.heads, strict=True)
        if own.chosen is not None
    )
    return heads, replace(made, frames=frames if len(frames) == len(heads) else ())


def _planned(heads, lead, tol, method, *, delta, allow_exact, seed, fleet, rates, scale) -> Plan:
    tol = check_tol(tol)
    check_delta(delta)  # nobody asks for it, nor for the seed: no method is randomised yet
    check_seed(seed)
    name, methods = _methods(method, allow_exact)
    methods = methods if fleet is None else _on_shards(methods, name)
    if rates is None:
        rates = measured_rates()
    elif not isinstance(rates, Rates):
        msg = f"`rates` is a {type(rates).__name__}; pass None or a Rates."
        raise TypeError(msg)
    rates = rates if fleet is None else fleet_rates(rates, fleet)
    together = len(heads) if fleet is None else 1  # those in shards are measured one by one
    made = tuple(
        choose(views, tol, methods, rates, fallback=allow_exact, together=together)
        for views in heads
    )
    return Plan(made, tuple(lead), tol, name, scale, rates, fleet=fleet)


def _methods(method, allow_exact) -> tuple[str, tuple[Method, ...]]:
    """Return the name asked for and the methods it stands for."""
    if not isinstance(allow_exact, bool | np.bool_):
        msg = f"`allow_exact` is {allow_exact!r}; pass True or False."
        raise TypeError(msg)
    if isinstance(method, str):
        if method == "auto":
            return method, tuple(m for m in METHODS.values() if allow_exact or m.name != "exact")
        if method not in METHODS:
            msg = f"`method` is {method!r}; the methods are auto, {', '.join(METHODS)}."
            raise ValueError(msg)
        chosen = METHODS[method]
    else:
        chosen = _as_method(method)
    if chosen.name == "exact" and not allow_exact:
        msg = '`allow_exact` is False but `method` is "exact"; drop one of the two.'
        raise ValueError(msg)
    return chosen.name, (chosen,)


def _as_method(method: Any) -> Method:
    """Return the object; TypeError where it is a class or lacks one of MEMBERS, naming these."""
    if isinstance(method, type):
        msg = f"`method` is the class {method.__name__}; pass a name or an instance of it."
        raise TypeError(msg)
    missing = [f"`{member}`" for member in MEMBERS if not hasattr(method, member)]
    if missing:
        msg = (
            f"`method` is a {type(method).__name__} without {', '.join(missing)}; pass a name "
            f"or an object that has {', '.join(MEMBERS[:-1])} and {MEMBERS[-1]}."
        )
        raise TypeError(msg)
    return method


def _on_shards(methods: tuple[Method, ...], name: str) -> tuple[Method, ...]:
    """Return those of the methods that run on several devices; ValueError where none does."""
    able = tuple(method for method in methods if runs_on_shards(method))
    if not able:
        names = [m.name for m in METHODS.values() if runs_on_shards(m)]
        msg = (
            f"`method` is {name!r}, which does not run on several devices; the methods that do "
            f"are {', '.join(names)}. Pass one of them, or `devices=None`."
        )
        raise ValueError(msg)
    return able
