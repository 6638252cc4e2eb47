"""Fleets for tests: one rank a process, each with pipes to all others."""

import multiprocessing

import numpy as np

from subquad.engine.devices import CpuFleet
from subquad.engine.fleet import Fleet

PATIENCE = 240.0
"""Seconds for what processes are asked: on a GPU they compile kernels first."""


class OneOfMany(CpuFleet):
    """One rank of several processes that make the same calls, each with its own rows."""

    speedup = Fleet.speedup

    def __init__(self, rank, links):
        super().__init__([1.0] * (len(links) + 1), [rank])
        self._links = links

    def stack(self, parts):
        (own,) = self.local
        every = {own: np.ascontiguousarray(parts[0])}
        for peer, link in sorted(self._links.items()):
            if own < peer:  # one of the two listens first
                link.send(every[own])
            every[peer] = link.recv()
            if own > peer:
                link.send(every[own])
        return [np.stack([every[rank] for rank in sorted(every)])]

    def place(self, x):
        return self.sharded([x], x[:0])


def _one(rank, links, report, function, arguments):
    try:
        report.send((function(OneOfMany(rank, links), *arguments), None))
    except BaseException as error:
        report.send((None, error))


def in_processes(ranks, function, *arguments):
    """Return [function(fleet, *arguments)] of each rank, in processes of their own."""
    context = multiprocessing.get_context("spawn")
    links = [{} for _ in range(ranks)]
    for a in range(ranks):
        for b in range(a):
            links[a][b], links[b][a] = context.Pipe()
    answers, processes = [], []
    for rank in range(ranks):
        report, theirs = context.Pipe(duplex=False)
        call = context.Process(target=_one, args=(rank, links[rank], theirs, function, arguments))
        call.start()
        theirs.close()
        answers.append(report)
        processes.append(call)
    for ends in links:  # so that a process that ends is not waited for
        for link in ends.values():
            link.close()
    try:
        # Those that wait for one another for ever have made their calls in different orders.
        if not all(report.poll(PATIENCE) for report in answers):
            msg = f"a process has not answered within {PATIENCE:g} s"
            raise TimeoutError(msg)
        found = [report.recv() for report in answers]
    finally:
        for call in processes:
            call.join(10.0)
            call.terminate()
            call.join()
            call.close()
        for report in answers:
            report.close()
    errors = [error for _, error in found if error is not None]
    if errors:
        raise errors[0]
    return [answer for answer, _ in found]
