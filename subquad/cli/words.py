"""Errors of the library in the words of the command line: options and files, not arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from subquad import ToleranceError

PYTHON_ONLY = (
    ("(None gives 1/sqrt(d))", "(without one in the file it is 1/sqrt(d))"),
    (" with allow_exact=True", ""),
)
"""What only a caller in Python can do, and what is said of it here."""


def in_options(text: str, names: Sequence[str]) -> str:
    """Return the text with options for the arguments of these names: `n`, n=3 or n='x'."""
    for python, here in PYTHON_ONLY:
        text = text.replace(python, here)
    for name in names:
        option = f"--{name.replace('_', '-')}"
        text = text.replace(f"`{name}`", f"`{option}`")
        text = re.sub(rf"\b{name}=(['\"]?)([^\s'\",;)]+)\1", rf"`{option} \2`", text)
    return text


@contextmanager
def spoken(*names: str, file: Path | None = None) -> Iterator[None]:
    """Reword what is raised inside: arguments as options; what is wrong with a file names it."""
    try:
        yield
    except (ToleranceError, ValueError, TypeError) as error:
        text = in_options(str(error), names)
        of_file = file is not None and not isinstance(error, ToleranceError)
        if of_file and "`--" not in text and f"`{file}`" not in text:
            text = f"`{file}`: {text}"
        error.args = (text,)
        raise


def joined(options: Sequence[str]) -> str:
    """Return the options in backticks: `--n`, `--d` and `--logit-bound`."""
    *others, last = (f"`{option}`" for option in options)
    return f"{', '.join(others)} and {last}" if others else last
