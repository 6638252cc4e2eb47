"""A plan on other data by the ordinary path: what the offer of each head proves, or why not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from subquad.head.problem import Head
from subquad.head.stats import Stats
from subquad.methods.method import Proposal
from subquad.planning.choose import HeadPlan, ToleranceError
from subquad.planning.run import view_of


def proved_again(planned: HeadPlan, head: Head, where: str) -> HeadPlan:
    """Return the plan of a head with what its offer proves of new data of the same shape.

    The offer is as planned, wherever that proves the tolerance; otherwise its polynomials are made
    wider, in the room that the tolerance leaves.

    Raises
    ------
    ToleranceError, ValueError
        Where neither proves the tolerance; for another number of keys.
    """
    assert planned.chosen is not None
    stats = view_of(head, planned.chosen).stats
    if stats.m != planned.stats.m:
        msg = f"the plan is for {planned.stats.m} keys, the data have {stats.m}{where}: plan again."
        raise ValueError(msg)
    offer = _offer(planned.chosen, stats, planned.tol)
    if offer.bound <= planned.tol:
        return replace(planned, chosen=offer)
    reached = f"only {offer.bound:.3e}" if offer.bound < np.inf else "nothing"
    msg = (
        f"the plan's {offer.method.name} ({planned.chosen.parameters}) proves {reached} on these "
        f"data{where}, tol is {planned.tol:g} (logit bound {stats.logit_bound:.6g}, of the plan's "
        f"data {planned.stats.logit_bound:.6g}): plan again."
    )
    raise ToleranceError(msg)


def _offer(chosen: Proposal, stats: Stats, tol: float) -> Proposal:
    """Return the offer on data with these Stats, wider where it proves nothing within `tol`."""
    method = chosen.method
    offer = replace(chosen, terms=method.certify(stats, chosen.parameters))
    if offer.bound <= tol:
        return offer
    wide = method.widened(stats, chosen.parameters)
    return replace(chosen, parameters=wide, terms=method.certify(stats, wide))
