"""Attention by the workers of a dask cluster: the bits of as many shards, sound, errors told."""

import os
import re
import time
from concurrent.futures import CancelledError
from types import SimpleNamespace

import numpy as np
import pytest

import subquad
from subquad.cost.rates import TYPICAL
from tests import oracle
from tests.methods.test_sharding import data, gentle, same

distributed = pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")

from subquad import cluster  # noqa: E402
from subquad.cluster import client as client_side  # noqa: E402
from subquad.cluster import meeting  # noqa: E402

WORKERS = 3


@pytest.fixture(scope="module")
def client():
    layout = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**layout) as local, distributed.Client(local) as client:
        yield client


def assert_sound(output, bounds, Q, K, V):
    """Assert that no row is further off than its bound."""
    assert np.all(oracle.row_errors(output, Q, K, V, Q.shape[-1] ** -0.5) <= bounds)


def as_dask(*arrays):
    """Return dask arrays in chunks of rows that no worker's share ends with."""
    return [da.from_array(x, chunks=(*x.shape[:-2], 100, -1)) for x in arrays]


@pytest.mark.parametrize("method", ["auto", "exact", "support_basis"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_workers_give_the_bits_of_as_many_shards(client, method, dtype):
    Q, K, V = data(dtype=dtype)
    options = {"tol": 1e-2, "method": method, "rates": TYPICAL}
    result = cluster.attention(client, Q, K, V, **options)
    assert same(result, subquad.attention(Q, K, V, devices=["cpu"] * WORKERS, **options))
    assert_sound(result.output, result.certificate.row_bounds, Q, K, V)
    assert result.certificate.bound <= 1e-2


def test_dask_arrays_of_several_heads_stay_on_the_workers(client):
    heads = [gentle(seed=seed) for seed in (1, 2)]
    Q, K, V = (np.stack(x) for x in zip(*heads, strict=True))
    options = {"tol": 1e-3, "method": "polynomial", "rates": TYPICAL}
    result = cluster.attention(client, *as_dask(Q, K, V), **options)
    assert isinstance(result.output, da.Array)
    assert result.output.shape == (*Q.shape[:-1], V.shape[-1])
    assert result.output.numblocks == (1, WORKERS, 1)
    output = result.output.compute()
    for head, own in enumerate(heads):
        assert_sound(output[head], result.certificate.row_bounds[head], *own)
    assert result.certificate.row_bounds.shape == Q.shape[:-1]


def test_rows_that_are_still_to_be_computed(client):
    """Chunks lie across shares: no rank may begin while another's rows need its worker."""
    arrays = gentle()
    slow = [x.map_blocks(after_a_while, dtype=x.dtype) for x in as_dask(*arrays)]
    result = cluster.attention(client, *slow, tol=1e-3, rates=TYPICAL, patience=20.0)
    assert_sound(result.output.compute(), result.certificate.row_bounds, *arrays)
    failing = slow[0].map_blocks(fail, dtype=slow[0].dtype, meta=arrays[0][:0])
    with pytest.raises(ZeroDivisionError, match="of the caller's own"):
        cluster.attention(client, failing, *slow[1:], tol=1e-3, rates=TYPICAL)


def after_a_while(block):
    time.sleep(0.05)
    return block


def fail(block):
    msg = "of the caller's own"
    raise ZeroDivisionError(msg)


def test_the_plan_is_one_that_runs_here(client):
    Q, K, V = gentle()
    plan = cluster.attention(client, Q, K, V, tol=1e-3, rates=TYPICAL).plan
    assert plan.fleet is None and "chosen" in str(plan)
    again = plan.run(Q, K, V)
    assert_sound(again.output, again.certificate.row_bounds, Q, K, V)


def test_fewer_rows_than_workers(client):
    Q, K, V = data(n=7, m=2)
    result = cluster.attention(client, Q, K, V, tol=1e-3, rates=TYPICAL)
    assert_sound(result.output, result.certificate.row_bounds, Q, K, V)


def spoilt(x, value):
    x = x.copy()
    x[-1, 0] = value
    return x


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"tol": 1e-30}, subquad.ToleranceError, "no allowed method proves tol=1e-30"),
        ({"tol": -1.0}, ValueError, "`tol` is -1"),
        ({"method": "exat"}, ValueError, "`method` is 'exat'"),
        ({"devices": [0]}, TypeError, "`devices` is not an option"),
        ({"methd": "exact"}, TypeError, "did you mean `method`"),
        ({"patience": "long"}, TypeError, "`patience`"),
        ({"patience": float("nan")}, ValueError, "`patience` is nan"),
        ({"patience": 0}, ValueError, "`patience` is 0"),
        ({"patience": float("inf")}, ValueError, "`patience` is inf"),
    ],
)
def test_options_are_refused_as_by_attention(client, change, error, text):
    with pytest.raises(error, match=text):
        cluster.attention(client, *data(), **{"tol": 1e-2, "rates": TYPICAL} | change)


def test_arrays_are_refused_with_a_reason(client):
    Q, K, V = data()
    lazy = as_dask(Q, K, V)
    unknown = lazy[0][lazy[0][:, 0] > 0.0]
    for arrays, error, text in (
        ((spoilt(Q, np.nan), K, V), ValueError, "`Q` has 1 NaN"),
        ((Q, spoilt(K, np.inf), V), ValueError, "`K` has 0 NaN and 1 infinite"),
        ((Q, K, V[:-1]), ValueError, "`V`"),
        ((Q, np.ma.array(K, mask=K > 0.0), V), TypeError, "three dask arrays or three NumPy"),
        ((Q, lazy[1], V), TypeError, "three dask arrays or three NumPy arrays"),
        ((unknown, *lazy[1:]), ValueError, "`Q` has chunks of unknown lengths"),
    ):
        with pytest.raises(error, match=text):
            cluster.attention(client, *arrays, tol=1e-2, rates=TYPICAL)
    with pytest.raises(TypeError, match="`client` is None"):
        cluster.attention(None, Q, K, V, tol=1e-2)


class Late(subquad.SupportBasis):
    """A method that does not come back from one worker."""

    def __init__(self, wait):
        super().__init__()
        self.wait = wait

    def fit(self, stats, tol, rates):
        if distributed.get_worker().address == min(distributed.get_client().nthreads()):
            self.wait()
        return super().fit(stats, tol, rates)


def never():
    """Wait until the others have given up: the actor is on this worker, the first."""
    *_, talk = distributed.get_worker().state.actors.values()  # those of calls before may linger
    while not talk._left:
        time.sleep(0.01)


def die():
    os._exit(1)


def test_a_worker_that_is_late_ends_the_call(client):
    """Which are late on a busy machine is not said; that the first never comes is certain."""
    options = {"tol": 1e-2, "method": Late(never), "rates": TYPICAL, "patience": 0.5}
    with pytest.raises(
        cluster.AbandonedError, match=r"workers \[.*\] of 3 did not come within 0.5"
    ):
        cluster.attention(client, *data(), **options)


def test_a_rank_does_not_wait_for_ever_for_an_actor_that_is_gone(monkeypatch):
    asked = []

    class Gone:
        def exchange(self, *_):
            return self

        leave = exchange

        def result(self, timeout):
            asked.append(timeout)
            raise TimeoutError

    worker = SimpleNamespace(state=SimpleNamespace(nthreads=1))
    monkeypatch.setattr(distributed, "get_worker", lambda: worker)
    monkeypatch.setenv("SUBQUAD_NUM_THREADS", "1")
    output, record = meeting.member(Gone(), 0, 2, *data(), 3.0, {"tol": 1e-2, "rates": TYPICAL})
    assert output is None and isinstance(record, TimeoutError)
    assert asked == [3.0 + meeting.MARGIN, meeting.MARGIN]


def test_a_client_that_is_closed(client):
    other = distributed.Client(client.scheduler.address, set_as_default=False)
    other.close()
    with pytest.raises(ValueError, match="`client` is closed"):
        cluster.attention(other, *data(), tol=1e-2)


def test_a_call_whose_tasks_are_cancelled_ends_in_a_sentence(client, monkeypatch):
    wait = distributed.wait

    def cancelled(futures, timeout):
        client.cancel(futures)
        return wait(futures, timeout)

    monkeypatch.setattr(distributed, "wait", cancelled)
    with pytest.raises(cluster.AbandonedError) as caught:
        cluster.attention(client, *data(), tol=1e-2, rates=TYPICAL)
    assert re.fullmatch(
        r"dask dropped the tasks of this call \([\w -]+\): a worker or the scheduler was lost, or "
        r"they were cancelled\. Call again\.",
        str(caught.value),
    )


def test_a_cancellation_without_a_reason_is_a_sentence_too():
    with pytest.raises(cluster.AbandonedError, match=r"^dask dropped .* \(without a reason\): a "):
        with meeting.told():
            raise CancelledError


def test_a_meeting_gives_parts_by_rank_and_ends_for_all():
    import asyncio

    async def check():
        talk = meeting.Meeting(3, 60.0)
        parts = [np.full(2, float(rank)) for rank in range(3)]
        both = [talk.exchange(0, rank, parts[rank]) for rank in (2, 0, 1)]
        for found in await asyncio.gather(*both):
            assert np.array_equal(found, parts)
        assert not talk._parts and not talk._complete
        waiting = asyncio.ensure_future(talk.exchange(1, 0, parts[0]))
        await asyncio.sleep(0)
        await talk.leave("enough")
        for call in (waiting, talk.exchange(1, 1, parts[1]), talk.exchange(2, 2, parts[2])):
            with pytest.raises(cluster.AbandonedError, match="enough"):
                await call

    asyncio.run(check())


def test_those_that_are_late_are_named():
    import asyncio

    async def check():
        talk = meeting.Meeting(4, 0.01)
        waiting = [talk.exchange(0, rank, np.ones(1)) for rank in (3, 1)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in found] == [cluster.AbandonedError] * 2
        assert {str(x) for x in found} == {"workers [0, 2] of 4 did not come within 0.01 s."}

    asyncio.run(check())


def test_a_lost_worker_ends_the_call(monkeypatch):
    monkeypatch.setattr(client_side, "LOOK", 0.1)
    layout = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**layout) as local, distributed.Client(local) as client:
        with pytest.raises(cluster.AbandonedError, match="lost"):
            cluster.attention(client, *data(), tol=1e-2, method=Late(die), rates=TYPICAL)
