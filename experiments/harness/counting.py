"""Costs by the count of operations: the same on every machine, whatever its clock says."""

from __future__ import annotations

import math
from collections.abc import Iterable

from subquad import METHODS, Rates, Speed
from subquad.head.stats import Stats
from subquad.methods.exact import ExactParameters
from subquad.methods.method import COMPUTE_DTYPES, Method, Proposal
from subquad.planning.choose import offers


def count_rates(d_v: int) -> Rates:
    """Return Rates under which the predicted seconds are `Work.flops`, for heads of d_v values.

    Both dtypes cost the same; preparation, merges and calls are free, as they are in the count.
    """
    columns = -(-(d_v + 1) // 8) * 8  # Rates counts the padded columns, `flops` the true ones
    speed = Speed(
        exact_flops=1.0,
        pairs=1.0 / 20.0,
        polynomial_flops=columns / (d_v + 1),
        features=1.0,
        elements=math.inf,
    )
    return Rates(speed, speed, overhead=0.0)


def cheapest(
    methods: Iterable[Method],
    views: Iterable[Stats],
    n: int,
    tol: float,
    rates: Rates | None = None,
) -> tuple[Proposal | None, float]:
    """Return the cheapest certified offer, rows replicated to n, and its gain over exact.

    The gain is the cost of `exact`, in the dtype that costs less, over that of the offer: by count
    where no rates are given; 1 where nothing is offered.
    """
    stats = tuple(view.with_length(n) for view in views)
    rates = count_rates(stats[0].d_v) if rates is None else rates
    found = [
        offer
        for method in methods
        for offer in offers(method, stats, tol, rates)
        if isinstance(offer, Proposal) and offer.bound <= tol
    ]
    best = min(found, key=lambda offer: rates.seconds(offer.work), default=None)
    if best is None:
        return None, 1.0
    exact = [METHODS["exact"].work(stats[0], ExactParameters(dtype)) for dtype in COMPUTE_DTYPES]
    return best, min(map(rates.seconds, exact)) / rates.seconds(best.work)
