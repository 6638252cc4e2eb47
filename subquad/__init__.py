"""Attention with a tolerance: the output, a proof of its error, and the plan that explains it.

The floors, imports going down only::

    7  cli  cluster  meeting                     the command line; the same on many machines
    6  files  doctor                             what the command line reads, writes and reports
    6  attention  execution  running             attention(), plan(): check, plan, run, certify
    5  planner  replay  replay_terms             every method's offer, the cheapest certified one
    4  methods/  statistics
    4  bridge  bridge_fits                       one file, one algorithm, one theorem
    3  partial  problem  frame  magnitudes
    3  value_units  shells  sides  ball
    3  measuring  stats  sample  cost
    3  arguments  sharding                       an unfinished softmax; a checked head; its numbers
    2  bounds/  engine/                          lemmas as functions; the passes over the data
    1  features/  exp_poly/  certificate         monomials; polynomials near exp; terms and claims
    1  order                                     how many rows lie above a threshold
    0  arrays  once                              namespaces, outward rounding; found when asked for
"""

from typing import TYPE_CHECKING, Any

from subquad.attention import attention, exact_attention, plan
from subquad.bounds.certificate import Certificate, Term
from subquad.cost.rates import TYPICAL, Rates, Speed, measured_rates
from subquad.empirical.bridge import softmax_as_polynomials
from subquad.exp_poly import minimal_degree
from subquad.methods import METHODS
from subquad.methods.thresholds.multi_threshold import MultiThreshold
from subquad.methods.thresholds.support_basis import SupportBasis
from subquad.planning.choose import ToleranceError
from subquad.planning.plan import Plan, Result

if TYPE_CHECKING:
    from subquad.empirical import entry_statistics

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "TYPICAL",
    "Certificate",
    "MultiThreshold",
    "Plan",
    "Rates",
    "Result",
    "Speed",
    "SupportBasis",
    "Term",
    "ToleranceError",
    "attention",
    "entry_statistics",
    "exact_attention",
    "measured_rates",
    "minimal_degree",
    "plan",
    "softmax_as_polynomials",
]


def __getattr__(name: str) -> Any:
    """Return `entry_statistics` at first use: it brings scipy.stats, a second of import time."""
    if name == "entry_statistics":
        from subquad.empirical import entry_statistics

        return entry_statistics
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
