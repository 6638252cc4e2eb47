"""Heads through the fused passes at once: nothing measured beforehand, no wait for the host.

What the bound rests on (largest norms, means of the keys, ranges of the values) is found on the
device beside the work, and all but the queries' norms reach the host while their pass still runs.
Beside the two passes, which take the rows as they are, V is read once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import cupy
import cupyx
import numpy as np

from subquad.engine import gpu_fused
from subquad.engine.gpu_kernels import THREADS, blocks_for, launch_rows

BLOCKS = 2048
"""Most blocks of a pass over the rows: each has a few of all that run at once."""
Affine = tuple[float, np.ndarray, float]
"""pre, centre (d,), post: rows enter as (x * pre - centre) * post."""


@dataclass(frozen=True)
class Units:
    """How the rows of a head enter; its keys weigh exp((k * pre - centre) . tilt)."""

    query: Affine
    key: Affine
    tilt: np.ndarray | None


@dataclass(frozen=True)
class Report:
    """What a head was found to be; NaN where it has one.

    Attributes
    ----------
    key_norm : float
        The largest of a prepared key, rounded up.
    key_mean : array (d,)
        Weighted mean of the prepared keys, as rounded to the operands.
    low, high : array (d_v,)
        Ranges of the values.
    query_norm : callable
        Returns the largest of a prepared query, rounded up, once the output is there.
    """

    key_norm: float
    key_mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    query_norm: Callable[[], float]


def replayable(*arrays: Any) -> bool:
    """Return whether these are float32 rows in C order, as the kernels take them."""
    return all(
        x.dtype == np.float32 and x.flags.c_contiguous and x.data.ptr % 16 == 0 for x in arrays
    )


def start(
    Q: Any, K: Any, V: Any, units: Sequence[Units], coefficients: np.ndarray, operands: str,
    out: Any,
) -> Callable[[], list[Report]]:  # fmt: skip
    """Launch all that fills `out` (heads, n, d_v) with the attention of polynomials.

    Q (heads, n, d), K (heads, m, d) and V (heads, m, d_v) are `replayable`, of a shape that the
    fused passes have, `coefficients` (heads, degree + 1). What is returned gives the Report of each
    head: it waits for what the keys are, not for the output.
    """
    (heads, d), d_v, degree = Q.shape[::2], V.shape[2], coefficients.shape[1] - 1
    found = cupy.zeros((heads, 3 + 8 * d_v))
    values = _value_units(V, found[:, 3:])
    weights = None if all(u.tilt is None for u in units) else _weights(K, units, found[:, 2])
    keys = gpu_fused.Raw(_sides([u.key for u in units]), values, found[:, 1], weights)
    moments, _ = gpu_fused.accumulate(K, V, degree, operands, keys)
    report = _later(found, moments[:, : 1 + d])
    queries = gpu_fused.Raw(_sides([u.query for u in units]), values, found)
    gpu_fused.contract(Q, moments, coefficients, operands, raw=queries, out=out)
    longest = _later(found)

    def read() -> list[Report]:
        return [
            Report(
                _root(numbers[1]), sums[1:, -1] / sums[0, -1],
                numbers[3 + 5 * d_v : 3 + 6 * d_v], numbers[3 + 6 * d_v : 3 + 7 * d_v],
                partial(_of_head, longest, head),
            )
            for head, (numbers, sums) in enumerate(zip(*report(), strict=True))
        ]  # fmt: skip

    return read


def _of_head(longest: Callable[[], list[np.ndarray]], head: int) -> float:
    return _root(longest()[0][head, 0])


def _root(square: np.float64) -> float:
    """Return the root, rounded up, of the float32 number in the first bytes of a float64."""
    return math.sqrt(float(np.atleast_1d(square).view(np.float32)[0])) * (1.0 + 2.0**-50)


def _value_units(V: Any, units: Any) -> Any:
    """Return the units (heads, 8, d_v) of the columns in float32; those in float64 go to `units`.

    `units` has 8 d_v zeros a head: 7 of float64 a column, and then its ends.
    """
    (heads, _, d_v), apart = V.shape, units.strides[0] // 8
    narrowed = cupy.empty((heads, 8, d_v), cupy.float32)
    ends = units[:, 7 * d_v :]
    _rows("column_ends", V, ends, apart)
    launch_rows("value_units", 0, (1, heads), (ends, np.int32(d_v), units, narrowed, apart))
    return narrowed


def _weights(K: Any, units: Sequence[Units], largest: Any) -> Any:
    """Return exp((k * pre - centre) . tilt) over a power of two, (heads, m) float64, at most 1."""
    (heads, m, _), apart = K.shape, largest.strides[0] // 8
    weights = cupy.empty((heads, m))
    parts = [(u.key[1], 0.0 * u.key[1] if u.tilt is None else u.tilt) for u in units]
    host = np.array([[np.full_like(centre, u.key[0]), centre, tilt]
                     for u, (centre, tilt) in zip(units, parts, strict=True)])  # fmt: skip
    _rows("key_logits", K, gpu_fused.uploaded(host), weights, largest, apart)
    launch_rows("key_weights", 0, (blocks_for(m), heads), (weights, m, largest, apart))
    return weights


def _sides(sides: Sequence[Affine]) -> Any:
    """Return centre, pre and post of each head as `gpu_fused.Raw` has them."""
    rows = [[*centre, pre, post, 0.0, 0.0] for pre, centre, post in sides]
    return gpu_fused.uploaded(np.array(rows, np.float32))


def _rows(name: str, x: Any, *arguments: Any) -> None:
    """Launch a pass over the rows of x (heads, n, d), one warp a row."""
    (heads, n, d), warps = x.shape, THREADS // 32
    grid = min(-(-BLOCKS // heads), -(-n // warps)), heads
    launch_rows(name, -(-d // 32), grid, (x, n, np.int32(d), *arguments))


def _later(*arrays: Any) -> Callable[[], list[np.ndarray]]:
    """Return what waits for arrays on the host: copied beside what the stream does next."""
    side = _side_stream(cupy.cuda.runtime.getDevice())
    ready, copied = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
    ready.record()
    side.wait_event(ready)
    pairs = [(x, cupyx.empty_pinned(x.shape, x.dtype)) for x in arrays]
    for x, host in pairs:
        x.get(stream=side, out=host, blocking=False)
    copied.record(side)

    def wait() -> list[np.ndarray]:
        copied.synchronize()
        return [np.array(host) for _, host in pairs]  # until here no x may be lent again

    return wait


@lru_cache(maxsize=64)
def _side_stream(device: int) -> Any:
    return cupy.cuda.Stream(non_blocking=True)
