"""Is the cost model right: each certified method's seconds against its prediction, on a grid.

Every cell is one head of `bounded(beta)`; each method that certifies is planned by name and run,
the chosen one as `auto` planned it, unless it is predicted to take over 20 s, or over ten times as
long as the one chosen. A cell whose choice is predicted to take over 20 s is left out. What leaves
every pair exact is timed on two shares of the rows where there are many, and laid on to all of them
by the line through the two: what it costs to measure the keys is not multiplied. Methods are called
in turns; those that come near the fastest go on for more turns. The seconds of a method are the
median over its turns, and the regret of a cell is the largest median, over the other methods, of
what the chosen one took over what the other did in the same turn: a host whose pace changes from
one second to the next slows both alike.

Rates are measured once, in under 0.3 s, and a host's pace changes: a loop of plain Python has been
seen to take from 8 to 18 ms within 16 s with nothing beside it. So of the predictions two shares
are given: those within a factor of 1.5 of the measured seconds, and those within it once all are
divided by `pace`, the median of predicted over measured, which is what the host was slower by
while the rates were measured.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import subquad
from subquad.cost import cpu_rates
from subquad.methods.method import Proposal

from ..harness import instances
from ..harness.kept import Kept
from ..harness.store import Experiment
from ..harness.timing import features_by
from ..report import cost_model_tables
from ..report.cost_model_tables import HEADER as HEADER
from ..report.cost_model_tables import NEAR, SAME, tally
from ..report.cost_model_tables import table_rows as table_rows
from ..report.writing import tolerance

QUESTION = "Does the plan predict the seconds of each method, and pick the fastest?"
SEED = 0
LENGTHS = (1024, 4096, 16_384, 65_536, 262_144)
DIMENSIONS, BETAS = (8, 16, 32, 64), (0.2, 0.5, 1, 2)
LONGEST, HOPELESS = 20.0, 10.0
"""Seconds predicted above which nothing is run; and times the chosen one's."""
SHARES = (1024, 4096)
"""Rows on which exact pairs are timed, where there are over four times as many."""
CLOSE, TURNS = 1.3, 25
"""Times the fastest up to which a method is called again, and most turns."""
SURE, SURE_TURNS = 2.0, 5
"""The same for the first turns: the median of a few may be off."""
LEAST_TURNS = ((8, 3.0), (3, 12.0))
"""At least so many turns before so many seconds of a cell end them; the first warms up."""


def experiment(
    quick: bool = False,
    *,
    lengths: tuple[int, ...] | None = None,
    dimensions: tuple[int, ...] = DIMENSIONS,
    betas: tuple[float, ...] = BETAS,
    tol: float = 1e-2,
    turns: int = TURNS,
) -> Experiment:
    """Return the experiment: one row per cell of the grid."""
    lengths = lengths or (LENGTHS[:3] if quick else LENGTHS)
    cases = {
        f"n = {n}, d = {d}, B = {beta}": partial(_row, n, d, beta, tol, turns)
        for n in lengths
        for d in dimensions
        for beta in betas
    }
    settings = {
        "seed": SEED,
        "dtype": "float32",
        "tol": tol,
        "lengths": lengths,
        "turns": turns,
        "dimensions": dimensions,
        "betas": betas,
        "longest": LONGEST,
        "hopeless": HOPELESS,
        "shares": SHARES,
        "close": CLOSE,
        "same": SAME,
        "near": NEAR,
        "features by": features_by(),
        "oracle": "none: times alone",
    }
    return Experiment("cost_model", QUESTION, settings, cases, derived)


@dataclass
class _Way:
    """One method on one head: a call for each share of the rows, all of them where it is one."""

    n: int
    rows: tuple[int, ...]
    calls: list[Callable[[], Any]]
    taken: dict[int, float] = field(default_factory=dict)

    def run(self, turn: int) -> None:
        """Take a turn."""
        seconds = []
        for call in self.calls:
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        self.note(turn, seconds)

    def note(self, turn: int, seconds: list[float]) -> None:
        """Note the seconds of n rows, given those of each share."""
        self.taken[turn] = seconds[-1]
        if len(self.rows) > 1:
            (few, many), (short, long) = self.rows, seconds
            self.taken[turn] += (self.n - many) * (long - short) / (many - few)

    @property
    def times(self) -> dict[int, float]:
        """The seconds by turn, without that to warm up where there is another."""
        return {k: x for k, x in self.taken.items() if k > 0} or self.taken

    @property
    def seconds(self) -> float:
        """The median seconds."""
        return statistics.median(self.times.values())


def _row(n: int, d: int, beta: float, tol: float, turns: int, rates) -> dict:
    """Return predicted and measured seconds of every certified method on one head."""
    Q, K, V, scale = instances.bounded(n, d, beta=beta, seed=SEED, dtype=np.float32)
    options = {"tol": tol, "scale": scale, "rates": rates}
    start = time.perf_counter()
    plan = subquad.plan(Q, K, V, **options)
    planning, head = time.perf_counter() - start, plan.heads[0]
    assert head.chosen is not None
    chosen = head.chosen.method.name
    plans = {
        name: made
        for name in subquad.METHODS
        if (made := plan if name == chosen else _by_name(name, Q, K, V, options))
    }
    predicted = {name: _predicted(made) for name, made in plans.items()}
    limit = min(LONGEST, HOPELESS * predicted[chosen])
    ways = {
        name: _way(made, Q, K, V, options)
        for name, made in plans.items()
        if predicted[chosen] <= LONGEST and predicted[name] <= limit
    }
    _take_turns(ways, turns)
    return {
        "n": n,
        "d": d,
        "beta": beta,
        "chosen": chosen,
        "predicted": predicted,
        "parameters": {name: str(_offer(made).parameters) for name, made in plans.items()},
        "seconds": {name: way.seconds for name, way in ways.items()},
        "turns": {name: len(way.times) for name, way in ways.items()},
        "planning": planning,
        "regret": _regret(ways, chosen) if ways else None,
    }


def _regret(ways: dict[str, _Way], chosen: str) -> float:
    """Return the most that the chosen way took over another in the same turns, in the median."""
    ours = ways[chosen].times
    return max(
        statistics.median(ours[turn] / x for turn, x in way.times.items() if turn in ours)
        for way in ways.values()
        if way.times.keys() & ours.keys()
    )


def _by_name(name: str, Q, K, V, options: dict) -> subquad.Plan | None:
    """Return the plan of one method, None where it cannot certify."""
    made = subquad.plan(Q, K, V, method=name, **options)
    return None if made.heads[0].chosen is None else made


def _predicted(made: subquad.Plan) -> float:
    """Return the seconds that a plan predicts for its only head."""
    return made.heads[0].seconds(_offer(made))


def _offer(made: subquad.Plan) -> Proposal:
    offer = made.heads[0].chosen
    assert offer is not None
    return offer


def _way(made: subquad.Plan, Q, K, V, options: dict) -> _Way:
    """Return the calls that time a plan, on shares of the rows where every pair is exact."""
    offer = _offer(made)
    if offer.work.feature_tokens == 0.0 and len(Q) > 4 * SHARES[-1]:
        some = [
            (Q[:rows], p)
            for rows in SHARES
            if (p := _by_name(offer.method.name, Q[:rows], K, V, options))
            and _offer(p).work.feature_tokens == 0.0
        ]
        if len(some) == len(SHARES):
            return _Way(len(Q), SHARES, [partial(p.run, rows, K, V) for rows, p in some])
    return _Way(len(Q), (len(Q),), [partial(made.run, Q, K, V)])


def _take_turns(ways: dict[str, _Way], turns: int) -> None:
    """Call all once to warm up and once more, those that come near the fastest for more turns.

    What takes over a second, and is not near, is called once.
    """
    start, order = time.perf_counter(), list(ways.values())
    for turn in range(turns + 1 if ways else 0):
        spent = time.perf_counter() - start
        if any(turn >= least and spent > seconds for least, seconds in LEAST_TURNS):
            return
        best = min((way.seconds for way in order if way.taken), default=math.inf)
        close = SURE if turn < SURE_TURNS else CLOSE
        near = [
            way
            for way in order
            if not way.taken or way.seconds <= close * best or turn == 1 and way.seconds < 1.0
        ]
        for way in near[turn % len(near) :] + near[: turn % len(near)]:
            way.run(turn)


def derived(rows: list[dict]) -> dict:
    """Return the `tally`, and the seconds that a calibration takes on this host."""
    start = time.perf_counter()
    cpu_rates.measured()
    return {**tally(rows), "calibration": time.perf_counter() - start}


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"A grid of {len(record['rows'])} cells: n = {min(s['lengths']):,} to "
        f"{max(s['lengths']):,}, d = {', '.join(map(str, s['dimensions']))}, logit bounds "
        f"{', '.join(map(str, s['betas']))}, tol {tolerance(s['tol'])}."
    )


FINDINGS = cost_model_tables.findings
KEPT = Kept(120, "What the plan predicts", ("speed_charts.cost_model",), about)
