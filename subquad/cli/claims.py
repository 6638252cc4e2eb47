"""The command `claims`: check claims, or show one of them without a check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from subquad.cli import files

app = typer.Typer()


@app.callback(invoke_without_command=True)
def claims(
    context: typer.Context,
    source: Annotated[str | None, typer.Option(help="Only claims of this source.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Only ids containing this.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write JSON.")] = None,
    tree: Annotated[bool, typer.Option(help="Print what rests on what, run nothing.")] = False,
) -> None:
    """Check every claim and its falsified twin; exit 1 if one is not as expected."""
    pairs = (("--source", source), ("--id", id_), ("--json", json_file))
    words = [str(word) for pair in pairs if pair[1] is not None for word in pair]
    words += ["--tree"] if tree else []
    if context.invoked_subcommand is not None:
        if words:
            msg = f"`claims show` takes an id and no options; leave out `{words[0]}`."
            raise ValueError(msg)
        return
    from proofs_checks.__main__ import main as check

    if json_file is not None:
        if tree:
            msg = "`--json` goes with a run, and `--tree` runs nothing; drop one of them."
            raise ValueError(msg)
        files.check_writable("--json", json_file)
    sys.exit(check(words))


@app.command()
def show(id_: Annotated[str, typer.Argument(metavar="ID", help="The id of a claim.")]) -> None:
    """Print one claim: statement, source, steps, twin, what rests on it; run nothing."""
    from proofs_checks import showing

    Console(highlight=False).print(showing.table(showing.find(id_)))
