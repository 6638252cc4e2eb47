"""The command line: `subquad` and `python -m subquad`.

`main` is the function, never the module of that name: it is bound here after that module is loaded,
once. What takes time to load is loaded when it runs.
"""

from subquad.cli.main import main

__all__ = ["main"]
