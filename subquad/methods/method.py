"""What every method is: four verbs, and the two answers that `fit` may give.

A method file holds one algorithm and its theorem. `fit` and `certify` see Stats, never an array;
`run` sees the arrays of one head, never the tolerance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from subquad.arrays.formats import FORMATS, U64
from subquad.bounds.certificate import Term
from subquad.bounds.partial import Partial
from subquad.bounds.rounding import gamma, preparation_error, storage_error
from subquad.bounds.softmax import logit_perturbation_bound, output_bound
from subquad.cost.rates import Rates, Work
from subquad.engine.fused.sizes import DEGREES, OPERANDS
from subquad.engine.passes import COMPUTE_DTYPES as COMPUTE_DTYPES
from subquad.engine.passes import stored_dtype
from subquad.head.frame import WEIGHT_RANGE
from subquad.head.problem import Head
from subquad.head.stats import Stats


@dataclass(frozen=True)
class Proposal:
    """A way to reach the tolerance: parameters, the a priori bound by terms, and the work.

    Parameters
    ----------
    method : Method
        Whose offer it is.
    parameters : object
        What `run` needs to know; hashable, pickled with the plan, printed by ``str``.
    terms : tuple of Term
        What `certify` returns of the parameters; their sum is `bound`.
    work : Work
        What `work` returns of them.
    view : int, optional
        Which of the head's Frames; the planner fills it in.
    fallback : float, optional
        Share of the rows that may go exact after the run, because `terms` are predicted and not
        proved; 0 where the terms are proved before the run. `work` counts the predicted share.
    """

    method: Method
    parameters: Any
    terms: tuple[Term, ...]
    work: Work
    view: int = 0
    fallback: float = 0.0

    @property
    def bound(self) -> float:
        """The proved bound, before anything is run; infinite or NaN where there is none."""
        return bound_of(self.terms)


@dataclass(frozen=True)
class Refusal:
    """Why a method cannot reach the tolerance, and how near it comes.

    Parameters
    ----------
    method : Method
        Which one.
    parameters : str
        Those that come nearest, as the plan prints them; empty where none were tried.
    reason : str
        With the number that is too large, for the plan and for ToleranceError.
    best_bound : float, optional
        The smallest bound it can prove, in units of value_radius; None where it can prove none.
    """

    method: Method
    parameters: str
    reason: str
    best_bound: float | None = None


class Method(ABC):
    """One algorithm and its theorem: four verbs, and what the planner asks of it.

    Attributes
    ----------
    name : str
        What a user calls it, and the plan prints.
    search : float
        Seconds, about, that `fit` takes at most sizes. It is not asked where a way already found
        takes less.
    takes_budget : bool
        Whether `fit` takes `budget` as well, in seconds: it may then give up where it cannot cost
        less, with a Refusal that says so (`over_budget`).
    is_oracle : bool
        Whether it computes every weight exactly: what `allow_exact=False` excludes, and what the
        others are compared with.
    run_on_shards : callable, optional
        ``run_on_shards(head, parameters)`` returns the Partial over all keys of the queries of
        each local shard of a head. None where it does not run on several devices, which `devices`
        then leaves out.
    """

    name: str
    search: float = 0.0
    takes_budget: bool = False
    is_oracle: bool = False
    run_on_shards: Callable[[Head, Any], list[Partial]] | None = None

    @abstractmethod
    def fit(self, stats: Stats, tol: float, rates: Rates) -> Iterator[Proposal | Refusal]:
        """Yield the cheapest certified Proposal, or a Refusal, of each variant of the method.

        Parameters
        ----------
        stats : Stats
            What is known of a head in one of its Frames; no array of its size.
        tol : float
            In units of value_radius: `Proposal.bound` has to be at most that.
        rates : Rates
            Of the device; ``rates.seconds(work)`` is what to keep small.

        Yields
        ------
        Proposal or Refusal
            One for each variant, at least one in all. Costs at most about `search` seconds.
        """

    @abstractmethod
    def certify(self, stats: Stats, parameters: Any) -> tuple[Term, ...]:
        """Return the a priori Terms, never smaller than what `run` will certify.

        Parameters
        ----------
        stats : Stats
            Of any head: a plan that is run on new data asks again with theirs.
        parameters : object
            From a Proposal.

        Returns
        -------
        tuple of Term
            Floats in units of value_radius whose sum bounds |output - exact|, each with its claim
            of the registry; infinite where the theorem does not hold of these `stats`. See
            `a_priori_terms`.
        """

    @abstractmethod
    def work(self, stats: Stats, parameters: Any) -> Work:
        """Return the work of `run`, counted and not measured.

        Parameters
        ----------
        stats : Stats
            Of the head.
        parameters : object
            From a Proposal.

        Returns
        -------
        Work
            Pairs, features, elements, bytes; the planner compares methods by its seconds.
        """

    @abstractmethod
    def run(self, head: Head, parameters: Any) -> Partial:
        """Return the sums over all keys; it is never told the tolerance.

        Parameters
        ----------
        head : Head
            Arrays and Frame; ``head.frame`` prepares rows, ``head.rows`` has their norms.
        parameters : object
            From a Proposal, perhaps of other data: what these do not allow gets an infinite
            `error`.

        Returns
        -------
        Partial
            Of n rows, about the key centre of the Frame, on the device of the arrays. Only
            `Partial.finish` divides.
        """

    def batch_key(self, head: Head, proposal: Proposal) -> Hashable:
        """Return what heads share that `run_together` may take at once.

        Parameters
        ----------
        head : Head
            One of a call.
        proposal : Proposal
            What is chosen for it.

        Returns
        -------
        hashable
            Equal for heads that go together; None for one that goes alone.
        """
        return None

    def run_together(self, heads: Sequence[Head], parameters: Any) -> Partial:
        """Return the sums of several heads, with the bits that `run` gives each of them.

        Parameters
        ----------
        heads : sequence of Head
            Of one `batch_key`.
        parameters : object
            Their common parameters.

        Returns
        -------
        Partial
            Of shape (heads, n, d_v).
        """
        raise NotImplementedError

    def widened(self, stats: Stats, parameters: Any) -> Any:
        """Return the parameters, with polynomials for larger logits where those of `stats` are.

        For a plan that runs on other data: the degrees, the dtype and the work stay as they are,
        and `certify` says what is proved then.

        Parameters
        ----------
        stats : Stats
            Of the other data.
        parameters : object
            From a Proposal for the plan's data.

        Returns
        -------
        object
            The parameters as they are, unless a method says otherwise.
        """
        return parameters

    def rerunnable(self, parameters: Any) -> bool:
        """Return whether a plan may run again by the fused passes alone (`planning.rerun`).

        Parameters
        ----------
        parameters : object
            From a Proposal.

        Returns
        -------
        bool
            False unless a method says otherwise.
        """
        return False


def over_budget(method: Method, parameters: str, seconds: float, budget: float) -> Refusal:
    """Return the Refusal of a method that would cost at least `seconds`, `budget` or more."""
    reason = f"at least {seconds:.2g} s, the best so far {budget:.2g} s"
    return Refusal(method, parameters, reason)


DEGREES_OF = dict.fromkeys(COMPUTE_DTYPES, range(2**10)) | dict.fromkeys(
    OPERANDS, range(DEGREES[0], DEGREES[-1] + 1)
)
"""The degrees that the passes have in each compute dtype."""


def compute_dtypes(
    stats: Stats, rates: Rates, others: tuple[str, ...] = COMPUTE_DTYPES
) -> tuple[str, ...]:
    """Return the compute dtypes that a polynomial over all keys or the small ones may have.

    Those of the fused passes, where the head and the rates have them, and `others`.
    """
    return (*(name for name in stats.operands if rates.knows(name)), *others)


def cheapest_dtypes(rates: Rates) -> tuple[str, ...]:
    """Return the compute dtypes in which some work may cost least, were rounding nothing."""
    pairs = zip(astuple(rates.float64), astuple(rates.float32), strict=True)
    return COMPUTE_DTYPES[:1] if all(wide <= single for wide, single in pairs) else COMPUTE_DTYPES


def storage_term(stats: Stats, dtype: str) -> Term:
    """Return the Term of rounding the values and the output."""
    error = storage_error(stats.value_ratio, stored_dtype(dtype), stats.dtype)
    return Term("storage", "rounding-storage", error)


def a_priori_terms(
    stats: Stats, dtype: str, *, eps: float, perturbation: float, sums: float, floor: float
) -> tuple[Term, ...]:
    """Return the Terms of a run before it is made.

    `eps` bounds the relative error of every weight, `perturbation` that of every logit; `sums`
    and `floor` bound, in one common unit, |numerator error| + |normaliser error| and, from below,
    the sum of the computed weights without rounding.
    """
    safe = floor - 2.0 * sums  # the run divides by computed sum - rounding
    return (
        Term("truncation", "output-bound", eps and float(output_bound(eps, eps))),
        Term("logits", "logit-perturbation", float(logit_perturbation_bound(perturbation))),
        Term("sums", "rounding-sums", sums / safe + 2.0**-50 if safe > 0.0 else float("inf")),
        storage_term(stats, dtype),
    )


def bound_of(terms: tuple[Term, ...]) -> float:
    """Return the sum of Terms before a run."""
    return sum(float(term.value) for term in terms)


def input_error(logit_bound: float, d: int, dtype: str, keys_weighted: bool) -> float:
    """Return the perturbation of a logit by preparing the input, key weights included."""
    # Key weights: a dot product of length d, a shift by a multiple of ln 2 and exp, in float64,
    # of logits within WEIGHT_RANGE; rounding them to `dtype` is counted with the sums.
    weights = float(gamma(2 * d + 64, U64)) * (WEIGHT_RANGE + 2.0) if keys_weighted else 0.0
    return float(preparation_error(logit_bound, dtype)) + weights


def stored_norm_bound(norms: Any, dtype: str) -> Any:
    """Return upper bounds of the norms of prepared rows from those of the exact rows."""
    form = FORMATS[dtype]
    return norms * (1.0 + 4.0 * form.u) + form.normal * 2.0**-4  # components that underflow
