"""Fleets of CUDA devices: all those of one process, or one a process by a communicator.

NCCL moves the bytes where there is NCCL and no device is named twice, copies between peers do
elsewhere; nothing is added up on the way, so the bits do not depend on which. Devices of one
process share its interpreter: fused passes take a few launches; of the portable ones, many short
steps, less of each device's speed is left (see the experiment `many_gpus`). One process
a device has no interpreter to share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from typing import Any

import array_api_compat
import cupy
import numpy as np
from cupy.cuda import runtime

from subquad.engine.gpu.kernels import THREADS, blocks_for
from subquad.engine.shards.fleet import Fleet, Sharded

SUM = """
extern "C" __global__ void ordered_sum(
    const double* x, int ranks, long long size, double* total) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        double sum = x[i], lost = 0.0;
        for (int r = 1; r < ranks; r++) {
            const double next = x[r * size + i], following = sum + next, part = following - sum;
            lost += (sum - (following - part)) + (next - part);
            sum = following;
        }
        total[i] = sum + lost;
    }
}
"""
"""`fleet.ordered_sum` in one kernel: the same operations, none of which can be fused."""


@lru_cache(maxsize=1)
def _ordered_sum() -> Any:
    return cupy.RawKernel(SUM, "ordered_sum")


class _OnGpu(Fleet):
    """What all fleets of CUDA devices have alike."""

    def carry(self, x: Any) -> Any:
        """Return an array of the host or of another device on the current one."""
        if array_api_compat.is_numpy_array(x):
            return cupy.asarray(x)
        here = cupy.cuda.Device()
        if x.device == here:
            return x
        with x.device as there:
            x = cupy.ascontiguousarray(x)
            there.synchronize()
        out = cupy.empty(x.shape, x.dtype)
        _copy(out.data.ptr, x)
        return out

    def added(self, stack: Any) -> Any:
        """Return the sum of a stack (ranks, ...), float64, over its first axis."""
        stack, total = cupy.ascontiguousarray(stack), cupy.empty(stack.shape[1:])
        if total.size > 0:
            arguments = stack, np.int32(stack.shape[0]), np.int64(total.size), total
            _ordered_sum()((blocks_for(total.size),), (THREADS,), arguments)
        return total


class GpuFleet(_OnGpu):
    """CUDA devices of this process, by number; a host thread for each, so that they overlap."""

    def __init__(self, devices: Sequence[int], shares: Sequence[float] | None = None) -> None:
        super().__init__([1.0] * len(devices) if shares is None else shares)
        self.devices = tuple(devices)
        count = runtime.getDeviceCount()
        if len(self.devices) != self.ranks or not all(0 <= i < count for i in self.devices):
            msg = (
                f"`devices` is {list(devices)}: CUDA devices are numbered 0 to {count - 1} "
                f"here, and there are {self.ranks} shares."
            )
            raise ValueError(msg)
        # A thread of its own for each rank: libraries keep a handle for each thread and device.
        self._threads = [ThreadPoolExecutor(1) for _ in self.devices]
        self._inside = threading.local()

    def __reduce__(self) -> tuple[Callable[..., Fleet], tuple[Any, ...]]:
        """Return what pickle needs: the numbers of the devices, threads are started anew."""
        if len(set(self.shares)) == 1:
            return of_devices, self.devices
        return GpuFleet, (self.devices, self.shares)

    def map(self, function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
        """Return [function(*row)], computed at the same time, each on its device.

        What is launched need not have ended. The first exception is raised once all have returned;
        RuntimeError where a function asks all ranks in its turn, which would wait for itself.
        """
        if getattr(self._inside, "rank", False):
            msg = "a shard asked for what needs all shards; ask before the work is divided."
            raise RuntimeError(msg)

        def on(device: int, row: tuple[Any, ...]) -> Any:
            self._inside.rank = True
            with cupy.cuda.Device(device):
                return function(*row)

        rows = zip(*columns, strict=True)
        futures = [
            thread.submit(on, device, row)
            for thread, device, row in zip(self._threads, self.devices, rows, strict=True)
        ]
        for future in futures:
            future.exception()  # waits
        return [future.result() for future in futures]

    @cached_property
    def _communicators(self) -> list[Any]:
        """NCCL's communicator of each device; empty where there is none."""
        from cupy.cuda import nccl

        alone = len(set(self.devices)) == len(self.devices)
        if not (nccl.available and alone and self.ranks > 1):
            return []
        return list(nccl.NcclCommunicator.initAll(list(self.devices)))

    def stack(self, parts: Sequence[Any]) -> list[Any]:
        """Return the parts of all ranks stacked, on each device, in the order of its stream."""

        def ready(part: Any) -> tuple[Any, Any, int]:
            part = cupy.ascontiguousarray(part)
            out = cupy.empty((self.ranks, *part.shape), part.dtype)
            if not self._communicators:
                cupy.cuda.get_current_stream().synchronize()
            return part, out, cupy.cuda.get_current_stream().ptr

        prepared = self.map(ready, parts)
        if prepared[0][0].nbytes > 0:
            (self._gather if self._communicators else self._copy_all)(prepared)
        return [out for _, out, _ in prepared]

    def _gather(self, prepared: list[tuple[Any, Any, int]]) -> None:
        from cupy.cuda import nccl

        nccl.groupStart()
        for communicator, (part, out, stream) in zip(self._communicators, prepared, strict=True):
            communicator.allGather(part.data.ptr, out.data.ptr, part.nbytes, nccl.NCCL_INT8, stream)
        nccl.groupEnd()

    def _copy_all(self, prepared: list[tuple[Any, Any, int]]) -> None:
        for device, (_, out, _) in zip(self.devices, prepared, strict=True):
            with cupy.cuda.Device(device):
                for rank, (part, _, _) in enumerate(prepared):
                    _copy(out.data.ptr + rank * part.nbytes, part)

    def home(self, parts: Sequence[Any], like: Any) -> Any:
        """Return the parts joined on the host or on the device of `like`."""
        if array_api_compat.is_numpy_array(like):
            return np.concatenate(self.map(cupy.asnumpy, parts))
        parts = self.map(_finished, parts)
        with like.device:
            if len(parts) == 1 and parts[0].device == like.device:
                return parts[0]
            shape = sum(part.shape[0] for part in parts), *parts[0].shape[1:]
            out = cupy.empty(shape, parts[0].dtype)
            place = out.data.ptr
            for part in parts:
                _copy(place, part)
                place += part.nbytes
        return out


@lru_cache(maxsize=8)
def of_devices(*devices: int) -> GpuFleet:
    """Return the fleet of these devices, equal shares; kept, with its threads and communicators."""
    return GpuFleet(devices)


class CommunicatorFleet(_OnGpu):
    """One device a process: `communicator` is one of `cupyx.distributed`, initialised.

    Each process passes its own rows and gets its own back; it needs at least one of each kind.
    """

    def __init__(self, communicator: Any) -> None:
        count = cupy.ones(1, dtype=cupy.int64)
        communicator.all_reduce(count, count)
        super().__init__([1.0] * int(count[0]), [communicator.rank])
        self._communicator = communicator

    def stack(self, parts: Sequence[Any]) -> list[Any]:
        """Return the parts of all processes stacked."""
        (part,) = parts
        out = cupy.empty((self.ranks, *part.shape), part.dtype)
        if part.nbytes > 0:
            sent, received = (_bytes(x) for x in (cupy.ascontiguousarray(part), out))
            self._communicator.all_gather(sent, received, sent.size)
        return [out]

    def place(self, x: Any) -> Sharded:
        """Return the rows x of this process as its shard of those of all."""
        return self.sharded([self.carry(x)], x[:0])

    def home(self, parts: Sequence[Any], like: Any) -> Any:
        """Return the part of this process, where `like` is."""
        (part,) = parts
        return cupy.asnumpy(part) if array_api_compat.is_numpy_array(like) else part


def _bytes(x: Any) -> Any:
    return x.reshape(-1).view(cupy.uint8)


def _finished(part: Any) -> Any:
    """Return a part, contiguous, once what its device was asked for has ended."""
    part = cupy.ascontiguousarray(part)
    cupy.cuda.get_current_stream().synchronize()
    return part


def _copy(place: int, part: Any) -> None:
    """Copy a contiguous array to an address of the current device, in turn with all else there."""
    here = cupy.cuda.runtime.getDevice()
    if part.nbytes > 0 and part.device.id == here:
        runtime.memcpy(place, part.data.ptr, part.nbytes, runtime.memcpyDeviceToDevice)
    elif part.nbytes > 0:
        runtime.memcpyPeer(place, here, part.data.ptr, part.device.id, part.nbytes)
