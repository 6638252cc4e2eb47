"""Real heads: at which length and tolerance is a certified method cheaper than exact, and why not.

Every head of a sentence encoder (all 72 where its weights are installed, see `capture`, else the 12
shipped) at three tolerances. The head is planned as if its rows were replicated to n = 4,096,
65,536 and 1,048,576: the same bounds, longer. Exact over its cost by the count of operations, and
in seconds at fixed rates, so that no clock decides. The method that is cheapest at the longest is
also run on the head as it is: bound, measured error, the null models in the same unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from subquad import METHODS, TYPICAL, Rates
from subquad.bounds.softmax import ratio_bound_inverse
from subquad.exp_poly import minimal_degree
from subquad.head.problem import Head, Problem
from subquad.head.stats import Stats
from subquad.methods.fitted.choice import predicted
from subquad.methods.method import Proposal
from subquad.methods.polynomial.sums import LOGIT_BOUND_MAX

from ..harness import capture, instances
from ..harness.counting import cheapest
from ..harness.forced import bounds_and_errors
from ..harness.kept import Kept
from ..harness.measure import null_errors, oracle
from ..harness.store import Experiment
from ..report import method_findings
from ..report.verdict_tables import HEADER as HEADER
from ..report.verdict_tables import SUMMARY_HEADER, WIN, same_head, summary_rows, tally
from ..report.verdict_tables import beside as beside
from ..report.verdict_tables import table_rows as table_rows

QUESTION = "On which real heads does a certified method cost less than exact, and what limits it?"
TOLS = (1e-1, 3e-2, 1e-2)
LENGTHS = (4096, 65_536, 1_048_576)
DEGREES = (2, 4, 6)


def experiment(
    quick: bool = False,
    *,
    heads: dict[str, Callable[[], instances.Instance]] | None = None,
    tols: tuple[float, ...] = TOLS,
    lengths: tuple[int, ...] = LENGTHS,
) -> Experiment:
    """Return the experiment: one row per head and tolerance."""
    if heads is not None:
        chosen, which = heads, "as given"
    else:
        chosen, which = _some(shipped()) if quick else every_head()
    cases = {}
    for name, make in chosen.items():
        shared = cache(partial(_shared, make))
        for tol in tols:
            cases[f"{name} at {tol:g}"] = partial(_row, name, shared, tol, lengths)
    settings = {
        "seed": None,
        "dtype": "float32",
        "tols": tols,
        "lengths": lengths,
        "heads": len(chosen),
        "which heads": which,
        "a win": f"{WIN:g} times cheaper than exact",
        "lengthened by": "rows replicated: the same bounds and shares, n queries and n keys",
        "oracle": "float64 NumPy softmax, all rows, at the head's own length",
    }
    return Experiment("verdict", QUESTION, settings, cases, tally, rates=TYPICAL)


def shipped() -> dict[str, Callable[[], instances.Instance]]:
    """Return name -> a function that reads the shipped head."""
    return {name: partial(instances.real, name) for name in instances.real_names()}


def _some(heads: dict[str, Callable]) -> tuple[dict[str, Callable], str]:
    few = list(heads)[::3]
    return {name: heads[name] for name in few}, f"{len(few)} of the {len(heads)} shipped"


def every_head() -> tuple[dict[str, Callable[[], instances.Instance]], str]:
    """Return all heads of the encoder, and which these are; the shipped ones if it is absent."""
    try:
        heads = capture.all_heads()
    except ModuleNotFoundError:
        return shipped(), "the 12 shipped: the encoder is not installed"
    return {
        f"minilm-l{layer}-h{head}": partial(_captured, heads[layer, :, head])
        for layer, head in np.ndindex(heads.shape[0], heads.shape[2])
    }, "all of the encoder"


def _captured(parts: np.ndarray) -> instances.Instance:
    Q, K, V = parts.astype(np.float32)
    return Q, K, V, 1.0 / np.sqrt(Q.shape[1]).item()


@dataclass(frozen=True)
class _Shared:
    views: tuple[Head, ...]
    exact: np.ndarray
    null: dict


def _shared(make: Callable[[], instances.Instance]) -> _Shared:
    Q, K, V, scale = make()
    exact = oracle(Q, K, V, scale)
    views = Problem(Q, K, V, scale=scale).heads[0].views
    return _Shared(views, exact, null_errors(Q, K, V, scale, exact))


def _row(
    name: str, shared: Callable[[], _Shared], tol: float, lengths: tuple[int, ...], rates: Rates
) -> dict:
    """Return the cheapest method at each length, by count and by rates, and a run of the last."""
    head = shared()
    stats = tuple(view.stats for view in head.views)
    by_count = {n: _cheapest(stats, n, tol) for n in lengths}
    by_rates = {n: _cheapest(stats, n, tol, rates) for n in lengths}
    best = by_count[lengths[-1]][0]
    return {
        "head": name,
        "tol": tol,
        "n": stats[0].n,
        "d": stats[0].d,
        "logit_bound": min(s.logit_bound for s in stats),
        "largest_logit": min(map(_largest_logit, head.views)),
        "by_count": {str(n): _entry(*found, n) for n, found in by_count.items()},
        "by_rates": {str(n): _entry(*found, n) for n, found in by_rates.items()},
        "limits": _limits(min(stats, key=lambda s: s.logit_bound), tol),
        "run": _run(head, best, tol, lengths[-1]),
        **head.null,
    }


def _cheapest(
    stats: tuple[Stats, ...], n: int, tol: float, rates: Rates | None = None
) -> tuple[Proposal, float]:
    best, gain = cheapest(METHODS.values(), stats, n, tol, rates)
    assert best is not None, "exact certifies every tolerance asked for here"
    return best, gain


def _entry(best: Proposal, gain: float, n: int) -> dict:
    return {
        "method": best.method.name,
        "parameters": str(best.parameters),
        "gain": gain,
        "exact_pairs": (best.work.pairs + best.work.wide_pairs) / float(n) ** 2,
    }


def _largest_logit(view: Head) -> float:
    """Return the largest |logit| about the centres that occurs: no bound can be below it."""
    frame = view.frame
    return float(np.abs(frame.queries(view.Q, "float64") @ frame.keys(view.K, "float64").T).max())


def _limits(stats: Stats, tol: float) -> dict:
    """Return what one polynomial would need, and the rows that fitted ones leave to exact."""
    known = stats.logit_bound <= LOGIT_BOUND_MAX
    degree = minimal_degree(stats.logit_bound, ratio_bound_inverse(tol)).degree if known else None
    shares = {}
    for g in DEGREES:
        offered = list(predicted(stats, g, tol))
        shares[str(g)] = min((p.exact_share for p in offered), default=1.0)
    return {"degree": degree, "exact_share": shares}


def share_exact(best: Proposal, n: int) -> float:
    """Return the share of n rows that a plan attends to exactly, before any bound is known."""
    p = best.parameters
    if best.work.feature_tokens == 0.0:
        return 1.0
    if hasattr(p, "large_queries"):
        return p.large_queries / n
    return min((bucket.exact_rows for bucket in getattr(p, "buckets", ())), default=0) / n


def _run(head: _Shared, best: Proposal, tol: float, n: int) -> dict:
    """Return bound and measured error of a plan for n rows on the head at its own length.

    `rows_exact` is the share of rows computed exactly: those that the plan divides off, and those
    whose bound exceeds tol, which it sends to exact afterwards and which bound and error leave out.
    """
    view = head.views[best.view]
    bounds, errors = bounds_and_errors(
        view, best.method, best.parameters, best.work.dtype, head.exact
    )
    kept = bounds <= tol
    blank = {
        "method": best.method.name,
        "rows_exact": share_exact(best, n) + float(1.0 - kept.mean()),
    }
    if not kept.any():
        return {**blank, "bound": None, "measured": None, "ratio": None, "sound": True}
    bound, measured = float(bounds[kept].max()), float(errors[kept].max())
    return {
        **blank,
        "bound": bound,
        "measured": measured,
        "ratio": bound / measured if measured > 0.0 else None,
        "sound": bool(np.all(errors[kept] <= bounds[kept])),
    }


def same_case(key: str) -> str:
    """Return a row's key without why the head was shipped: all 72 heads have no such word."""
    head, at, tol = key.partition(" at ")
    return same_head(head) + at + tol


def about(record: dict) -> str:
    """Return the sizes in words."""
    s = record["settings"]
    return (
        f"{s['heads']} heads ({s['which heads']}), planned as if their rows were replicated to "
        "length n. By count of operations, and by seconds at fixed rates of a typical machine: no "
        f"clock decides. Ahead: at least {s['a win']}. In the long table, bound and measured error "
        "are those of the method that is cheapest at the longest, run on the head's own rows; rows "
        "over tol, which go exact afterwards, are left out of both."
    )


def light(quick: bool) -> Experiment:
    """Return the experiment, small enough for the report."""
    return experiment(True)


FINDINGS = method_findings.of_verdict
KEPT = Kept(
    20,
    "Real heads: three tolerances, three lengths",
    ("head_charts.verdict", "head_charts.limits"),
    about,
    (SUMMARY_HEADER, summary_rows),
)
