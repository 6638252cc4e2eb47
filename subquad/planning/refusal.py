"""Why nothing certifies a tolerance, in words: what methods lack, and a tolerance that would do.

A tolerance is named only after the methods were asked for it again: what is named is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import ROUND_CEILING, Context

from subquad.methods.method import Proposal, Refusal
from subquad.planning.choose import BARRED, HeadPlan, choose
from subquad.planning.words import shortage

ATTEMPTS = 8
"""How often methods are asked for a larger tolerance before none is named."""
LARGEST_TOL = 2.0


def refusal_message(heads: Sequence[HeadPlan], index: int, asked: str, where: str) -> str:
    """Return why nothing is chosen for a head, and what would have to change.

    The tolerance named is one for all `heads`; none is where none was found.
    """
    head = heads[index]
    text = f"{_refused(head, where)} (asked for method={asked!r}). "
    reasons = dict.fromkeys(f"{o.method.name}: {_why(o, head)}" for o in head.options)
    text += "; ".join(reasons) + ". "
    found = _accepted(heads)
    if found is not None:
        tol, name = found
        text += f"Best bound reached: {tol:.3e} by {name}; `tol` would have to be at least that. "
    if not any(o.method.is_oracle for o in head.options):
        text += "; ".join(_remedies(head)) + "."
    return text.strip()


def _refused(head: HeadPlan, where: str) -> str:
    """Return what is refused: a proof, or memory for what is proved."""
    if _lacks_memory(head):
        return f"no allowed method that proves tol={head.tol:g}{where} fits in memory"
    return f"no allowed method proves tol={head.tol:g}{where}"


def _lacks_memory(head: HeadPlan) -> bool:
    """Return whether an offer for a head without a choice is certified: then it does not fit."""
    return any(isinstance(o, Proposal) and o.bound <= head.tol for o in head.options)


def _why(option: Proposal | Refusal, head: HeadPlan) -> str:
    if isinstance(option, Refusal):
        return option.reason
    return shortage(option, head.rates) if option.bound <= head.tol else f"bound {option.bound:.3e}"


def _remedies(head: HeadPlan) -> Iterator[str]:
    """Yield what would help where `exact` was not asked."""
    barred = [o.method.name for o in head.options if isinstance(o, Refusal) and o.reason == BARRED]
    if barred:
        names = ", ".join(dict.fromkeys(barred))
        yield f'allow_exact=True allows {names}, and with method="auto" the exact method'
    else:
        yield 'method="auto" with allow_exact=True may take the exact method'
    if _lacks_memory(head):
        yield "a larger `tol` needs a lower degree, and so less memory"
    elif len(barred) < len(head.options):
        bound = head.stats.logit_bound
        yield f"a smaller logit bound (now {bound:.3g}) would let a polynomial do"


def _accepted(heads: Sequence[HeadPlan]) -> tuple[float, str] | None:
    """Return a tolerance at which every head has a choice, and the method that needs so much.

    None where none of at most `LARGEST_TOL` was found. Those with a choice keep it at a larger one.
    """
    left = [head for head in heads if head.chosen is None]
    for _ in range(ATTEMPTS):
        nearest = [_nearest(head) for head in left]
        bound, name = max(nearest)
        tol = rounded_up(bound)
        if not tol <= LARGEST_TOL:
            return None
        left = [head for head in (_at(tol, head) for head in left) if head.chosen is None]
        if not left:
            return tol, name
    return None


def _nearest(head: HeadPlan) -> tuple[float, str]:
    """Return the least bound above the tolerance that a method has for a head, and its name."""
    bounds = (
        (o.bound if isinstance(o, Proposal) else o.best_bound, o.method.name) for o in head.options
    )
    above = ((b, name) for b, name in bounds if b is not None and head.tol < b < math.inf)
    return min(above, default=(math.inf, ""))


def _at(tol: float, head: HeadPlan) -> HeadPlan:
    """Return the plan of a head at another tolerance, by the same methods."""
    methods = tuple(dict.fromkeys(option.method for option in head.options))
    return choose(head.views, tol, methods, head.rates, fallback=head.fallback, together=0)


def rounded_up(bound: float) -> float:
    """Return the least number of four digits that is no less than a positive bound."""
    nearest = float(f"{bound:.3e}")
    if nearest >= bound:
        return nearest
    return float(Context(prec=4, rounding=ROUND_CEILING).create_decimal_from_float(bound))
