"""Certificate: the proved error of one answer, term by term, each with the claim behind it.

What holds arrays is compared by identity: whether two arrays are equal has no one answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from subquad.arrays.arithmetic import Array, namespace


@dataclass(frozen=True, eq=False)
class Term:
    """One proved part of a bound.

    Parameters
    ----------
    name : str
        What plans and certificates print: "truncation", "logits", "sums" or "storage".
    claim : str
        The id of the registered statement that proves it: ``subquad claims show ID``.
    value : float or array
        Bounds its part of |output - exact|, in units of value_radius; an array broadcasts to
        (..., n), one number for each row.
    """

    name: str
    claim: str
    value: Any

    def worst(self) -> float:
        """Return the largest value over heads and rows.

        Returns
        -------
        float
            In units of value_radius; NaN if any is.
        """
        value = self.value
        return float(namespace(value).max(value)) if hasattr(value, "shape") else float(value)


@dataclass(frozen=True, eq=False)
class Certificate:
    """The proved error of an output: |output - exact| <= row_bounds * value_radius.

    Parameters
    ----------
    terms : tuple of Term
        Their sum, row by row, is `row_bounds`.
    row_bounds : array (..., n)
        One bound for each row of the output, in units of value_radius, half the range of a column
        of V.
    holds : str
        "always", or the probability with which the bound holds.
    assumptions : tuple of str
        What is not proved.
    """

    terms: tuple[Term, ...]
    row_bounds: Array
    holds: str = "always"
    assumptions: tuple[str, ...] = field(default=())

    @property
    def bound(self) -> float:
        """The largest row bound over heads and rows, in units of value_radius."""
        return float(namespace(self.row_bounds).max(self.row_bounds))

    def to_json(self) -> str:
        """Return the certificate as JSON.

        Returns
        -------
        str
            An object with "bound", "unit", "holds", "terms" (name, claim, worst over rows) and
            "assumptions".
        """
        record = {
            "bound": self.bound,
            "unit": "value_radius",
            "holds": self.holds,
            "terms": [{"name": t.name, "claim": t.claim, "worst": t.worst()} for t in self.terms],
            "assumptions": list(self.assumptions),
        }
        return json.dumps(record, indent=2)

    def __str__(self) -> str:
        lines = [f"bound {self.bound:.3e} of value_radius, holds {self.holds}"]
        lines += [f"  {t.name:<12} {t.worst():.3e}   claim {t.claim}" for t in self.terms]
        lines += [f"  assuming {text}" for text in self.assumptions]
        return "\n".join(lines)


def total(terms: tuple[Term, ...], shape_like: Array) -> Array:
    """Return the sum of the terms row by row, in the shape of `shape_like`."""
    result = namespace(shape_like).zeros_like(shape_like)
    for term in terms:
        result = result + term.value
    return result
