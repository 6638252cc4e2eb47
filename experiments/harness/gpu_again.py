"""A plan run again on new data, beside the bare passes: what units and certificate cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import subquad

TOL = {"bfloat16": 3e-2, "bfloat16x3": 1e-2}
"""At which the planner takes these operands, at degree 2 and logits up to 0.5."""
REPEATS, WARM_UP, SAMPLED, SETS = 40, 5, 256, 3
LOGIT_BOUND = 0.5


def again(
    n: int, heads: int, d: int, operands: str, bare: Sequence[Callable[[], object]], seed: int
) -> dict[str, Any]:
    """Return seconds of `plan.run` and of the bare passes, in turns, with the bound and the error.

    Wall clock, from an idle device until it is idle again, on other arrays each time. A plan
    launches its first run kernel by kernel and later ones as graphs: their bits are compared.
    AssertionError where the plan has other operands, a run goes the long way, its error is above
    its bound or its bits differ from those of another run: no time is taken of that.
    """
    lead = (heads,) if heads > 1 else ()
    sets = [_drawn(lead, n, d, LOGIT_BOUND, seed + i) for i in range(SETS)]
    plan = subquad.plan(
        *_drawn(lead, n, d, LOGIT_BOUND, seed + SETS), tol=TOL[operands], method="polynomial"
    )
    bound, measured = _checked(plan, sets[0], operands)
    spent: dict[str, list[float]] = {"run": [], "bare": []}
    for i in range(WARM_UP + REPEATS):
        spent["run"].append(_wall(partial(plan.run, *sets[i % SETS])))
        spent["bare"].append(_wall(bare[i % len(bare)]))
    seconds = {name: statistics.median(times[WARM_UP:]) for name, times in spent.items()}
    return {
        "tol": TOL[operands],
        "bound": bound,
        "measured": measured,
        "seconds": seconds,
        "over_bare": seconds["run"] / seconds["bare"],
    }


def _drawn(lead: tuple[int, ...], n: int, d: int, reach: float, seed: int) -> tuple[Any, ...]:
    """Return Q, K, V as a user has them: logits up to `reach` by the norms of both sides."""
    import cupy

    rng = cupy.random.default_rng(7000 + seed)

    def rows() -> Any:
        x = rng.standard_normal((*lead, n, d), dtype=cupy.float32)
        longest = cupy.linalg.norm(x, axis=-1).max(axis=-1)[..., None, None]
        return x * (np.float32((reach * d**0.5) ** 0.5) / longest)

    Q, K = rows(), rows()
    return Q, K, rng.random((*lead, n, d), dtype=cupy.float32) * 2.0 - 1.0


def _checked(plan: Any, data: tuple[Any, ...], operands: str) -> tuple[float, float]:
    """Return the bound of a run and its largest error on sampled rows of the first head."""
    import cupy

    first, second = plan.run(*data), plan.run(*data)
    dtypes = {head.chosen.parameters.dtype for head in plan.heads}
    same = bool((first.output == second.output).all())
    device = first.certificate.terms[-1].name == "conversion"
    head = (0,) * (data[0].ndim - 2)
    Q, K, V = (x[head].astype(cupy.float64) for x in data)
    rows = cupy.asarray(np.random.default_rng(0).choice(len(Q), SAMPLED, False))
    weights = cupy.exp(Q[rows] @ K.T / Q.shape[1] ** 0.5)
    exact = weights @ V / weights.sum(axis=1, keepdims=True)
    radius = (V.max(axis=0) - V.min(axis=0)) / 2.0
    measured = float((cupy.abs(first.output[head][rows] - exact) / radius).max())
    bound = first.certificate.bound
    if not (dtypes == {operands} and same and device and measured <= bound <= plan.tol):
        msg = (
            f"plan.run: operands {dtypes}, {operands} wanted; same bits {same}, on the device "
            f"{device}, measured {measured:.1e}, bound {bound:.1e}, tol {plan.tol:g}."
        )
        raise AssertionError(msg)
    return bound, measured


def _wall(call: Callable[[], object]) -> float:
    import cupy

    device = cupy.cuda.Device()
    device.synchronize()
    start = time.perf_counter()
    result = call()
    device.synchronize()
    spent = time.perf_counter() - start
    del result
    return spent
