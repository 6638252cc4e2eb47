"""attention() by the workers of a dask cluster: rows stay where they are, sums travel.

Every worker is one rank of a `ProcessFleet` and makes the calls of `subquad.attention` with its own
rows. What the ranks exchange (measures of rows, States, large rows) goes through one of the
workers, where an actor answers once all have spoken. So bounds, refusals and plans are those of any
fleet, and the bits those of `devices=["cpu", ...]` with as many shards.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from subquad.arrays.arguments import check_real, refuse_options
from subquad.attention import attention as whole
from subquad.bounds.certificate import Certificate
from subquad.cluster.meeting import AbandonedError, Meeting, member, told
from subquad.engine.shards.fleets import ProcessFleet
from subquad.head.inputs import check_shapes
from subquad.head.sides import NotFiniteError
from subquad.planning.plan import Plan, Result

__all__ = ["AbandonedError", "ProcessFleet", "attention"]

PATIENCE = 600.0
"""Seconds for which a worker waits for the others, by default."""
LOOK = 2.0
"""Seconds after which the client looks whether all workers are still there."""
TAKEN = tuple(
    name
    for name, option in inspect.signature(whole).parameters.items()
    if option.kind is option.KEYWORD_ONLY and name not in ("devices", "key_mask")
)
CONSEQUENCES = (AbandonedError, NotFiniteError)
"""What a rank raises where another has raised, or will raise, something that says more."""


def attention(
    client: Any, Q: Any, K: Any, V: Any, /, *, tol: float, patience: float = PATIENCE, **options
) -> Result:
    """Return the Result of `subquad.attention`, computed by the workers of a dask cluster.

    Parameters
    ----------
    client : distributed.Client
        Not an asynchronous one. Each worker takes part with one of its threads, in which ours
        run: SUBQUAD_NUM_THREADS of its environment, or as many as the worker has. Rows are
        divided evenly over the workers there are.
    Q, K, V : dask or NumPy array (..., n, d), (..., m, d), (..., m, d_v)
        All of one kind. A worker holds its own rows, and what is exchanged: States, large rows,
        norms of all rows, and for `exact` all keys and values.
    tol : float
        In (0, 2], in units of value_radius.
    patience : float, optional
        Seconds for which a worker that has begun waits for the others before all give up; after an
        interrupt, or where the first worker is lost, some may keep their thread for so long.
    **options
        As for `subquad.attention`, without `devices` and `key_mask`.

    Returns
    -------
    Result
        `.output` of the kind of Q, a dask array being held by the workers, one block each;
        `.certificate` of all rows; `.plan`, to be printed, or run on NumPy arrays.

    Raises
    ------
    ImportError
        Without the extra `cluster`.
    ToleranceError, TypeError, ValueError
        As by `subquad.attention`.
    AbandonedError
        If a worker is lost or late.

    Notes
    -----
    Predicted seconds are without the network. Of several calls on one cluster, one runs at a time:
    ranks that wait for one another must not wait for a thread. For the same reason a task that
    calls this uses `distributed.worker_client`. SUBQUAD_NUM_THREADS stays set on the workers.
    """
    import distributed

    refuse_options(options, (*TAKEN, "patience"))
    if not isinstance(client, distributed.Client) or client.asynchronous:
        msg = f"`client` is {client!r}; pass a distributed.Client that is not asynchronous."
        raise TypeError(msg)
    if client.status != "running":
        msg = f"`client` is {client.status}; pass one that is connected."
        raise ValueError(msg)
    on_host = _on_host(Q, K, V)
    check_shapes(Q, K, V)
    if not 0.0 < check_real("patience", patience) < np.inf:
        msg = f"`patience` is {patience!r}; it must be positive and finite, in seconds."
        raise ValueError(msg)
    addresses = sorted(client.nthreads())[: min(Q.shape[-2], K.shape[-2])]
    if not addresses:
        msg = "`client` has no workers; start some, or client.wait_for_workers(1)."
        raise ValueError(msg)
    options = {"tol": tol, **options}
    with client.as_current(), distributed.Lock("subquad.cluster"):
        ranks = _started(client, addresses, (Q, K, V), float(patience), options)
        with told():
            certificates, plans = zip(*_records(client, ranks), strict=True)
    outputs = [client.submit(operator.itemgetter(0), rank, pure=False) for rank in ranks]
    with told():
        output = (
            np.concatenate(client.gather(outputs), axis=-2)
            if on_host
            else _as_dask(client, outputs, Q.dtype)
        )
    return Result(output, _together(certificates), plans[0])


def _on_host(*arrays: Any) -> bool:
    """Return whether the arrays are NumPy's; TypeError unless that or dask's, of known shape."""
    import dask.array

    if all(type(x) is np.ndarray for x in arrays):  # a subclass may mean more: a mask, say
        return True
    if not all(isinstance(x, dask.array.Array) for x in arrays):
        kinds = ", ".join(f"{type(x).__module__}.{type(x).__name__}" for x in arrays)
        msg = f"`Q`, `K`, `V` are {kinds}; pass three dask arrays or three NumPy arrays."
        raise TypeError(msg)
    for name, x in zip("QKV", arrays, strict=True):
        if np.isnan(np.array(x.shape, dtype=float)).any():
            msg = f"`{name}` has chunks of unknown lengths; call its compute_chunk_sizes() before."
            raise ValueError(msg)
    return False


def _as_dask(client: Any, outputs: list[Any], dtype: Any) -> Any:
    """Return the outputs, futures on the workers, as one dask array."""
    import dask
    import dask.array

    shapes = client.gather([client.submit(np.shape, x, pure=False) for x in outputs])
    return dask.array.concatenate(
        [
            dask.array.from_delayed(dask.delayed(future), shape, dtype)
            for future, shape in zip(outputs, shapes, strict=True)
        ],
        axis=-2,
    )


def _started(
    client: Any,
    addresses: list[str],
    arrays: Sequence[Any],
    patience: float,
    options: dict[str, Any],
) -> list[Any]:
    """Return the futures of (output, Record) of each rank, ended, each on its worker."""
    import distributed

    count = len(addresses)
    held = [[_held(client, x, rank, addresses) for x in arrays] for rank in range(count)]
    # A rank that runs waits for the others: it must not keep a thread that their rows need.
    rows = [x for own in held for x in own]
    _wait(client, rows, addresses)
    if failed := [x for x in rows if x.status == "error"]:
        error = failed[0].exception()
        for x in rows:  # or the traceback of this very error would keep them
            x.release()
        raise error
    here = [{"workers": [address], "allow_other_workers": False} for address in addresses]
    future = client.submit(Meeting, count, patience, actor=True, pure=False, **here[0])
    meeting = future.result()
    ranks = [
        client.submit(
            member, meeting, rank, count, *own, patience, options, pure=False, **here[rank]
        )
        for rank, own in enumerate(held)
    ]
    try:
        _wait(client, ranks, addresses)
    except BaseException as error:  # an interrupt as well: ranks that wait are told
        with suppress(Exception):  # which must not hide this error
            if addresses[0] in client.nthreads():
                meeting.leave(f"the call ended: {error!r}").result(timeout=LOOK)
                distributed.wait(ranks, timeout=LOOK)
        raise
    for rank in ranks:  # what attention raises they return
        if rank.status != "finished":
            lost = rank.exception()
            msg = f"a worker was lost: {lost or rank.status}"
            raise AbandonedError(msg) from lost
    return ranks


def _wait(client: Any, futures: list[Any], addresses: list[str]) -> None:
    """Return once all have ended; AbandonedError as soon as a worker is gone.

    What is to run there and nowhere else would wait for its address for ever.
    """
    import distributed

    while True:
        try:
            with told():
                distributed.wait(futures, timeout=LOOK)
            return
        except TimeoutError:
            gone = [address for address in addresses if address not in client.nthreads()]
            if gone:
                msg = f"lost {len(gone)} of {len(addresses)} workers: {', '.join(gone)}."
                raise AbandonedError(msg) from None


def _held(client: Any, x: Any, rank: int, addresses: list[str]) -> Any:
    """Return a future of a rank's rows of x on its worker; cut as `Fleet.place` cuts."""
    ends = np.rint(np.array([rank, rank + 1]) / len(addresses) * x.shape[-2]).astype(int)
    rows, address = x[..., slice(*ends), :], [addresses[rank]]
    if isinstance(x, np.ndarray):
        return client.scatter(np.ascontiguousarray(rows), workers=address, hash=False)
    return client.compute(rows, workers=address, allow_other_workers=False)


def _records(client: Any, ranks: list[Any]) -> list[tuple[Certificate, Plan]]:
    """Return (certificate, plan) of each rank; raise what a rank raised on its own account."""
    seconds = [client.submit(operator.itemgetter(1), rank, pure=False) for rank in ranks]
    found: list[Any] = client.gather(seconds)
    errors = [record for record in found if isinstance(record, Exception)]
    if errors:
        raise min(errors, key=lambda error: [isinstance(error, kind) for kind in CONSEQUENCES])
    return found


def _together(certificates: Sequence[Certificate]) -> Certificate:
    """Return the Certificate of the rows of all ranks, in order."""
    join = partial(np.concatenate, axis=-1)
    terms = tuple(
        replace(column[0], value=join([term.value for term in column]))
        for column in zip(*(own.terms for own in certificates), strict=True)
    )
    bounds = join([own.row_bounds for own in certificates])
    return replace(certificates[0], terms=terms, row_bounds=bounds)
