"""What of subquad rests on which claim: functions, Terms of certificates, places that name it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import subquad
from subquad.bounds import rounding, softmax
from subquad.bounds.partial import Partial
from subquad.engine.fused import rounding as fused_rounding
from subquad.exp_poly import ExpPolynomial, majorant
from subquad.features import anisotropic

HOUSE = Path(subquad.__file__).parent
NAMED = re.compile(r"[Cc]laims? `([a-z0-9-]+)`")

USED: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("output-bound", softmax.output_bound),
    ("output-bound-monotone", softmax.output_bound),
    ("output-bound-gain", softmax.output_bound),
    ("ratio-sharp", softmax.ratio_bound),
    ("ratio-sharp", softmax.ratio_bound_inverse),
    ("additive-sharp", softmax.additive_bound),
    ("logit-perturbation", softmax.logit_perturbation_bound),
    ("normaliser-jensen", softmax.normaliser_lower_bound),
    ("rounding-gamma", rounding.gamma),
    ("rounding-sums", Partial.finish),
    ("rounding-exact-sums", rounding.exact_sum_error),
    ("rounding-logits", rounding.exact_logit_error),
    ("rounding-storage", rounding.storage_error),
    ("rounding-storage", rounding.conversion_error),
    ("rounding-polynomial", rounding.polynomial_sum_error),
    ("rounding-polynomial", rounding.polynomial_underflow),
    ("rounding-polynomial", rounding.polynomial_gammas),
    ("rounding-tensor-cores", fused_rounding.fused_errors),
    ("scaled-ratio", ExpPolynomial.scaled),
    ("box-taylor", anisotropic.box_tail),
    ("fitted-majorant", majorant.shortfall),
)
"""(claim, function): the claim evaluates that very function. The tests hold it to this."""


@dataclass(frozen=True)
class Place:
    """Where a claim is named: a file of the house, a line, and the Term's name if it is one's."""

    claim: str
    file: str
    line: int
    term: str = ""

    def __str__(self) -> str:
        where = f"subquad/{self.file}:{self.line}"
        return f"Term {self.term}, {where}" if self.term else where


def functions(claim: str) -> list[str]:
    """Return the functions that the claim evaluates, by module and name."""
    return [f"{f.__module__}.{f.__qualname__}" for name, f in USED if name == claim]


@cache
def _sources() -> tuple[tuple[str, str], ...]:
    paths = sorted(HOUSE.rglob("*.py"))
    return tuple((path.relative_to(HOUSE).as_posix(), path.read_text()) for path in paths)


def terms(claim: str | None = None) -> Iterator[Place]:
    """Yield the place of every Term(name, "claim", value) that is written in subquad."""
    for file, text in _sources():
        if "Term(" not in text or (claim is not None and f'"{claim}"' not in text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Term":
                given = dict(zip(("name", "claim"), node.args, strict=False))
                given |= {k.arg: k.value for k in node.keywords if k.arg is not None}
                named = getattr(given.get("claim"), "value", None)  # else put together elsewhere
                if isinstance(named, str) and claim in (None, named):
                    yield Place(named, file, node.lineno, ast.unparse(given["name"]))


def mentions(claim: str | None = None) -> Iterator[Place]:
    """Yield the place of every "claim `id`" in docstrings and comments of subquad."""
    for file, text in _sources():
        for found in NAMED.finditer(text):
            if claim in (None, found[1]):
                yield Place(found[1], file, text.count("\n", 0, found.start()) + 1)
