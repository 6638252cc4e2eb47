"""The fused GPU passes against the best exact attention on the same device, checked before timed.

d = 64, one head unless said, float32 input prepared as the methods prepare it. A time is of the
engine passes end to end: packing, keys, State, queries, division; the graph replays the same
launches without the host. Every shape is first checked against float64 on the device: outputs and
scratch memory poisoned, sizes off every tile, fresh random data, two runs bit for bit. What fails
is not timed. The peers are PyTorch's: cuDNN on input already in bfloat16, and the
memory-efficient kernel in float32; run in the same process.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from experiments.finding import Finding, graded
from experiments.gpu_again import again
from experiments.store import Experiment
from experiments.writing import number
from subquad.exp_poly import minimax

QUESTION = "How much faster than the best exact attention on the same GPU are the fused passes?"
SEED, D, LOGIT_BOUND = 0, 64, 0.5
SETS, REPEATS, WARM_UP, SAMPLED = 4, 30, 5, 256
LARGEST_OWN = {"bfloat16": 4e-3, "bfloat16x3": 6e-6}
"""Relative error against the float64 polynomial above which a shape is not timed."""
ODD = (1, 1000, 1001), (2, 300, 777), (1, 20_011, 20_000), (3, 129, 17)
"""Heads, queries and keys of the checks: no multiple of any tile."""

Shape = tuple[int, str, int, int]
"""Degree, operands, length, heads."""
SHAPES: tuple[Shape, ...] = (
    (2, "bfloat16", 65_536, 1), (2, "bfloat16", 131_072, 1), (2, "bfloat16", 524_288, 1),
    (2, "bfloat16x3", 65_536, 1), (2, "bfloat16x3", 131_072, 1), (2, "bfloat16x3", 524_288, 1),
    (3, "bfloat16", 524_288, 1), (2, "bfloat16", 65_536, 16),
)  # fmt: skip
QUICK: tuple[Shape, ...] = ((2, "bfloat16", 16_384, 1), (2, "bfloat16x3", 16_384, 1))


def experiment(quick: bool = False) -> Experiment:
    """Return the experiment: a row for each shape. Needs a CUDA device with wgmma, and PyTorch."""
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    settings = {
        "seed": SEED, "d": D, "d_v": D, "logit_bound": LOGIT_BOUND, "device": name,
        "cupy": cupy.__version__, "repeats": REPEATS, "input sets": SETS,
        "polynomial": "minimax on [-1/2, 1/2], the degree's own",
        "oracle": f"float64 on the device, {SAMPLED} rows, all keys",
    }  # fmt: skip
    cases = {_key(shape): partial(_row, shape) for shape in (QUICK if quick else SHAPES)}
    return Experiment("gpu", QUESTION, settings, cases, derived)


def _key(shape: Shape) -> str:
    degree, operands, n, heads = shape
    return f"degree {degree}, {operands}, n = {n:,}" + (f", {heads} heads" if heads > 1 else "")


def _row(shape: Shape, rates) -> dict:
    """Return the errors of a shape, its times, and those of the peer."""
    import cupy

    degree, operands, n, heads = shape
    checks = [_check(degree, operands, *odd) for odd in ODD]
    sets = [_data(heads, n, n, seed) for seed in range(SETS if heads * n < 500_000 else 2)]
    found = _errors(sets[0], degree, operands)
    if not max(found["own_polynomial"], *checks) <= LARGEST_OWN[operands]:
        msg = f"{_key(shape)} is off by {found}, {checks}: no time is taken of a wrong answer."
        raise AssertionError(msg)
    c = minimax(degree, LOGIT_BOUND).scaled()
    calls = [partial(_passes, x, c, operands) for x in sets]
    times = _times(calls)
    run_again = again(n, heads, D, operands, calls, SEED) if degree == 2 else None
    del sets, calls
    cupy.get_default_memory_pool().free_all_blocks()
    peers = {"cuDNN, bfloat16": _cudnn(n)}
    if operands == "bfloat16x3" and n <= 65_536:
        peers["memory-efficient, float32"] = _memory_efficient(n)
    return {
        "degree": degree, "operands": operands, "n": n, "heads": heads,
        "checked_own_polynomial": max(checks), **found, "seconds": times, "peers": peers,
        "again": run_again,
        "ratios": {name: heads * seconds / times["graph"] for name, seconds in peers.items()},
    }  # fmt: skip


def _data(heads: int, n: int, m: int, seed: int) -> tuple[Any, Any, Any]:
    """Return prepared Q (heads, n, D), K, W = [V, 1]: norms at most sqrt(LOGIT_BOUND), |V| <= 1."""
    import cupy

    rng = cupy.random.default_rng(1000 * SEED + seed)

    def rows(count: int) -> Any:
        x = rng.standard_normal((heads, count, D), dtype=cupy.float32) + np.float32(0.1)
        norms = cupy.linalg.norm(x, axis=-1, keepdims=True)
        return x * (np.float32(LOGIT_BOUND**0.5 * (1.0 - 2.0**-10)) / norms.max(axis=1)[:, None])

    Q, K = rows(n), rows(m)
    V = rng.random((heads, m, D), dtype=cupy.float32) * 2.0 - 1.0
    return Q, K, cupy.concatenate([V, cupy.ones((heads, m, 1), cupy.float32)], axis=2)


def _passes(data: tuple[Any, Any, Any], c: np.ndarray, operands: str) -> tuple[Any, Any]:
    """Return the output (heads, n, D) and the normalisers by degree."""
    from subquad.engine import gpu_fused

    Q, K, W = data
    moments, _ = gpu_fused.accumulate(K, W, len(c) - 1, operands)
    return gpu_fused.contract(Q, moments, c, operands, divide=True)


def _check(degree: int, operands: str, heads: int, n: int, m: int) -> float:
    """Return the relative error on poisoned memory; NaN where two runs differ in a bit."""
    import cupy

    data = _data(heads, n, m, n + m)
    c = minimax(degree, LOGIT_BOUND).scaled()
    outputs = []
    for _ in range(2):
        dirty = [cupy.full(1 << power, cupy.nan) for power in range(6, 24)]
        del dirty  # what is handed out next is full of NaN
        outputs.append([x.copy() for x in _passes(data, c, operands)])
    same = all(bool((a == b).all()) for a, b in zip(*outputs, strict=True))
    exact, _ = _oracle(data, c, slice(None))
    return _relative(outputs[0][0], exact) if same else float("nan")


def _oracle(data: tuple[Any, Any, Any], c: np.ndarray, rows: Any) -> tuple[Any, Any]:
    """Return the rows of polynomial and of exact attention, float64, straight from the weights."""
    import cupy

    Q, K, W = (x.astype(cupy.float64) for x in data)
    logits = Q[:, rows] @ K.transpose(0, 2, 1)
    weights = sum(float(a) * logits**k for k, a in enumerate(c))
    cupy.exp(logits, out=logits)
    V = W[..., :-1]
    return tuple(w @ V / w.sum(axis=-1, keepdims=True) for w in (weights, logits))


def _relative(found: Any, exact: Any) -> float:
    import cupy

    return float(cupy.linalg.norm(found - exact) / cupy.linalg.norm(exact))


def _errors(data: tuple[Any, Any, Any], degree: int, operands: str) -> dict:
    """Return the errors on sampled rows of the first head, and those of the null models."""
    import cupy

    one = tuple(x[:1] for x in data)
    c = minimax(degree, LOGIT_BOUND).scaled()
    output, _ = _passes(data, c, operands)
    rows = cupy.asarray(np.random.default_rng(SEED).choice(data[0].shape[1], SAMPLED, False))
    own, exact = _oracle(one, c, rows)
    Q, K, W = (x[0].astype(cupy.float64) for x in one)
    V = W[:, :-1]
    mean = cupy.broadcast_to(V.mean(axis=0), exact[0].shape)
    first = V.mean(axis=0) + Q[rows] @ ((K - K.mean(axis=0)).T @ (V - V.mean(axis=0)) / len(K))
    radius = (V.max(axis=0) - V.min(axis=0)) / 2.0

    def measured(answer: Any) -> float:
        return float((cupy.abs(answer - exact[0]) / radius).max())

    return {
        "own_polynomial": _relative(output[:1, rows], own), "measured": measured(output[0, rows]),
        "frobenius": _relative(output[:1, rows], exact),
        "null": {"mean_v": {"measured": measured(mean)},
                 "first_order": {"measured": measured(first)}},
    }  # fmt: skip


def _times(calls: Sequence[Callable[[], object]]) -> dict[str, float]:
    """Return median seconds of the calls in turn, launched by the host and replayed as graphs."""
    import cupy

    launches = _median([partial(_ignored, call) for call in calls], cupy.cuda.Stream.null)
    pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    graphs, kept = [], []
    with cupy.cuda.using_allocator(pool.malloc), stream:
        for call in calls:
            call()
            stream.synchronize()
            stream.begin_capture()
            kept.append(call())
            graphs.append(stream.end_capture())
        graph = _median([partial(g.launch, stream) for g in graphs], stream)
    return {"launches": launches, "graph": graph}


def _ignored(call: Callable[[], object]) -> None:
    call()


def _median(calls: list[Callable[[], object]], stream: Any) -> float:
    import cupy

    times = []
    for i in range(WARM_UP + REPEATS):
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(stream)
        calls[i % len(calls)]()
        stop.record(stream)
        stop.synchronize()
        times.append(1e-3 * cupy.cuda.get_elapsed_time(start, stop))
    return statistics.median(times[WARM_UP:])


@lru_cache(maxsize=16)
def _cudnn(n: int) -> float:
    import torch
    from torch.nn.attention import SDPBackend

    return _sdpa(n, SDPBackend.CUDNN_ATTENTION, torch.bfloat16)


@lru_cache(maxsize=16)
def _memory_efficient(n: int) -> float:
    import torch
    from torch.nn.attention import SDPBackend

    return _sdpa(n, SDPBackend.EFFICIENT_ATTENTION, torch.float32)


def _sdpa(n: int, backend: Any, dtype: Any) -> float:
    """Return the median seconds of PyTorch's attention of one head, its input cast beforehand."""
    import torch
    from torch.nn.attention import sdpa_kernel

    tensors = [0.3 * torch.randn(1, 1, n, D, device="cuda").to(dtype) for _ in range(3)]
    times = []
    with sdpa_kernel([backend]), torch.inference_mode():
        for _ in range(2 + 9):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            torch.nn.functional.scaled_dot_product_attention(*tensors)
            stop.record()
            stop.synchronize()
            times.append(1e-3 * start.elapsed_time(stop))
    del tensors
    torch.cuda.empty_cache()
    return statistics.median(times[2:])


def derived(rows: list[dict]) -> dict:
    """Return the time of a head among many over that of one alone."""
    alone = {(r["degree"], r["operands"], r["n"]): r["seconds"]["graph"]
             for r in rows if r["heads"] == 1}  # fmt: skip
    return {
        "head_among_many": {
            r["key"]: r["seconds"]["graph"] / r["heads"] / alone[key]
            for r in rows if r["heads"] > 1
            and (key := (r["degree"], r["operands"], r["n"])) in alone
        }
    }  # fmt: skip


GOALS: dict[Shape, tuple[str, float]] = {
    (2, "bfloat16", 65_536, 1): ("cuDNN, bfloat16", 17.0),
    (2, "bfloat16", 131_072, 1): ("cuDNN, bfloat16", 38.0),
    (2, "bfloat16", 524_288, 1): ("cuDNN, bfloat16", 160.0),
    (2, "bfloat16x3", 65_536, 1): ("memory-efficient, float32", 110.0),
    (2, "bfloat16x3", 131_072, 1): ("cuDNN, bfloat16", 15.0),
    (2, "bfloat16x3", 524_288, 1): ("cuDNN, bfloat16", 68.0),
    (3, "bfloat16", 524_288, 1): ("cuDNN, bfloat16", 8.5),
}
"""The peer and how many times its time over ours is asked for."""
OVER_BARE, LENGTH = 1.25, 524_288
"""What `plan.run` may take over the bare passes, at that length."""


def findings(record: dict) -> list[Finding]:
    """Return where the passes are as much faster than their peer as is asked, and where not."""
    met, told = [], []
    for row in record["rows"]:
        shape = (row["degree"], row["operands"], row["n"], row["heads"])
        if shape in GOALS:
            peer, goal = GOALS[shape]
            met.append(row["ratios"][peer] >= goal)
            told.append(f"{row['key']}: {number(row['ratios'][peer])} ({number(goal)}, {peer})")
    own = max((max(r["own_polynomial"], r["checked_own_polynomial"]) for r in record["rows"]
               if r["operands"] == "bfloat16x3"), default=float("nan"))  # fmt: skip
    return [
        Finding(
            graded(all(met), not any(met)),
            "On one GPU the fused passes are as much faster than exact attention as is asked.",
            f"{sum(met)} of {len(met)}; times faster, asked for in brackets: {'; '.join(told)}.",
        ),
        Finding(
            graded(own <= 3e-6, not own <= 3e-6),
            "Split operands are within 3e-6 of their own polynomial in float64, relatively.",
            f"At most {number(own)}.",
        ),
        _again_finding(record),
    ]


def _again_finding(record: dict) -> Finding:
    runs = [row for row in record["rows"] if row["again"]]
    asked = [row["again"]["over_bare"] for row in runs if row["n"] == LENGTH]
    told = "; ".join(f"{row['key']}: {number(row['again']['over_bare'])}" for row in runs)
    met = bool(asked) and max(asked) <= OVER_BARE
    return Finding(
        graded(met, not met),
        f"A plan run again takes at most {OVER_BARE} times the bare passes at n = {LENGTH:,}, "
        "certificate included.",
        f"Times the bare passes, wall clock: {told}.",
    )


HEADER = ("passes", "microseconds, graph", "launched", "peer", "peer / ours", "plan.run / bare",
          "own polynomial", "measured", "mean(V)", "first order")  # fmt: skip


def table_rows(record: dict) -> list[list]:
    """Return the rows under HEADER: speed and error side by side."""
    return [
        [row["key"], 1e6 * row["seconds"]["graph"], 1e6 * row["seconds"]["launches"], peer, ratio,
         row["again"]["over_bare"] if row["again"] else "-", row["own_polynomial"], row["measured"],
         *(row["null"][k]["measured"] for k in ("mean_v", "first_order"))]
        for row in record["rows"] for peer, ratio in row["ratios"].items()
    ]  # fmt: skip
