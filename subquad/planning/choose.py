"""The planner: every method's best offer for one head, the cheapest certified one, in words."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from subquad.bounds.certificate import Term
from subquad.cost.rates import Rates
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
    def certified(self) -> dict[tuple[float, float], tuple[Term, ...]]:
        """Terms of the chosen offer on other data, by key offset and value ratio: `replay`'s."""
        return {}

    @cached_property
    def crossover(self) -> str:
        """The length at which the best other method would win at the same bounds, in words.

        Empty unless `exact` was chosen. Lengths scale queries, keys and the counts of large rows
        alike.
        """
        if self.chosen is None or self.chosen.method.name != "exact":
            return ""
        others = [o.method for o in self.options if o.method.name != "exact"]
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
        memory = "" if fits(winner, self.rates) else f", holding {_gib(winner)}"
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
    `together` is how many heads were measured at once.
    """

    def seconds(option: Proposal | Refusal) -> float:
        if isinstance(option, Proposal) and option.bound <= tol and fits(option, rates):
            return rates.seconds(option.work)
        return math.inf

    n, m, d = views[0].n, views[0].m, views[0].d  # measured whatever the method
    steps = measuring_steps(n, d, together) + measuring_steps(m, d, together)
    rates = rates.beside(steps, together)
    found: list[list[Proposal | Refusal]] = [[] for _ in methods]
    budget = math.inf
    for i in sorted(range(len(methods)), key=lambda i: _search(methods[i])):
        found[i] = _searched(methods[i], views, tol, rates, budget)
        if not fallback:
            found[i] = [_alone(option) for option in found[i]]
        budget = min([budget, *(seconds(o) for o in found[i])])
    options = tuple(option for of_one in found for option in of_one)
    chosen = min(options, key=seconds, default=None)
    if chosen is None or not seconds(chosen) < math.inf:
        return HeadPlan(views, tol, rates, options, None)
    assert isinstance(chosen, Proposal)
    return HeadPlan(views, tol, rates, options, chosen)


def _search(method: Method) -> float:
    """Return the seconds that a method's search takes, about."""
    return getattr(method, "search", 0.0)


def _searched(
    method: Method, views: tuple[Stats, ...], tol: float, rates: Rates, budget: float
) -> list[Proposal | Refusal]:
    """Return its offers, or that a search takes longer than the best way so far."""
    if budget - rates.overhead <= _search(method):
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

    limit = {"budget": budget} if budget < math.inf and _takes_budget(type(method)) else {}
    by_view = [
        [
            replace(o, view=view) if isinstance(o, Proposal) else o
            for o in method.fit(stats, tol, rates, **limit)
        ]
        for view, stats in enumerate(views)
    ]
    return [min(variant, key=rank) for variant in zip(*by_view, strict=True)]


@lru_cache
def _takes_budget(kind: type) -> bool:
    return "budget" in inspect.signature(kind.fit).parameters  # type: ignore[attr-defined]


def fits(proposal: Proposal, rates: Rates) -> bool:
    """Return whether the passes take at most half of the memory where they run."""
    return proposal.work.state_bytes <= (rates.memory or memory_bytes()) / 2


def memory_bytes() -> float:
    """Return the machine's memory in bytes, 16 GiB where it cannot be read."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 2.0**34


def refusal_message(head: HeadPlan, asked: str, where: str) -> str:
    """Return why nothing certifies: the best bound, by which method, what would have to change."""
    offers = [
        (o.bound if isinstance(o, Proposal) else o.best_bound, o.method.name) for o in head.options
    ]
    known = [(bound, name) for bound, name in offers if bound is not None and bound < math.inf]
    text = f"no allowed method proves tol={head.tol:g}{where} (asked for method={asked!r}). "
    reasons = dict.fromkeys(f"{o.method.name}: {_why(o, head.rates)}" for o in head.options)
    text += "; ".join(reasons) + ". "
    if known:
        bound, name = min(known)
        text += f"Best bound reached: {bound:.3e} by {name}; `tol` would have to be at least that. "
    if all(o.method.name != "exact" for o in head.options):
        text += "; ".join(_remedies(head)) + "."
    return text.strip()


def _remedies(head: HeadPlan) -> Iterator[str]:
    """Yield what would help where `exact` was not asked."""
    barred = [o.method.name for o in head.options if isinstance(o, Refusal) and o.reason == BARRED]
    if barred:
        names = ", ".join(dict.fromkeys(barred))
        yield f'allow_exact=True allows {names}, and with method="auto" the exact method'
    else:
        yield 'method="auto" with allow_exact=True may take the exact method'
    if len(barred) < len(head.options):
        bound = head.stats.logit_bound
        yield f"a smaller logit bound (now {bound:.3g}) would let a polynomial do"


def _why(option: Proposal | Refusal, rates: Rates) -> str:
    if isinstance(option, Refusal):
        return option.reason
    if not fits(option, rates):
        return f"certified, but the passes need {_gib(option)}"
    return f"bound {option.bound:.3e}"


def _gib(proposal: Proposal) -> str:
    return f"{proposal.work.state_bytes / 2**30:,.0f} GiB"


def table(head: HeadPlan) -> list[str]:
    """Return the plan of one head as lines: every method, parameters, bound, cost, why (not)."""
    s = head.stats
    size = f"n {s.n:,}  m {s.m:,}  d {s.d}  d_v {s.d_v}  {s.dtype}"
    logits = f"logit bound {s.logit_bound:.3g}"
    lines = [f"attention  {size}  {logits}  tol {head.tol:.1e}"]
    rows = [("method", "parameters", "bound", "flops", "seconds", "verdict")]
    for option in head.options:
        if isinstance(option, Refusal):
            best = option.best_bound
            bound = f"{best:.1e}" if best is not None and best < math.inf else "-"
            rows.append((option.method.name, option.parameters, bound, "-", "-", option.reason))
            continue
        seconds = head.seconds(option)
        sure = "certified" if option.fallback == 0.0 else "predicted, to be certified by the run"
        verdict = sure
        if option is head.chosen:
            verdict = f"{sure}, cheapest   <- chosen"
        elif not fits(option, head.rates):
            verdict = _why(option, head.rates)
        elif head.chosen is not None:
            verdict = f"{sure}, {seconds / head.seconds(head.chosen):.2g} times the cost"
        rows.append(
            (
                option.method.name,
                str(option.parameters),
                f"{option.bound:.1e}",
                f"{option.work.flops:.1e}",
                f"{seconds:.2g}",
                verdict,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[5]]).rstrip())
    if head.crossover:
        lines.append(head.crossover)
    return lines
