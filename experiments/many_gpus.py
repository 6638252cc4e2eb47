"""Rows over several GPUs of one machine against one GPU: the engine passes, checked before timed.

d = 64, one head, degree 2, float32 input prepared as the methods prepare it and already divided
over the devices. A time is of both passes and of what is exchanged between them, by the host's
clock with every device idle before and after. Each way is first checked: outputs against float64
on sampled rows and all keys, two runs bit for bit, memory poisoned before each. What fails is not
timed. Efficiency is the time of one device, without a Fleet, over that of all times their number.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from experiments.finding import Finding, graded
from experiments.store import Experiment
from experiments.writing import number
from subquad import TYPICAL
from subquad.exp_poly import minimax

QUESTION = "What part of each GPU's speed is left where several share the rows?"
SEED, D, DEGREE, LOGIT_BOUND = 0, 64, 2, 0.5
LENGTH, QUICK_LENGTH = 4_194_304, 100_003
REPEATS, WARM_UP, SAMPLED = 21, 4, 32
LARGEST_OWN = {"bfloat16": 4e-3, "bfloat16x3": 6e-6, "float32": 6e-6}
"""Relative error against the float64 polynomial above which nothing is timed."""

Passes = Callable[[Any, Any, Any, Any], list[Any]]
"""(fleet, Q, K, W) to the outputs of the shards, each on its device."""


def experiment(quick: bool = False) -> Experiment:
    """Return the experiment: a row for each compute dtype. Needs two CUDA devices with wgmma."""
    import cupy

    devices = cupy.cuda.runtime.getDeviceCount()
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    n = QUICK_LENGTH if quick else LENGTH
    settings = {
        "seed": SEED, "d": D, "d_v": D, "degree": DEGREE, "logit_bound": LOGIT_BOUND, "n": n,
        "device": name, "devices": devices, "cupy": cupy.__version__, "repeats": REPEATS,
        "oracle": f"float64 on the device, {SAMPLED} rows, all keys",
    }  # fmt: skip
    cases = {
        f"{operands}, n = {n:,}, {devices} devices": partial(_row, operands, n, devices)
        for operands in LARGEST_OWN
    }
    return Experiment("many_gpus", QUESTION, settings, cases, rates=TYPICAL)


def _row(operands: str, n: int, devices: int, rates) -> dict:
    """Return the errors, the seconds on one device and on all, and the parts of the latter."""
    import cupy

    from subquad.engine import gpu_fleet

    one, every = gpu_fleet.of_devices(0), gpu_fleet.of_devices(*range(devices))
    uneven = gpu_fleet.GpuFleet(range(devices), [3.0, *[1.0] * (devices - 1)])
    data, c = _data(n), minimax(DEGREE, LOGIT_BOUND).scaled()
    passes = partial(_portable if operands == "float32" else _fused, c=c, operands=operands)
    exact, rows = _oracle(data, c)
    errors = {}
    for label, fleet in (("one", one), ("all", every), ("uneven", uneven)):
        errors[label] = _checked(fleet, data, passes, exact, rows)
    if not max(errors.values()) <= LARGEST_OWN[operands]:
        msg = f"{operands} is off by {errors}: no time is taken of a wrong answer."
        raise AssertionError(msg)
    seconds = {label: _seconds(fleet, _placed(fleet, data), passes)
               for label, fleet in (("one", one), ("all", every))}  # fmt: skip
    parts = _parts(every, _placed(every, data), c, operands) if operands != "float32" else {}
    del data
    cupy.get_default_memory_pool().free_all_blocks()
    return {
        "operands": operands, "n": n, "devices": devices, "own_polynomial": errors,
        "seconds": seconds, "parts": parts, "nccl": bool(every._communicators),
        "efficiency": seconds["one"] / seconds["all"] / devices,
    }  # fmt: skip


def _data(n: int) -> tuple[Any, Any, Any]:
    """Return Q, K (n, D) and [V, 1] on device 0: norms from nothing to the bound, an offset."""
    import cupy

    rng = cupy.random.default_rng(SEED)

    def rows(offset: float) -> Any:
        x = rng.standard_normal((n, D), dtype=cupy.float32) + np.float32(offset)
        size = rng.random((n, 1), dtype=cupy.float32) * (LOGIT_BOUND**0.5 * (1.0 - 2.0**-10))
        return x * (size / cupy.linalg.norm(x, axis=1, keepdims=True))

    Q, K = rows(0.3), rows(-0.2)
    V = rng.random((n, D), dtype=cupy.float32) * 2.0 - 1.0
    V[: n // 3, 0] = 0.75  # shards must differ
    return Q, K, cupy.concatenate([V, cupy.ones((n, 1), cupy.float32)], axis=1)


def _placed(fleet: Any, data: tuple[Any, ...]) -> list[Any]:
    return [fleet.place(x) for x in data]


def _fused(fleet: Any, Q: Any, K: Any, W: Any, *, c: np.ndarray, operands: str) -> list[Any]:
    """Return the outputs of the shards by the fused passes; nothing waits for a device."""
    return _contracted(fleet, Q, fleet.sum(_accumulated(fleet, K, W, operands)), c, operands)


def _accumulated(fleet: Any, K: Any, W: Any, operands: str) -> list[Any]:
    from subquad.engine import gpu_fused

    return K.map(
        lambda k, w: gpu_fused.accumulate(k[None], w[None], DEGREE, operands)[0], W.parts
    )


def _contracted(fleet: Any, Q: Any, moments: Any, c: np.ndarray, operands: str) -> list[Any]:
    from subquad.engine import gpu_fused

    return Q.map(
        lambda q, m: gpu_fused.contract(q[None], m, c, operands, divide=True)[0][0], moments
    )


def _portable(fleet: Any, Q: Any, K: Any, W: Any, *, c: np.ndarray, operands: str) -> list[Any]:
    """Return the outputs of the shards by the portable passes, States and all."""
    from subquad.engine import contract, sharded

    states = sharded.accumulate(K, W.parts, DEGREE, key_centre=np.zeros(D))

    def divided(q: Any, state: Any) -> Any:
        import cupy

        numerator, by_degree = contract(q, state, c)
        return numerator / (by_degree @ cupy.asarray(c))[:, None]

    return Q.map(divided, states)


def _checked(fleet: Any, data: Any, passes: Any, exact: Any, rows: Any) -> float:
    """Return the relative error on poisoned memory; NaN where two runs differ in a bit."""
    import cupy

    def poison(_: Any) -> None:
        dirty = [cupy.full(1 << power, cupy.nan) for power in range(6, 25)]
        del dirty

    placed, found = _placed(fleet, data), []
    for _ in range(2):
        fleet.map(poison, placed[0].parts)
        found.append(fleet.home(passes(fleet, *placed), data[0]))
    if not bool((found[0] == found[1]).all()):
        return float("nan")
    # The first column is large, and would hide the others.
    return max(
        float(cupy.linalg.norm(found[0][rows][:, c] - exact[:, c]) / cupy.linalg.norm(exact[:, c]))
        for c in (slice(0, 1), slice(1, None))
    )


def _oracle(data: tuple[Any, Any, Any], c: np.ndarray) -> tuple[Any, Any]:
    """Return polynomial attention of sampled rows in float64 and which rows, the last included."""
    import cupy

    Q, K, W = data
    rows = np.random.default_rng(SEED).choice(len(Q), SAMPLED, replace=False)
    rows = cupy.asarray(np.append(rows, [0, len(Q) - 1]))
    q, sums = Q[rows].astype(cupy.float64), cupy.zeros((len(rows), D + 1))
    for start in range(0, len(K), 1 << 20):
        logits = q @ K[start : start + (1 << 20)].astype(cupy.float64).T
        weights = sum(float(a) * logits**k for k, a in enumerate(c))
        sums += weights @ W[start : start + (1 << 20)].astype(cupy.float64)
    return sums[:, :D] / sums[:, D:], rows


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


def _seconds(fleet: Any, placed: list[Any], passes: Any) -> float:
    """Return the seconds of the passes; of one device without threads of its own."""
    import cupy

    if fleet.ranks > 1:
        return _median(fleet, lambda: passes(fleet, *placed))
    alone = _alone()
    with cupy.cuda.Device(fleet.devices[0]):
        Q, K, W = (_on_one(alone, x.parts[0]) for x in placed)
        return _median(fleet, lambda: passes(alone, Q, K, W))


def _on_one(alone: Any, part: Any) -> Any:
    from subquad.engine.fleet import Sharded

    return Sharded(alone, (part,), np.array([0, part.shape[0]]), part[:0])


def _alone() -> Any:
    """Return a Fleet of the current device: no thread, no exchange, what a plain call does."""
    from subquad.engine.devices import CpuFleet

    return CpuFleet([1.0])


def _parts(fleet: Any, placed: list[Any], c: np.ndarray, operands: str) -> dict[str, float]:
    """Return the seconds of each step alone; they overlap in the whole."""
    Q, K, W = placed
    moments = _accumulated(fleet, K, W, operands)
    summed = fleet.sum(moments)
    return {
        "key pass": _median(fleet, lambda: _accumulated(fleet, K, W, operands)),
        "sum": _median(fleet, lambda: fleet.sum(moments)),
        "query pass": _median(fleet, lambda: _contracted(fleet, Q, summed, c, operands)),
        "nothing": _median(fleet, lambda: fleet.map(len, Q.parts)),
    }


GOAL = 0.9


def findings(record: dict) -> list[Finding]:
    """Return where several devices keep the part of their speed that is asked for."""
    fused = [row["efficiency"] for row in record["rows"] if row["operands"] != "float32"]
    told = "; ".join(f"{row['key']}: {number(row['efficiency'])}" for row in record["rows"])
    return [
        Finding(
            graded(min(fused) >= GOAL, not max(fused) >= GOAL),
            f"Fused passes on several GPUs keep {number(GOAL)} of the speed of each.",
            f"Time of one over that of all times their number: {told}. The portable passes are "
            "launched from one process, whose interpreter they share.",
        )
    ]


HEADER = ("passes", "one device, ms", "all, ms", "efficiency", "own polynomial", "uneven shards")


def table_rows(record: dict) -> list[list]:
    """Return the rows under HEADER."""
    return [
        [row["key"], 1e3 * row["seconds"]["one"], 1e3 * row["seconds"]["all"], row["efficiency"],
         row["own_polynomial"]["all"], row["own_polynomial"]["uneven"]]
        for row in record["rows"]
    ]  # fmt: skip
