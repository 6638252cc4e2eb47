"""Rows over several GPUs of one machine against one GPU: the engine passes, checked before timed.

d = 64, one head, degree 2, float32 input prepared as the methods prepare it and already divided
over the devices. A time is of both passes and of what is exchanged between them, by the host's
clock with every device idle before and after. Each way is first checked: outputs against float64
on sampled rows and all keys, two runs bit for bit, memory poisoned before each. What fails is not
timed. Efficiency is the time of one device, as a plain call has it without threads or an exchange,
over that of all times their number.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from subquad import TYPICAL
from subquad.exp_poly import minimax

from ..harness.finding import Finding, graded
from ..harness.kept import Kept
from ..harness.many_gpus_passes import (
    DEGREE,
    LOGIT_BOUND,
    SAMPLED,
    SEED,
    D,
    Passes,
    accumulated,
    check,
    contracted,
    drawn,
    fused,
    null_errors,
    oracle,
    portable,
    shards,
)
from ..harness.store import Experiment
from ..report.writing import number

QUESTION = "What part of each GPU's speed is left where several share the rows?"
LENGTH, QUICK_LENGTH = 4_194_304, 100_003
REPEATS, WARM_UP = 21, 4
LARGEST_OWN = {"bfloat16": 4e-3, "bfloat16x3": 6e-6, "float32": 6e-6}
"""Relative error against the float64 polynomial above which nothing is timed."""


def experiment(quick: bool = False) -> Experiment:
    """Return the experiment: a row for each compute dtype. Needs two CUDA devices with wgmma."""
    import cupy

    devices = cupy.cuda.runtime.getDeviceCount()
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    n = QUICK_LENGTH if quick else LENGTH
    settings = {
        "seed": SEED,
        "d": D,
        "d_v": D,
        "degree": DEGREE,
        "logit_bound": LOGIT_BOUND,
        "n": n,
        "device": name,
        "devices": devices,
        "cupy": cupy.__version__,
        "repeats": REPEATS,
        "oracle": f"float64 on the device, {SAMPLED} rows, all keys",
    }
    cases = {
        f"{operands}, n = {n:,}, {devices} devices": partial(_row, operands, n, devices)
        for operands in LARGEST_OWN
    }
    return Experiment("many_gpus", QUESTION, settings, cases, rates=TYPICAL)


def _row(operands: str, n: int, devices: int, rates) -> dict:
    """Return the errors, the seconds on one device and on all, and the parts of the latter."""
    import cupy

    from subquad.engine.shards import gpu_fleet as shards_gpu_fleet

    one, every = shards_gpu_fleet.of_devices(0), shards_gpu_fleet.of_devices(*range(devices))
    uneven = shards_gpu_fleet.GpuFleet(range(devices), [3.0, *[1.0] * (devices - 1)])
    data, c = drawn(n), minimax(DEGREE, LOGIT_BOUND).scaled()
    passes = partial(portable if operands == "float32" else fused, c=c, operands=operands)
    expected, rows = oracle(data, c)
    errors = {}
    for label, fleet in (("one", one), ("all", every), ("uneven", uneven)):
        errors[label] = check(fleet, data, passes, expected, rows)
    if not all(error <= LARGEST_OWN[operands] for error in errors.values()):  # NaN fails
        msg = f"{operands} is off by {errors}: no time is taken of a wrong answer."
        raise AssertionError(msg)
    seconds = {
        label: _seconds(fleet, shards(fleet, data), passes)
        for label, fleet in (("one", one), ("all", every))
    }
    null = null_errors(data, expected, rows)
    parts = _parts(every, shards(every, data), c, operands) if operands != "float32" else {}
    del data
    cupy.get_default_memory_pool().free_all_blocks()
    return {
        "operands": operands,
        "n": n,
        "devices": devices,
        "own_polynomial": errors,
        "null": null,
        "seconds": seconds,
        "parts": parts,
        "nccl": bool(every._communicators),
        "efficiency": seconds["one"] / seconds["all"] / devices,
    }


def _idle(fleet: Any) -> None:
    import cupy

    for device in fleet.devices:
        with cupy.cuda.Device(device) as current:
            current.synchronize()


def _median(fleet: Any, call: Callable[[], object]) -> float:
    """Return the median seconds of a call, every device idle before and after."""
    times = []
    for _ in range(WARM_UP + REPEATS):
        _idle(fleet)
        start = time.perf_counter()
        kept = call()
        _idle(fleet)
        times.append(time.perf_counter() - start)
        del kept
    return statistics.median(times[WARM_UP:])


def _seconds(fleet: Any, placed: list[Any], passes: Passes) -> float:
    """Return the seconds of the passes; of one device without threads of its own."""
    import cupy

    if fleet.ranks > 1:
        return _median(fleet, lambda: passes(fleet, *placed))
    alone = _alone()
    with cupy.cuda.Device(fleet.devices[0]):
        Q, K, W = (_on_one(alone, x.parts[0]) for x in placed)
        return _median(fleet, lambda: passes(alone, Q, K, W))


def _on_one(alone: Any, part: Any) -> Any:
    from subquad.engine.shards.fleet import Sharded

    return Sharded(alone, (part,), np.array([0, part.shape[0]]), part[:0])


def _alone() -> Any:
    """Return a Fleet of the current device: no thread, no exchange, what a plain call does."""
    from subquad.engine.shards.fleets import CpuFleet

    return CpuFleet([1.0])


def _parts(fleet: Any, placed: list[Any], c: np.ndarray, operands: str) -> dict[str, float]:
    """Return the seconds of each step alone; they overlap in the whole."""
    Q, K, W = placed
    moments = accumulated(fleet, K, W, operands)
    summed = fleet.sum(moments)
    return {
        "key pass": _median(fleet, lambda: accumulated(fleet, K, W, operands)),
        "sum": _median(fleet, lambda: fleet.sum(moments)),
        "query pass": _median(fleet, lambda: contracted(fleet, Q, summed, c, operands)),
        "nothing": _median(fleet, lambda: fleet.map(len, Q.parts)),
    }


GOAL = 0.9
"""Efficiency asked of the fused passes."""


def findings(record: dict) -> list[Finding]:
    """Return where several devices keep the part of their speed that is asked for."""
    asked = [row["efficiency"] for row in record["rows"] if row["operands"] != "float32"]
    return [
        Finding(
            "several GPUs",
            graded(min(asked) >= GOAL, not max(asked) >= GOAL),
            f"Fused passes on several GPUs keep {number(GOAL)} of the speed of each.",
            f"{number(min(asked))} to {number(max(asked))}: the time of one over that of all times "
            "their number. The portable passes are launched from one process, whose interpreter "
            "they share.",
        )
    ]


HEADER = (
    "passes",
    "one device, ms",
    "all, ms",
    "efficiency",
    "own polynomial",
    "uneven shards",
    "mean(V)",
    "first order",
)


def table_rows(record: dict) -> list[list]:
    """Return the rows under HEADER."""
    return [
        [
            row["key"],
            1e3 * row["seconds"]["one"],
            1e3 * row["seconds"]["all"],
            row["efficiency"],
            row["own_polynomial"]["all"],
            row["own_polynomial"]["uneven"],
            *(row["null"][name] for name in ("mean_v", "first_order")),
        ]
        for row in record["rows"]
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"{s['devices']} of {s['device']}, n = {s['n']:,}, d = {s['d']}, degree {s['degree']}. "
        f"Errors are relative to the same polynomial in float64, on sampled rows. "
        f"{record.get('added', '')}"
    )


NEEDS = ("cupy",)
FINDINGS = findings
KEPT = Kept(160, "Several GPUs", ("gpu_charts.several",), about)
