"""A new interpreter for code that must find nothing loaded; our own warnings are errors there."""

import subprocess
import sys

OURS = r"(subquad|proofs_checks|experiments|tests)(\.|\Z)"
"""The modules whose warnings are errors, as in the configuration of pytest."""


def printed(code: str, *arguments: str) -> str:
    """Return what the code prints; an error in it is an error here."""
    strict = f"import warnings; warnings.filterwarnings('error', module={OURS!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", strict + code, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
