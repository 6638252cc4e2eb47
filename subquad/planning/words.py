"""A plan in words: the table of one head, a line a head, a line for all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from subquad.cost.rates import Rates
from subquad.engine import OPERANDS
from subquad.methods.method import Proposal, Refusal
from subquad.planning import choose
from subquad.planning.choose import HeadPlan, fits


def shortage(option: Proposal, rates: Rates) -> str:
    """Return how much memory the passes of a certified offer need, and how much they may take."""
    allowed = (rates.memory or choose.memory_bytes()) / 2
    return (
        f"certified, but the passes need {_size(option.work.state_bytes)} and may take "
        f"{_size(allowed)}, half of the memory where they run"
    )


def _size(count: float) -> str:
    """Return a number of bytes in words."""
    for unit, step in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= step:
            return f"{count / step:,.2f} {unit}"
    return f"{count:.0f} bytes"


def table(head: HeadPlan) -> list[str]:
    """Return the plan of one head as lines: every method, parameters, bound, cost, why (not)."""
    s = head.stats
    size = f"n {s.n:,}  m {s.m:,}  d {s.d}  d_v {s.d_v}  {s.dtype}"
    logits = f"logit bound {s.logit_bound:.3g}"
    lines = [f"attention  {size}  {logits}  tol {head.tol:.1e}"]
    rows: list[tuple[str, ...]] = [("method", "parameters", "bound", "flops", "seconds", "verdict")]
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
            verdict = shortage(option, head.rates)
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
    lines += in_columns(rows)
    if head.crossover:
        lines.append(head.crossover)
    return lines


def in_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows of cells as lines, all columns but the last as wide as their widest cell."""
    last = len(rows[0]) - 1
    widths = [max(len(row[i]) for row in rows) for i in range(last)]
    return [
        "  ".join([*(row[i].ljust(widths[i]) for i in range(last)), row[last]]).rstrip()
        for row in rows
    ]


def head_rows(heads: Sequence[HeadPlan], places: Sequence[str]) -> str:
    """Return one line a head under a heading: place, logit bound, method, bound, crossover."""
    rows = [("head", "logit bound", "method", "bound", "crossover")]
    for head, where in zip(heads, places, strict=True):
        bound = "-" if head.chosen is None else f"{head.chosen.bound:.1e}"
        logits = f"{head.stats.logit_bound:.3g}"
        rows.append((where, logits, choice_of(head), bound, head.crossover or "-"))
    return "\n".join(in_columns(rows))


def in_short(heads: Sequence[HeadPlan]) -> str:
    """Return a line: the heads by their methods, the largest bound, tol, seconds of all."""
    names = Counter("nothing" if h.chosen is None else h.chosen.method.name for h in heads)
    counts = [f"{count} head{'s' if count > 1 else ''} by {name}" for name, count in names.items()]
    chosen = [(head, head.chosen) for head in heads if head.chosen is not None]
    bound = max((offer.bound for _, offer in chosen), default=math.inf)
    seconds = sum(head.seconds(offer) for head, offer in chosen)
    return (
        f"{', '.join(counts)}; bound {bound:.1e}, tol {heads[0].tol:g}, {seconds:.2g} s predicted"
    )


def choice_of(head: HeadPlan) -> str:
    """Return the method of a head and its parameters."""
    if head.chosen is None:
        return "nothing certifies"
    return f"{head.chosen.method.name} ({head.chosen.parameters})"


def rates_line(rates: Rates) -> str:
    """Return the rates that costs were predicted with."""
    f, g = rates.float32, rates.float64
    fused = [
        f"{name} {speed.polynomial_flops:.1e}"
        for name in OPERANDS
        if (speed := getattr(rates, name)) is not None
    ]
    more = f"; fused passes {', '.join(fused)} flop/s" if fused else ""
    return (
        f"rates (float32 / float64): exact {f.exact_flops:.1e} / {g.exact_flops:.1e} flop/s, "
        f"{f.pairs:.1e} / {g.pairs:.1e} pairs/s; polynomial {f.polynomial_flops:.1e} / "
        f"{g.polynomial_flops:.1e} flop/s, {f.features:.1e} / {g.features:.1e} features/s" + more
    )
