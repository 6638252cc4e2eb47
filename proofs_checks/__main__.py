"""`python -m proofs_checks`: run the claims, print the table, exit 1 if one is not as expected."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from proofs_checks import registry
from proofs_checks.claim import Claim, Record


def table(records: Sequence[Record], width: int = 80) -> Table:
    """Return the table of the records: claim, source, evidence, verdict, twin, seconds."""
    names = max((len(record.claim.id) for record in records), default=0)
    left = max(10, width - names - 46)  # the source is the column that gives way
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    made.add_column("claim", no_wrap=True)
    made.add_column("source", no_wrap=True, overflow="ellipsis", max_width=left)
    for name in ("evidence", "verdict", "twin"):
        made.add_column(name, no_wrap=True)
    made.add_column("seconds", justify="right", no_wrap=True)
    for record in records:
        claim = record.claim
        source = claim.source.split(",")[0]
        made.add_row(
            claim.id,
            source,
            claim.evidence,
            _coloured(record.found.verdict, claim.expected),
            _coloured(record.twin_found.verdict, claim.twin.expected),
            f"{record.seconds:.2f}",
        )
    return made


def _coloured(verdict: str, expected: str) -> str:
    return verdict if verdict == expected else f"[bold red]{verdict}[/], {expected} expected"


def show(records: Sequence[Record], console: Console) -> None:
    """Print the table, the counterexamples of the refuted claims, and what is not as expected."""
    console.print(table(records, console.width))
    for record in records:
        if record.claim.expected == "refuted" and record.as_expected:
            console.print(f"\n{record.claim.id}: {record.claim.statement}", markup=False)
            console.print(f"  refuted by {record.found.detail}", markup=False)
    for record in records:
        if not record.as_expected:
            console.print(f"\n[bold red]not as expected[/] {record.claim.id}")
            console.print(f"  {record.claim.statement}\n  {record.found.detail}", markup=False)
            console.print(f"  twin: {record.twin_found.detail}", markup=False)
    good = sum(record.as_expected for record in records)
    seconds = sum(record.seconds for record in records)
    console.print(f"\n{good} of {len(records)} claims as expected, twins too, in {seconds:.1f} s")


def run_with_progress(claims: Sequence[Claim], console: Console) -> list[Record]:
    """Return the Records; the claim being decided is shown on the console."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("claims", total=len(claims))
        started = 0

        def progress(claim: Claim) -> None:
            nonlocal started
            bar.update(task, completed=started, description=claim.id)
            started += 1

        return registry.run(claims, progress)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 not as expected, 2 nothing selected."""
    parser = argparse.ArgumentParser(prog="python -m proofs_checks", description=__doc__)
    parser.add_argument("--source", help="only claims whose source contains this")
    parser.add_argument("--id", help="only claims whose id contains this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the records as JSON")
    parser.add_argument("--tree", action="store_true", help="print what rests on what, run nothing")
    options = parser.parse_args(arguments)
    console, err = Console(highlight=False), Console(stderr=True, highlight=False)
    chosen = registry.select(source=options.source, id=options.id)
    if not chosen:
        asked = (("id", options.id), ("source", options.source))
        words = " and ".join(f"{name} {word!r}" for name, word in asked if word is not None)
        err.print(f"no claim has {words}", markup=False)
        return 2
    if options.tree:
        ids = {claim.id for claim in chosen}
        tops = registry.roots({claim.id: claim for claim in chosen})
        console.print("\n".join(registry.tree(name) for name in tops if name in ids), markup=False)
        return 0
    records = run_with_progress(chosen, err)
    show(records, console)
    if options.json is not None:
        options.json.write_text(registry.to_json(records) + "\n")
    return 0 if all(record.as_expected for record in records) else 1


if __name__ == "__main__":
    sys.exit(main())
