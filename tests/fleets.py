"""Fleets for tests: one rank a process, each with pipes to all others."""

import multiprocessing
from functools import partial

from subquad.engine.shards.fleets import ProcessFleet

PATIENCE = 240.0
"""Seconds for what processes are asked: on a GPU they compile kernels first."""


def gathered(rank, links, part):
    """Return the parts of all ranks, by rank, over pipes to the others."""
    every = {rank: part}
    for peer, link in sorted(links.items()):
        if rank < peer:  # one of the two listens first
            link.send(part)
        every[peer] = link.recv()
        if rank > peer:
            link.send(part)
    return [every[rank] for rank in sorted(every)]


def _one(rank, links, report, function, arguments):
    try:
        fleet = ProcessFleet(rank, len(links) + 1, partial(gathered, rank, links))
        report.send((function(fleet, *arguments), None))
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
