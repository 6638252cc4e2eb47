"""attention(): check, plan, run, certify, return; plan(): the same plan, nothing run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from subquad.arrays import Array, namespace
from subquad.bounds.rounding import ASSUMPTIONS
from subquad.certificate import Certificate, Term, total
from subquad.cost import Rates, measured_rates
from subquad.methods import METHODS
from subquad.methods.exact import ExactParameters, exact_rows
from subquad.methods.method import Method, Proposal, storage_term
from subquad.partial import Partial, join_rows
from subquad.planner import HeadPlan, ToleranceError, choose, refusal_message, table
from subquad.problem import (
    Head,
    Problem,
    check_delta,
    check_real,
    check_seed,
    check_size,
    check_tol,
    dtype_name,
    refuse_options,
)
from subquad.stats import stats_without_data

OPTIONS = ("tol", "scale", "key_mask", "method", "delta", "allow_exact", "seed", "devices", "rates")


@dataclass(frozen=True)
class Result:
    """The output (..., n, d_v), like Q; the Certificate of its error; the Plan that made it."""

    output: Array
    certificate: Certificate
    plan: Plan

    def __repr__(self) -> str:
        ways = " | ".join(sorted({_choice(head) for head in self.plan.heads}))
        shape = tuple(self.output.shape)
        return f"Result(output {shape}, bound {self.certificate.bound:.3e}, by {ways})"


@dataclass(frozen=True)
class Plan:
    """What will be done to each head and why; prints as a table.

    Attributes
    ----------
    heads : tuple of HeadPlan
        In C order of the leading dimensions `lead`.
    """

    heads: tuple[HeadPlan, ...]
    lead: tuple[int, ...]
    tol: float
    method: str
    scale: float | None
    rates: Rates

    def run(self, Q: Array, K: Array, V: Array, /, *, key_mask: Array | None = None) -> Result:
        """Return the Result of this plan on new data of the same shape, bounds proved again.

        Raises ValueError for another shape, ToleranceError where the new data break a bound.
        """
        problem = Problem(Q, K, V, scale=self.scale, key_mask=key_mask)
        old = (self.lead, self.heads[0].stats.n, self.heads[0].stats.d, self.heads[0].stats.d_v)
        new = (problem.lead, problem.sizes[1], problem.sizes[3], problem.sizes[4])
        if old != new:
            msg = f"the plan is for (lead, n, d, d_v) = {old}, the data have {new}: plan again."
            raise ValueError(msg)
        heads = list(problem.heads())
        for index, (head, own) in enumerate(zip(heads, self.heads, strict=True)):
            _require(own, self.method, _place(index, self.lead))
            assert own.chosen is not None
            stats = _view(head, own.chosen).stats
            offer = dataclasses.replace(
                own.chosen, terms=own.chosen.method.certify(stats, own.chosen.parameters)
            )
            if stats.m != own.stats.m:
                msg = (f"the plan is for {own.stats.m} keys, the data have {stats.m}"
                       f"{_place(index, self.lead)}: plan again.")
                raise ValueError(msg)
            if not offer.bound <= self.tol:
                msg = (f"the plan's {own.chosen.method.name} ({own.chosen.parameters}) proves only "
                       f"{offer.bound:.3e} on these data{_place(index, self.lead)}, "
                       f"tol is {self.tol:g}: plan again.")
                raise ToleranceError(msg)
        return _execute(problem, heads, self)

    def __str__(self) -> str:
        groups = []
        by_choice = sorted(range(len(self.heads)), key=lambda i: _choice(self.heads[i]))
        for choice, members in groupby(by_choice, key=lambda i: _choice(self.heads[i])):
            indices = sorted(members, key=lambda i: self.heads[i].stats.logit_bound)
            lines = table(self.heads[indices[len(indices) // 2]])
            if len(self.heads) > 1:
                spread = [self.heads[i].stats.logit_bound for i in (indices[0], indices[-1])]
                title = f"{len(indices)} of {len(self.heads)} heads: {choice}, logit bounds "
                lines.insert(0, title + f"{spread[0]:.3g} to {spread[1]:.3g}; the median one:")
            groups.append("\n".join(lines))
        return "\n\n".join([*groups, _rates_line(self.rates)])


def attention(
    Q: Array, K: Array, V: Array, /, *, tol: float, scale: float | None = None,
    key_mask: Array | None = None, method: str | Method = "auto", delta: float = 0.0,
    allow_exact: bool = True, seed: int | None = None, devices: None = None,
    rates: Rates | None = None, **options,
) -> Result:  # fmt: skip
    """Return softmax(scale Q K^T) V within tol, a certificate of its error, and the plan.

    For every row i and column c, |output - exact| <= tol * value_radius[c], where value_radius is
    half the range of column c of V (so at most tol * max|V|).

    Parameters
    ----------
    Q, K, V : array (..., n, d), (..., m, d), (..., m, d_v)
        One array library and dtype (float16, float32 or float64); leading dimensions broadcast.
    tol : float
        In (0, 2], in units of value_radius.
    scale : float, optional
        Positive; 1/sqrt(d) by default.
    key_mask : bool array (..., m), optional
        True where a key takes part; the others are dropped exactly.
    method : str or Method, optional
        "auto" takes the cheapest certified; a name from METHODS, or a Method, that one alone.
    delta : float, optional
        Allowed probability of failure, in [0, 1); 0 means that the bound must hold always.
    allow_exact : bool, optional
        False removes the method `exact`.
    seed : int, optional
        For randomised methods.
    devices : None
        Many GPUs: not built yet.
    rates : Rates, optional
        The cost model; measured once per process by default (about 0.2 s).

    Returns
    -------
    Result
        `.output` like Q, `.certificate` with `.bound <= tol`, `.plan`.

    Raises
    ------
    ToleranceError
        If no allowed method can prove `tol`; never is a looser answer returned.
    TypeError, ValueError
        For bad input, with the argument in backticks, the value met and the one needed.
    """
    refuse_options(options, OPTIONS)
    problem = Problem(Q, K, V, scale=scale, key_mask=key_mask)
    heads, made = _plan(
        problem, tol, method, delta=delta, allow_exact=allow_exact, seed=seed, devices=devices,
        rates=rates, scale=scale,
    )  # fmt: skip
    for index, head in enumerate(made.heads):
        _require(head, made.method, _place(index, made.lead))
    return _execute(problem, heads, made)


def plan(
    Q: Array | None = None, K: Array | None = None, V: Array | None = None, /, *, tol: float,
    n: int | None = None, m: int | None = None, d: int | None = None, d_v: int | None = None,
    logit_bound: float | None = None, dtype: str = "float32", scale: float | None = None,
    key_mask: Array | None = None, method: str | Method = "auto", delta: float = 0.0,
    allow_exact: bool = True, seed: int | None = None, devices: None = None,
    rates: Rates | None = None, **options,
) -> Plan:  # fmt: skip
    """Return the Plan that `attention` would follow; from data, or from sizes and a logit bound.

    Parameters
    ----------
    Q, K, V : array, optional
        As for `attention`; give all three, or none of them and the sizes.
    n, m, d, d_v : int, optional
        Sizes: m defaults to n, d_v to d.
    logit_bound : float, optional
        An upper bound of |logit|; values are taken as centred.
    dtype : str, optional
        Of the input, where there are no data.

    Raises
    ------
    TypeError, ValueError
        For bad input. A tolerance that nothing reaches is no error here: `heads[i].chosen` is
        None and the table says why.
    """
    refuse_options(options, (*OPTIONS, "n", "m", "d", "d_v", "logit_bound", "dtype"))
    choice = {"delta": delta, "allow_exact": allow_exact, "seed": seed, "devices": devices,
              "rates": rates, "scale": scale}  # fmt: skip
    given = [x is not None for x in (Q, K, V)]
    sizes = {"n": n, "d": d, "logit_bound": logit_bound}
    if any(given):
        extra = [k for k, v in {**sizes, "m": m, "d_v": d_v}.items() if v is not None]
        if not all(given) or extra:
            msg = (f"plan() got {sum(given)} of `Q`, `K`, `V` and {extra or 'no sizes'}: give all "
                   "three arrays and no sizes, or no array and n, d, logit_bound.")
            raise TypeError(msg)
        return _plan(Problem(Q, K, V, scale=scale, key_mask=key_mask), tol, method, **choice)[1]
    missing = [k for k, v in sizes.items() if v is None]
    if missing:
        msg = f"plan() without data needs n, d and logit_bound; missing: {', '.join(missing)}."
        raise TypeError(msg)
    bound = check_real("logit_bound", logit_bound)
    if not 0.0 <= bound < np.inf:
        msg = f"`logit_bound` is {bound:g}; it must be finite and not negative."
        raise ValueError(msg)
    stats = stats_without_data(
        check_size("n", n), check_size("m", n if m is None else m), check_size("d", d),
        check_size("d_v", d if d_v is None else d_v), bound, dtype,
    )  # fmt: skip
    return _planned([(stats,)], (), tol, method, **choice)


def exact_attention(
    Q: Array, K: Array, V: Array, /, *, scale: float | None = None, key_mask: Array | None = None
) -> Array:
    """Return softmax(scale Q K^T) V, (..., n, d_v), computed in float64 and stored like Q.

    Blocked online softmax: O(n m d) time, O(n) memory. Errors as for `attention`.
    """
    problem = Problem(Q, K, V, scale=scale, key_mask=key_mask)
    exact = METHODS["exact"]
    outputs = []
    for head in problem.heads():
        output, _ = exact.run(head, ExactParameters("float64")).finish()
        outputs.append(head.frame.restore(output, dtype_name(Q)))
    return _stack(outputs, problem)


def _plan(problem: Problem, tol, method, **choice) -> tuple[list[Head], Plan]:
    heads = list(problem.heads())
    views = [tuple(view.stats for view in head.views()) for head in heads]
    return heads, _planned(views, problem.lead, tol, method, **choice)


def _planned(
    heads, lead, tol, method, *, delta, allow_exact, seed, devices, rates, scale
) -> Plan:
    tol, delta, seed = check_tol(tol), check_delta(delta), check_seed(seed)
    if devices is not None:
        msg = f"`devices` is {devices!r}; running on many devices is not built yet: pass None."
        raise ValueError(msg)
    name, methods = _methods(method, allow_exact)
    rates = measured_rates() if rates is None else rates
    made = tuple(choose(views, tol, methods, rates, fallback=allow_exact) for views in heads)
    return Plan(made, tuple(lead), tol, name, scale, rates)


def _methods(method, allow_exact) -> tuple[str, tuple[Method, ...]]:
    """Return the name asked for and the methods it stands for."""
    if not isinstance(allow_exact, bool | np.bool_):
        msg = f"`allow_exact` is {allow_exact!r}; pass True or False."
        raise TypeError(msg)
    if isinstance(method, str):
        if method == "auto":
            return method, tuple(
                m for m in METHODS.values() if allow_exact or m.name != "exact"
            )
        if method not in METHODS:
            msg = f"`method` is {method!r}; the methods are auto, {', '.join(METHODS)}."
            raise ValueError(msg)
        chosen = METHODS[method]
    elif all(hasattr(method, verb) for verb in ("name", "fit", "certify", "work", "run")):
        chosen = method
    else:
        msg = (f"`method` is a {type(method).__name__}; pass a name or an object with the verbs "
               "fit, certify, work and run.")
        raise TypeError(msg)
    if chosen.name == "exact" and not allow_exact:
        msg = '`allow_exact` is False but `method` is "exact"; drop one of the two.'
        raise ValueError(msg)
    return chosen.name, (chosen,)


def _execute(problem: Problem, heads: list[Head], made: Plan) -> Result:
    """Run every head, certify it, and refuse to return a row above the tolerance."""
    outputs, terms = [], []
    for head, own in zip(heads, made.heads, strict=True):
        assert own.chosen is not None
        output, parts = _run_head(head, own.chosen, made.tol)
        outputs.append(output)
        terms.append(parts)
    xp = problem.xp
    joined = tuple(
        Term(column[0].name, column[0].claim, _stack([t.value for t in column], problem))
        for column in zip(*terms, strict=True)
    )
    certificate = Certificate(joined, total(joined, joined[0].value), "always", ASSUMPTIONS)
    if not bool(xp.all(certificate.row_bounds <= made.tol)):
        msg = (f"the run proves only {certificate.bound:.3e}, tol is {made.tol:g}: the plan's "
               "bound was smaller, which should not happen; nothing is returned.")
        raise ToleranceError(msg)
    return Result(_stack(outputs, problem), certificate, made)


def _run_head(head: Head, chosen: Proposal, tol: float) -> tuple[Array, tuple[Term, ...]]:
    """Return the output (n, d_v) of one head and its Terms, each (n,).

    Rows whose bound exceeds tol go exact where the plan announced it, and up to that share.
    """
    head = _view(head, chosen)
    partial = chosen.method.run(head, chosen.parameters)
    output, terms = _finished(head, partial, chosen.work.dtype)
    if chosen.fallback > 0.0:
        xp = namespace(output)
        failed = ~(total(terms, terms[0].value) <= tol)  # NaN fails
        rows = xp.nonzero(failed)[0]
        if 0 < rows.shape[0] <= chosen.fallback * failed.shape[0]:
            kept = xp.nonzero(~failed)[0]
            partial = join_rows([(kept, partial.rows(kept)), (rows, exact_rows(head, rows))])
            output, terms = _finished(head, partial, chosen.work.dtype)
    return head.frame.restore(output, head.dtype), terms


def _finished(head: Head, partial: Partial, dtype: str) -> tuple[Array, tuple[Term, ...]]:
    """Return the output in units of value_radius and every Term, storage included, each (n,)."""
    output, terms = partial.finish()
    stored = storage_term(head.stats, dtype)
    like = namespace(output).zeros_like(terms[0].value)
    return output, (*terms, dataclasses.replace(stored, value=like + stored.value))


def _view(head: Head, chosen: Proposal) -> Head:
    """Return the head in the Frame it was planned in; new data may have fewer Frames."""
    views = head.views()
    return views[min(chosen.view, len(views) - 1)]


def _stack(per_head: list[Array], problem: Problem) -> Array:
    xp = problem.xp
    return xp.reshape(xp.stack(per_head), (*problem.lead, *per_head[0].shape))


def _require(head: HeadPlan, asked: str, where: str) -> None:
    if head.chosen is None:
        raise ToleranceError(refusal_message(head, asked, where))


def _place(index: int, lead: tuple[int, ...]) -> str:
    if not lead:
        return ""
    return f" in head {tuple(int(i) for i in np.unravel_index(index, lead))}"


def _choice(head: HeadPlan) -> str:
    if head.chosen is None:
        return "nothing certifies"
    return f"{head.chosen.method.name} ({head.chosen.parameters})"


def _rates_line(rates: Rates) -> str:
    f, g = rates.float32, rates.float64
    return (f"rates (float32 / float64): exact {f.exact_flops:.1e} / {g.exact_flops:.1e} flop/s, "
            f"{f.pairs:.1e} / {g.pairs:.1e} pairs/s; polynomial {f.polynomial_flops:.1e} / "
            f"{g.polynomial_flops:.1e} flop/s, {f.features:.1e} / {g.features:.1e} features/s")
