"""Making a Plan: what the caller chose is checked, methods are picked, each head gets its offer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from subquad.arrays.arguments import check_delta, check_seed, check_tol
from subquad.cost.rates import Rates, fleet_rates, measured_rates, rates_for
from subquad.head.problem import Head, Problem
from subquad.head.sharded import ShardedProblem
from subquad.methods import METHODS
from subquad.methods.method import Method
from subquad.planning.choose import choose
from subquad.planning.plan import Plan
from subquad.planning.run import view_of

MEMBERS = ("name", "fit", "certify", "work", "run")


def plan_of_problem(problem: Problem, tol, method, *, rates, **choice) -> tuple[list[Head], Plan]:
    """Return the heads of a problem and their Plan, in the Frames that were chosen."""
    if rates is None:
        if isinstance(problem, ShardedProblem):
            rates = problem.on_a_device(rates_for)
        else:
            rates = rates_for(problem.Q)
    heads = problem.heads
    views = [tuple(view.stats for view in head.views) for head in heads]
    made = plan_of_stats(views, problem.lead, tol, method, rates=rates, **choice)
    frames = tuple(
        view_of(head, own.chosen).frame
        for head, own in zip(heads, made.heads, strict=True)
        if own.chosen is not None
    )
    return heads, replace(made, frames=frames if len(frames) == len(heads) else ())


def plan_of_stats(
    heads, lead, tol, method, *, delta, allow_exact, seed, fleet, rates, scale
) -> Plan:
    """Return the Plan of heads of which only Stats are known, one tuple of views for each."""
    tol = check_tol(tol)
    check_delta(delta)  # no method reads it, nor the seed: none is randomised yet
    check_seed(seed)
    name, methods = _methods(method, allow_exact)
    methods = methods if fleet is None else _on_shards(methods, name)
    rates = _checked_rates(rates, fleet)
    together = len(heads) if fleet is None else 1  # those in shards are measured one by one
    made = tuple(
        choose(views, tol, methods, rates, fallback=allow_exact, together=together)
        for views in heads
    )
    return Plan(made, tuple(lead), tol, name, scale, rates, fleet=fleet)


def _checked_rates(rates, fleet) -> Rates:
    """Return the rates given or measured, of all devices of the fleet."""
    if rates is None:
        rates = measured_rates()
    elif not isinstance(rates, Rates):
        msg = f"`rates` is a {type(rates).__name__}; pass None or a Rates."
        raise TypeError(msg)
    return rates if fleet is None else fleet_rates(rates, fleet)


def _methods(method, allow_exact) -> tuple[str, tuple[Method, ...]]:
    """Return the name asked for and the methods it stands for."""
    if not isinstance(allow_exact, bool | np.bool_):
        msg = f"`allow_exact` is {allow_exact!r}; pass True or False."
        raise TypeError(msg)
    if isinstance(method, str) and method == "auto":
        return method, tuple(m for m in METHODS.values() if allow_exact or not m.is_oracle)
    chosen = _named(method) if isinstance(method, str) else _as_method(method)
    if chosen.is_oracle and not allow_exact:
        msg = f'`allow_exact` is False but `method` is "{chosen.name}"; drop one of the two.'
        raise ValueError(msg)
    return chosen.name, (chosen,)


def _named(method: str) -> Method:
    """Return the method of METHODS; ValueError, naming them, where it has no such name."""
    if method not in METHODS:
        msg = f"`method` is {method!r}; the methods are auto, {', '.join(METHODS)}."
        raise ValueError(msg)
    return METHODS[method]


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
    if not isinstance(method, Method):
        msg = (
            f"`method` is a {type(method).__name__}, which is not a `subquad.methods.Method`: "
            "derive its class from that."
        )
        raise TypeError(msg)
    return method


def _on_shards(methods: tuple[Method, ...], name: str) -> tuple[Method, ...]:
    """Return those of the methods that run on several devices; ValueError where none does."""
    able = tuple(method for method in methods if method.run_on_shards is not None)
    if not able:
        names = [m.name for m in METHODS.values() if m.run_on_shards is not None]
        msg = (
            f"`method` is {name!r}, which does not run on several devices; the methods that do "
            f"are {', '.join(names)}. Pass one of them, or `devices=None`."
        )
        raise ValueError(msg)
    return able
