"""The fused GPU passes against the best exact attention on the same device, checked before timed.

d = 64, one head unless said, float32 input prepared as the methods prepare it. A time is of the
engine passes end to end: packing, keys, State, queries, division; the graph replays the same
launches without the host. Every degree and operands are first checked against float64 on the
device: outputs and scratch memory poisoned, sizes off every tile, data of their own, two runs bit
for bit; then the shape itself, on sampled rows. What fails is not timed. The peers are PyTorch's:
cuDNN on input already in bfloat16, and beside split operands up to 65,536 tokens the
memory-efficient kernel in float32; run in the same process.
"""

from __future__ import annotations

from functools import partial

from subquad.exp_poly import minimax

from ..harness.finding import Finding, graded
from ..harness.gpu_again import again
from ..harness.gpu_passes import LOGIT_BOUND, SAMPLED, SEED, D, check, drawn, errors, passes
from ..harness.gpu_times import PEER_REPEATS, REPEATS, cudnn, median_seconds, memory_efficient
from ..harness.kept import Kept
from ..harness.store import Experiment
from ..report.writing import number

QUESTION = "How much faster than the best exact attention on the same GPU are the fused passes?"
SETS, FEW_SETS, MANY_ROWS = 4, 2, 500_000
"""Sets of input that the passes go through in turn, and fewer from so many rows of all heads on."""
LARGEST_OWN = {"bfloat16": 4e-3, "bfloat16x3": 6e-6}
"""Relative error against the float64 polynomial above which a shape is not timed."""
ODD = (1, 1000, 1001), (2, 300, 777), (1, 20_011, 20_000), (3, 129, 17)
"""Heads, queries and keys of the checks: no multiple of any tile."""

Shape = tuple[int, str, int, int]
"""Degree, operands, length, heads."""
SHAPES: tuple[Shape, ...] = (
    (2, "bfloat16", 65_536, 1),
    (2, "bfloat16", 131_072, 1),
    (2, "bfloat16", 524_288, 1),
    (2, "bfloat16x3", 65_536, 1),
    (2, "bfloat16x3", 131_072, 1),
    (2, "bfloat16x3", 524_288, 1),
    (3, "bfloat16", 524_288, 1),
    (2, "bfloat16", 65_536, 16),
)
QUICK: tuple[Shape, ...] = ((2, "bfloat16", 16_384, 1), (2, "bfloat16x3", 16_384, 1))


def experiment(quick: bool = False) -> Experiment:
    """Return the experiment: a row for each shape. Needs a CUDA device with wgmma, and PyTorch."""
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    settings = {
        "seed": SEED,
        "d": D,
        "d_v": D,
        "logit_bound": LOGIT_BOUND,
        "device": name,
        "cupy": cupy.__version__,
        "repeats": REPEATS,
        "repeats of peers": PEER_REPEATS,
        "polynomial": "minimax on [-1/2, 1/2], the degree's own",
        "oracle": f"float64 on the device, {SAMPLED} rows, all keys",
    }
    cases = {_key(shape): partial(_row, shape) for shape in (QUICK if quick else SHAPES)}
    return Experiment("gpu", QUESTION, settings, cases, derived)


def _key(shape: Shape) -> str:
    degree, operands, n, heads = shape
    return f"degree {degree}, {operands}, n = {n:,}" + (f", {heads} heads" if heads > 1 else "")


def _row(shape: Shape, rates) -> dict:
    """Return the errors of a shape, its times, and those of its peers."""
    import cupy

    degree, operands, n, heads = shape
    checks = [check(degree, operands, *odd) for odd in ODD]
    count = SETS if heads * n < MANY_ROWS else FEW_SETS
    sets = [drawn(heads, n, n, seed) for seed in range(count)]
    found = errors(sets[0], degree, operands)
    if not all(x <= LARGEST_OWN[operands] for x in (found["own_polynomial"], *checks)):  # NaN fails
        msg = f"{_key(shape)} is off by {found}, {checks}: no time is taken of a wrong answer."
        raise AssertionError(msg)
    c = minimax(degree, LOGIT_BOUND).scaled()
    calls = [partial(passes, x, c, operands) for x in sets]
    times = median_seconds(calls)
    run_again = again(n, heads, D, operands, calls, SEED) if degree == 2 else None
    del sets, calls
    cupy.get_default_memory_pool().free_all_blocks()
    peers = {"cuDNN, bfloat16": cudnn(n)}
    if operands == "bfloat16x3" and n <= 65_536:
        peers["memory-efficient, float32"] = memory_efficient(n)
    return {
        "degree": degree,
        "operands": operands,
        "n": n,
        "heads": heads,
        "input_sets": count,
        "checked_own_polynomial": max(checks),
        **found,
        "seconds": times,
        "peers": peers,
        "again": run_again,
        "ratios": {name: heads * seconds / times["graph"] for name, seconds in peers.items()},
    }


def derived(rows: list[dict]) -> dict:
    """Return the time of a head among many over that of one alone."""
    alone = {
        (r["degree"], r["operands"], r["n"]): r["seconds"]["graph"] for r in rows if r["heads"] == 1
    }
    return {
        "head_among_many": {
            r["key"]: r["seconds"]["graph"] / r["heads"] / alone[key]
            for r in rows
            if r["heads"] > 1 and (key := (r["degree"], r["operands"], r["n"])) in alone
        }
    }


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
    met, gains = [], []
    for row in record["rows"]:
        shape = (row["degree"], row["operands"], row["n"], row["heads"])
        if shape in GOALS:
            peer, goal = GOALS[shape]
            met.append(row["ratios"][peer] >= goal)
            gains.append(row["ratios"][peer])
    own = max(
        (
            max(r["own_polynomial"], r["checked_own_polynomial"])
            for r in record["rows"]
            if r["operands"] == "bfloat16x3"
        ),
        default=float("nan"),
    )
    return [
        Finding(
            "fused passes",
            graded(all(met), not any(met)),
            "On one GPU the fused passes are as much faster than exact attention as is asked.",
            f"At {sum(met)} of {len(met)} shapes; {number(min(gains, default=None))} to "
            f"{number(max(gains, default=None))} times.",
        ),
        Finding(
            "split operands",
            graded(own <= 3e-6, not own <= 3e-6),
            "Split operands are within 3e-6 of their own polynomial in float64, relatively.",
            f"At most {number(own)}.",
        ),
        _again_finding(record),
    ]


def _again_finding(record: dict) -> Finding:
    runs = [row for row in record["rows"] if row["again"]]
    asked = [row["again"]["over_bare"] for row in runs if row["n"] == LENGTH]
    every = [row["again"]["over_bare"] for row in runs]
    met = bool(asked) and max(asked) <= OVER_BARE
    return Finding(
        "plan run again",
        graded(met, not met),
        f"A plan run again takes at most {OVER_BARE} times the bare passes at n = {LENGTH:,}, "
        "certificate included.",
        f"{number(max(asked)) if asked else 'None'} there, {number(min(every, default=None))} to "
        f"{number(max(every, default=None))} over all shapes, wall clock.",
    )


HEADER = (
    "passes",
    "microseconds, graph",
    "launched",
    "peer",
    "peer / ours",
    "plan.run / bare",
    "own polynomial",
    "measured",
    "mean(V)",
    "first order",
)


def table_rows(record: dict) -> list[list]:
    """Return the rows under HEADER: speed and error side by side."""
    return [
        [
            row["key"],
            1e6 * row["seconds"]["graph"],
            1e6 * row["seconds"]["launches"],
            peer,
            ratio,
            row["again"]["over_bare"] if row["again"] else "-",
            row["own_polynomial"],
            row["measured"],
            *(row["null"][k]["measured"] for k in ("mean_v", "first_order")),
        ]
        for row in record["rows"]
        for peer, ratio in row["ratios"].items()
    ]


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"{s['device']}, d = {s['d']}, logits up to {s['logit_bound']}; medians of {s['repeats']}, "
        "every shape checked against float64 before it is timed."
    )


NEEDS = ("cupy", "torch")
FINDINGS = findings
KEPT = Kept(150, "One GPU", ("gpu_charts.speed", "gpu_charts.again"), about)
