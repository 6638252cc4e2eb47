"""The planner: every method's best offer for one head, the cheapest certified one, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from subquad.cost.rates import Rates, memory_bytes
from subquad.head.centring import measuring_steps
from subquad.head.stats import Stats
from subquad.methods.method import Method, Proposal, Refusal

LONGEST = 2**48
"""Sequence length past which no crossover is looked for."""
BARRED = "may send rows to `exact`, which allow_exact=False excludes"
"""Why an offer that proves its rows only after the run is not taken without a fallback."""


class ToleranceError(ArithmeticError):
    """No allowed method can prove the tolerance; the message says how near one comes."""


@dataclass(frozen=True, eq=False)
class HeadPlan:
    """The offers for one head and the choice among them.

    Attributes
    ----------
    views : tuple of Stats
        The head in each of its Frames.
    options : tuple of Proposal or Refusal
        In the order of METHODS.
    rates : Rates
        As given, but for `overhead`, which has in it what measuring such a head costs.
    chosen : Proposal or None
        The cheapest that is certified and fits in memory; None where there is none.
    """

    views: tuple[Stats, ...]
    tol: float
    rates: Rates
    options: tuple[Proposal | Refusal, ...]
    chosen: Proposal | None
    fallback: bool = True
    """Whether an offer may send rows to the exact method."""

    def __repr__(self) -> str:
        if self.chosen is None:
            return f"HeadPlan(nothing certifies, tol {self.tol:g})"
        way = f"{self.chosen.method.name} ({self.chosen.parameters})"
        return f"HeadPlan({way}, bound {self.chosen.bound:.1e}, tol {self.tol:g})"

    @property
    def stats(self) -> Stats:
        """The Stats in the Frame of the chosen method, the first where there is none."""
        return self.views[0 if self.chosen is None else self.chosen.view]

    @property
    def parameters(self) -> Any:
        """Those of the chosen offer, of which there must be one."""
        assert self.chosen is not None
        return self.chosen.parameters

    def seconds(self, proposal: Proposal) -> float:
        """Return the predicted seconds of a proposal."""
        return self.rates.seconds(proposal.work)

    @cached_property
    def crossover(self) -> str:
        """The length at which the best other method would win at the same bounds, in words.

        Empty unless `exact` was chosen. Lengths scale queries, keys and the counts of large rows
        alike.
        """
        if self.chosen is None or not self.chosen.method.is_oracle:
            return ""
        others = [o.method for o in self.options if not o.method.is_oracle]
        if not others:
            return ""
        length = 8 * self.stats.n
        while length <= LONGEST:
            winner = self._winner(others, length)
            if winner is not None:
                return self._refined(winner, length)
            length *= 8
        return f"no other method wins at these bounds up to n = {LONGEST:.1e}"

    def _winner(self, methods: list[Method], n: int) -> Proposal | None:
        """Return the proposal that beats exact at n queries, if any."""
        assert self.chosen is not None
        exact = min(map(self.seconds, self._offers([self.chosen.method], n)), default=math.inf)
        best = min(self._offers(methods, n), key=self.seconds, default=None)
        return best if best is not None and self.seconds(best) < 0.98 * exact else None

    def _refined(self, winner: Proposal, high: int) -> str:
        low = high // 8
        while high > max(low + 1, 1.1 * low):
            middle = max(low + 1, math.isqrt(low * high))
            better = self._winner([winner.method], middle)
            if better is None:
                low = middle
            else:
                high, winner = middle, better
        memory = "" if fits(winner, self.rates) else f", holding {gib(winner)}"
        wins = f"{winner.method.name} ({winner.parameters}) would win from n = {high:,}"
        return f"{wins}, at these bounds{memory}"

    def _offers(self, methods: list[Method], n: int) -> list[Proposal]:
        views = tuple(stats.known_only().with_length(n) for stats in self.views)
        found = [o for m in dict.fromkeys(methods) for o in offers(m, views, self.tol, self.rates)]
        return [o for o in found if isinstance(o, Proposal) and o.bound <= self.tol]


def choose(
    views: tuple[Stats, ...],
    tol: float,
    methods: tuple[Method, ...],
    rates: Rates,
    *,
    fallback: bool = True,
    together: int = 1,
) -> HeadPlan:
    """Return the HeadPlan: every offer of `methods`, the cheapest certified one chosen.

    Without `fallback`, an offer that may send rows to the exact method becomes a Refusal. Methods
    are asked in the order of how long they search; what a later one may cost is told to it.
    `together` is how many heads were measured at once, 0 where `rates` have that in them.
    """

    def seconds(option: Proposal | Refusal) -> float:
        if isinstance(option, Proposal) and option.bound <= tol and fits(option, rates):
            return rates.seconds(option.work)
        return math.inf

    n, m, d = views[0].n, views[0].m, views[0].d  # measured whatever the method
    if together:
        steps = measuring_steps(n, d, together) + measuring_steps(m, d, together)
        rates = rates.beside(steps, together)
    found: list[list[Proposal | Refusal]] = [[] for _ in methods]
    budget = math.inf
    for i in sorted(range(len(methods)), key=lambda i: methods[i].search):
        found[i] = _searched(methods[i], views, tol, rates, budget)
        if not fallback:
            found[i] = [_alone(option) for option in found[i]]
        budget = min([budget, *(seconds(o) for o in found[i])])
    options = tuple(option for of_one in found for option in of_one)
    chosen = min(options, key=seconds, default=None)
    if chosen is None or not seconds(chosen) < math.inf:
        return HeadPlan(views, tol, rates, options, None, fallback)
    assert isinstance(chosen, Proposal)
    return HeadPlan(views, tol, rates, options, chosen, fallback)


def _searched(
    method: Method, views: tuple[Stats, ...], tol: float, rates: Rates, budget: float
) -> list[Proposal | Refusal]:
    """Return its offers, or that a search takes longer than the best way so far."""
    if budget - rates.overhead <= method.search:
        return [Refusal(method, "", f"not searched: the best so far takes {budget:.2g} s")]
    return offers(method, views, tol, rates, budget)


def _alone(option: Proposal | Refusal) -> Proposal | Refusal:
    """Return the offer if it needs no other method, or else the Refusal of it."""
    if isinstance(option, Refusal) or option.fallback == 0.0:
        return option
    return Refusal(option.method, str(option.parameters), BARRED)  # its bound is predicted: none


def offers(
    method: Method, views: tuple[Stats, ...], tol: float, rates: Rates, budget: float = math.inf
) -> list[Proposal | Refusal]:
    """Return the best offer of each variant of a method over the Frames of a head.

    A method that can may give up on what takes `budget` seconds or more.
    """

    def rank(offer: Proposal | Refusal) -> tuple[int, float]:
        if isinstance(offer, Proposal) and offer.bound <= tol:
            return (0 if fits(offer, rates) else 1, rates.seconds(offer.work))
        bound = offer.bound if isinstance(offer, Proposal) else offer.best_bound
        return (2, math.inf if bound is None else bound)

    limit = {"budget": budget} if method.takes_budget and budget < math.inf else {}
    by_view = [
        [
            replace(o, view=view) if isinstance(o, Proposal) else o
            for o in method.fit(stats, tol, rates, **limit)
        ]
        for view, stats in enumerate(views)
    ]
    return [min(variant, key=rank) for variant in zip(*by_view, strict=True)]


def gib(proposal: Proposal) -> str:
    """Return in words how much memory the passes need."""
    return f"{proposal.work.state_bytes / 2**30:,.0f} GiB"


def fits(proposal: Proposal, rates: Rates) -> bool:
    """Return whether the passes take at most half of the memory where they run."""
    return proposal.work.state_bytes <= (rates.memory or memory_bytes()) / 2
