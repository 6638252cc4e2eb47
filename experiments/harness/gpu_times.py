"""Times on one GPU: of calls of ours, launched and replayed as graphs, and of PyTorch's attention.

The graph replays the same launches without the host. The peers are cuDNN on input already in
bfloat16, and the memory-efficient kernel in float32; run in the same process.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from .gpu_passes import D

REPEATS, WARM_UP = 30, 5
PEER_REPEATS, PEER_WARM_UP = 9, 2


def median_seconds(calls: Sequence[Callable[[], object]]) -> dict[str, float]:
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
def cudnn(n: int) -> float:
    """Return the median seconds of one head by cuDNN, in bfloat16, found once for each n."""
    import torch
    from torch.nn.attention import SDPBackend

    return _sdpa(n, SDPBackend.CUDNN_ATTENTION, torch.bfloat16)


@lru_cache(maxsize=16)
def memory_efficient(n: int) -> float:
    """Return those of the memory-efficient kernel in float32, found once for each n."""
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
        for _ in range(PEER_WARM_UP + PEER_REPEATS):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            torch.nn.functional.scaled_dot_product_attention(*tensors)
            stop.record()
            stop.synchronize()
            times.append(1e-3 * start.elapsed_time(stop))
    del tensors
    torch.cuda.empty_cache()
    return statistics.median(times[PEER_WARM_UP:])
