"""Certificate: the proved error of one answer, term by term, each with the claim behind it.

What holds arrays is compared by identity: whether two arrays are equal has no one answer.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from subquad.arrays.arithmetic import Array, namespace, product_up


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
    value_radius : array (..., d_v), optional
        Half the range of each column of V, rounded up, on the host; None where a plan ran again by
        the fused passes alone, which do not measure it.
    """

    terms: tuple[Term, ...]
    row_bounds: Array
    holds: str = "always"
    assumptions: tuple[str, ...] = field(default=())
    value_radius: Any = None

    @property
    def bound(self) -> float:
        """The largest row bound over heads and rows, in units of value_radius."""
        return float(namespace(self.row_bounds).max(self.row_bounds))

    @property
    def absolute_bound(self) -> float | None:
        """The largest |output - exact| over heads, rows and columns, as proved; in units of V.

        None where `value_radius` is.
        """
        if self.value_radius is None:
            return None
        xp = namespace(self.row_bounds)
        worst = xp.reshape(xp.max(self.row_bounds, axis=-1), (-1,)).tolist()
        radius = np.max(self.value_radius, axis=-1).reshape(-1).tolist()
        return max(map(product_up, worst, radius))

    def explain(self) -> None:
        """Print each Term with the statement of its claim, the absolute bound, the assumptions.

        Statements come from the registry of claims; where it is not installed, ids stand alone.
        """
        print(self._explained())

    def _explained(self) -> str:
        absolute = self.absolute_bound
        size = "not measured by this run" if absolute is None else f"{absolute:.3e} in units of V"
        title, *lines = str(self).splitlines()
        terms, assumed = lines[: len(self.terms)], lines[len(self.terms) :]
        for i, term in enumerate(self.terms):
            terms[i] = "\n".join([terms[i], *_statement(term.claim)])
        return "\n".join([title, f"absolute bound {size}", *terms, *assumed])

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
            "absolute_bound": self.absolute_bound,
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


def _statement(claim: str) -> list[str]:
    """Return the statement of a claim and its source, in lines; none where it is not known here."""
    try:
        from proofs_checks import showing
    except ImportError:
        return []
    try:
        found = showing.find(claim)
    except ValueError:  # a claim of a method from elsewhere
        return []
    indent = " " * 4
    text = f"{found.statement} ({found.source})"
    return textwrap.wrap(text, 96, initial_indent=indent, subsequent_indent=indent)


def total(terms: tuple[Term, ...], shape_like: Array) -> Array:
    """Return the sum of the terms row by row, in the shape of `shape_like`."""
    result = namespace(shape_like).zeros_like(shape_like)
    for term in terms:
        result = result + term.value
    return result
