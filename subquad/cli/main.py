"""The door of the command line: errors of the user become a message and an exit code.

Exit codes: 0 done, 1 a claim is not as expected, 2 bad input, 3 the tolerance cannot be certified.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; errors of the user become a message and an exit code."""
    from subquad import ToleranceError
    from subquad.cli.commands import app

    try:
        app()
    except ToleranceError as error:
        _fail("tolerance not certifiable", error, 3)
    except MemoryError as error:
        _fail("error", MemoryError(f"the memory of this machine does not suffice. {error}"), 2)
    except (ValueError, TypeError, OSError) as error:
        _fail("error", error, 2)


def _fail(what: str, error: Exception, code: int) -> None:
    from rich.console import Console
    from rich.markup import escape

    err = Console(stderr=True, highlight=False)
    err.print(f"[bold red]{what}:[/] {escape(str(error))}", soft_wrap=True)
    sys.exit(code)
