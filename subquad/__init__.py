"""Attention with a tolerance: the output, a proof of its error, and the plan that explains it.

The floors, imports going down only::

    9  cli/  __main__                  the command line
    7  cluster/                        the same call on many machines
    6  attention                       the doors: attention(), exact_attention(), plan()
    5  planning/  empirical/           every method's offer, the cheapest, run; what data are like
    4  methods/                        one file or folder, one algorithm, one theorem
    3  head/  cost/                    a checked head and what is known of it; what passes cost
    2  engine/  bounds/                the passes over rows, by device; lemmas as functions
    1  arrays/  exp_poly/  features/   namespaces and scalars; polynomials near exp; monomials
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
    from subquad.empirical.entries import entry_statistics

__version__ = "0.2.0"
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
        from subquad.empirical.entries import entry_statistics

        return entry_statistics
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
