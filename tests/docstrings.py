"""`python -m tests.docstrings`, of `make lint`: public names explain themselves, by numpydoc.

Checked is every class and function of `subquad.__all__` and `subquad.cluster.__all__`, every type
that the author of a method meets, and their public members. A member that a base class explains
need not explain itself again.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate

import subquad
import subquad.cluster
from subquad.bounds.partial import Partial
from subquad.cost.rates import Work
from subquad.engine.state import State
from subquad.head.frame import Frame
from subquad.head.magnitudes import RowMagnitudes
from subquad.head.problem import Head
from subquad.head.sides import OrderStatistics
from subquad.head.stats import Stats
from subquad.methods.method import Method, Proposal, Refusal

PUBLIC = [getattr(room, name) for room in (subquad, subquad.cluster) for name in room.__all__]
AUTHORS = (
    Method,
    Proposal,
    Refusal,
    Work,
    Head,
    Frame,
    RowMagnitudes,
    Stats,
    OrderStatistics,
    State,
    Partial,
)
CODES = ("GL08", "SS", "PR01", "PR02", "PR03", "PR04", "PR07", "PR10", "RT", "YD", "RS")
"""No docstring; summaries; parameters missing, unknown, out of order, without type or description;
what is returned or yielded. Of numpydoc's other checks some contradict ruff's, some ask for
sections that not every docstring needs."""
LEFT_OUT = ("RT01", "RT02", "RT04", "RT05", "SS06")
"""Whether anything is returned is asked of the annotation, which abstract methods have as well; the
others are about names of single values and punctuation."""


def explained() -> dict[str, Any]:
    """Return each object that is checked, by its full name."""
    things = {x for x in (*PUBLIC, *AUTHORS) if inspect.isclass(x) or inspect.isroutine(x)}
    found = {f"{x.__module__}.{x.__qualname__}": x for x in things}
    for name, thing in list(found.items()):
        if inspect.isclass(thing):
            found |= {f"{name}.{member}": x for member, x in members(thing)}
    return dict(sorted(found.items()))


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties of a class that no base of it has."""
    for name, member in vars(cls).items():
        new = not any(hasattr(base, name) for base in cls.__mro__[1:])
        if new and not name.startswith("_") and (callable(member) or hasattr(member, "__get__")):
            yield name, inspect.unwrap(getattr(cls, name))


def errors(name: str, thing: Any) -> Iterator[str]:
    """Yield what numpydoc finds wrong with one docstring."""
    for code, message in validate(name)["errors"]:
        if code.startswith(CODES) and code not in LEFT_OUT:
            yield f"{name}: {code} {message}"
    doc = Validator(get_doc_object(thing))
    if callable(thing) and not (inspect.isclass(thing) or doc.returns or doc.yields):
        if inspect.signature(thing).return_annotation not in (None, "None"):
            yield f"{name}: no Returns section, though the annotation names a type"


if __name__ == "__main__":
    found = [error for name, thing in explained().items() for error in errors(name, thing)]
    sys.exit("\n".join(found) or 0)
