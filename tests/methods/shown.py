"""The method that CONTRIBUTING shows: its text, and what executing that text defines."""

import re
import sys
from pathlib import Path
from types import ModuleType

from subquad.methods import Method

CONTRIBUTING = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()


def shown_text() -> str:
    """Return the one block of Python in CONTRIBUTING."""
    (text,) = re.findall(r"```python\n(.*?)```", CONTRIBUTING, re.S)
    return text


def shown_method() -> Method:
    """Return the method of that block, as its author outside the package would pass it."""
    module = ModuleType("shown_in_contributing")
    sys.modules[module.__name__] = module  # where pickle looks for its parameters
    exec(compile(shown_text(), "CONTRIBUTING.md", "exec"), module.__dict__)  # noqa: S102
    return module.Line()
