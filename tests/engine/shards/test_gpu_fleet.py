"""Shards on CUDA devices: several on one device, one on each, one process a device."""

import copy
import pickle
import socket
from dataclasses import replace

import numpy as np
import pytest

import subquad
from subquad.cost.rates import TYPICAL
from subquad.engine.backend import to_host
from subquad.engine.shards.fleet import ordered_sum
from subquad.engine.shards.fleets import CpuFleet, fleet_of
from tests import oracle
from tests.fleets import in_processes
from tests.methods.table import ON_SHARDS, over
from tests.methods.test_sharding import data, data_for, gentle

pytestmark = pytest.mark.gpu


def fleets():
    """Yield fleets on whatever devices there are: three shards on one, and one on each."""
    from cupy.cuda import runtime

    from subquad.engine.shards import gpu_fleet as shards_gpu_fleet

    count = runtime.getDeviceCount()
    yield shards_gpu_fleet.GpuFleet([0, 0, 0], [1.0, 0.3, 2.0])
    yield shards_gpu_fleet.GpuFleet([0, 0], [0.0, 1.0])
    if count > 1:
        yield shards_gpu_fleet.GpuFleet(range(count))
        yield shards_gpu_fleet.GpuFleet([1, 0], [5.0, 2.0])


def by_copies(fleet):
    """Return the same fleet without NCCL."""
    from subquad.engine.shards import gpu_fleet as shards_gpu_fleet

    other = shards_gpu_fleet.GpuFleet(fleet.devices, fleet.shares)
    other.__dict__["_communicators"] = []
    return other


def test_rows_go_out_and_come_home(cp):
    x = np.random.default_rng(0).standard_normal((1001, 5)).astype(np.float32)
    for fleet in fleets():
        for home in (x, cp.asarray(x), cp.asarray(x)[::-1]):
            placed = fleet.place(home)
            assert [part.device.id for part in placed.parts] == list(fleet.devices)
            back = fleet.home(placed.parts, placed.home)
            assert type(back) is type(home)
            assert bool((back == home).all())
            for whole in fleet.map(cp.asnumpy, placed.joined()):
                assert np.array_equal(whole, to_host(home))


def test_a_fleet_is_pickled_as_its_devices_and_shares(cp):
    x = np.random.default_rng(2).standard_normal((101, 5))
    for fleet in fleets():
        again = pickle.loads(pickle.dumps(fleet))
        assert (again.devices, again.shares) == (fleet.devices, fleet.shares)
        assert np.array_equal(again.home(again.place(x).parts, x), x)
        assert copy.deepcopy(fleet) is fleet


def test_sums_have_the_bits_of_the_host_whatever_carries_them(cp):
    rng = np.random.default_rng(1)
    for fleet in fleets():
        values = rng.standard_normal((fleet.ranks, 700, 9)) * 10.0 ** rng.integers(
            -9, 9, (fleet.ranks, 700, 9)
        )
        for one in (fleet, by_copies(fleet)):
            parts = one.map(cp.asarray, list(values))
            for total in one.map(cp.asnumpy, one.sum(parts)):
                assert np.array_equal(total, ordered_sum(values))


@over(ON_SHARDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_attention_over_devices(cp, row, dtype):
    Q, K, V = data_for(row)(d=4, dtype=dtype)
    options = {"tol": 5e-2, "method": row.method, "rates": TYPICAL}
    for fleet in fleets():
        results = [
            subquad.attention(*arrays, devices=one, **options)
            for one, arrays in (
                (fleet, (Q, K, V)),
                (by_copies(fleet), (Q, K, V)),
                (fleet, tuple(map(cp.asarray, (Q, K, V)))),
            )
        ]
        output, bounds = results[0].output, results[0].certificate.row_bounds
        assert isinstance(output, np.ndarray)
        error = oracle.row_errors(output, Q, K, V, Q.shape[1] ** -0.5)
        assert np.all(error <= bounds)
        assert bounds.max() <= results[0].plan.heads[0].chosen.bound
        for other in results[1:]:
            assert np.array_equal(to_host(other.output), output)
            assert np.array_equal(to_host(other.certificate.row_bounds), bounds)
        shards = CpuFleet(fleet.shares)
        cpu = subquad.attention(Q, K, V, devices=shards, **options).certificate.row_bounds
        np.testing.assert_allclose(bounds, cpu, rtol=1e-2)


def fused_rates():
    fast = replace(TYPICAL.float32, polynomial_flops=1e14, features=np.inf)
    return replace(TYPICAL, bfloat16=fast, bfloat16x3=replace(fast, polynomial_flops=3e13))


@pytest.mark.parametrize(("tol", "operands"), [(5e-2, "bfloat16"), (2e-3, "bfloat16x3")])
def test_fused_passes_over_devices(cp, tol, operands):
    from subquad.engine.fused import passes as fused_passes

    if not fused_passes.available():
        pytest.skip("the fused passes need a device of compute capability 9.0")
    Q, K, V = data(n=3001, m=4003, d=32, d_v=24)
    scale = 0.5 / (np.linalg.norm(Q, axis=1).max() * np.linalg.norm(K, axis=1).max())
    for fleet in fleets():
        result = subquad.attention(
            Q, K, V, tol=tol, method="polynomial", devices=fleet, scale=scale, rates=fused_rates()
        )
        assert result.plan.heads[0].chosen.parameters.dtype == operands
        error = oracle.row_errors(result.output, Q, K, V, scale)
        assert np.all(error <= result.certificate.row_bounds)


def in_a_process(fleet, port):
    """What one process of several gets, its device by its rank, by a communicator of CuPy's."""
    import multiprocessing

    import cupy
    from cupyx.distributed import init_process_group

    multiprocessing.set_start_method("fork", force=True)  # its server cannot be pickled
    (rank,) = fleet.local
    with cupy.cuda.Device(rank):
        communicator = init_process_group(fleet.ranks, rank, port=port)
        found = []
        for row in ON_SHARDS.values():
            arrays = (cupy.asarray(np.array_split(x, fleet.ranks)[rank]) for x in gentle())
            options = {"tol": 2e-2, "method": row.method, "rates": TYPICAL}
            result = subquad.attention(*arrays, devices=communicator, **options)
            found.append((result.output.get(), result.certificate.row_bounds.get()))
        communicator.barrier()
    return found


def test_one_process_a_device(cp):
    from cupy.cuda import nccl, runtime

    count = runtime.getDeviceCount()
    if count < 2 or not nccl.available:
        pytest.skip("needs two CUDA devices and NCCL")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Q, K, V = gentle()
    results = zip(*in_processes(count, in_a_process, port), strict=True)
    for method, ranks in zip(ON_SHARDS, results, strict=True):
        output, bounds = (np.concatenate(x) for x in zip(*ranks, strict=True))
        error = oracle.row_errors(output, Q, K, V, Q.shape[1] ** -0.5)
        assert np.all(error <= bounds), method
        assert bounds.max() <= 2e-2


def test_devices_that_are_not_there_are_named(cp):
    with pytest.raises(ValueError, match="`devices` is .* numbered 0 to"):
        fleet_of([0, 99])


def test_a_shard_that_asks_all_shards_is_told_so(cp):
    fleet = next(fleets())
    with pytest.raises(RuntimeError, match="needs all shards"):
        fleet.map(lambda _: fleet.map(len, [[]] * 3), range(3))
