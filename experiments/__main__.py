"""Run experiments by name: ``python -m experiments NAME [--quick] [--fresh] [--out FILE]``.

Installed, ``python -m subquad.experiments``. Records go to `subquad-results/` in the working
directory unless `--out` says otherwise; the committed ones lie in `results/` beside this file.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from .harness.store import run
from .questions import load, names
from .report.writing import text_table

OUT = Path("subquad-results")
"""Where records go, in the working directory: nothing is written beside the code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiments asked for, print their tables, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description=(__doc__ or "").partition("\n")[0]
    )
    everywhere = [name for name in names() if not _needs(name)]
    elsewhere = [name for name in names() if _needs(name)]
    parser.add_argument("name", help=f"one of {', '.join((*everywhere, *elsewhere))}, all")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--fresh", action="store_true", help="ignore the rows already on disk")
    parser.add_argument(
        "--out", type=Path, help=f"the JSON file (a folder for all); in {OUT}/ if not given"
    )
    chosen = parser.parse_args(arguments)
    if chosen.name not in (*names(), "all"):
        print(
            f"`name` is {chosen.name!r}; the experiments are {', '.join(everywhere)}, all; "
            f"on GPUs {', '.join(elsewhere)}.",
            file=sys.stderr,
        )
        return 2
    if chosen.name in elsewhere and importlib.util.find_spec("cupy") is None:
        print(
            f"`name` is {chosen.name!r}, which needs CuPy and a CUDA device: install "
            "subquad[cuda12] or subquad[cuda13].",
            file=sys.stderr,
        )
        return 2
    for name in everywhere if chosen.name == "all" else (chosen.name,):
        one(name, _path(chosen, name), quick=chosen.quick, fresh=chosen.fresh)
    return 0


def _needs(name: str) -> tuple[str, ...]:
    """Return the modules without which an experiment cannot run: it is not one of `all`."""
    return getattr(load(name), "NEEDS", ())


def _path(chosen: argparse.Namespace, name: str) -> Path:
    if chosen.out is not None and chosen.name != "all":
        return chosen.out
    folder = chosen.out or (OUT / "quick" if chosen.quick else OUT)
    return folder / f"{name}.json"


def one(name: str, path: Path, *, quick: bool = False, fresh: bool = False) -> dict:
    """Run one experiment into `path`, print its question and table, and return its record."""
    module = load(name)
    experiment = module.experiment(quick)
    print(f"{experiment.question}\n", flush=True)
    record = run(experiment, path, fresh=fresh, progress=_show)
    print("\n" + text_table(module.HEADER, module.table_rows(record)))
    print(
        f"\n{record['date']}, {record['machine']['processor']}, "
        f"{record['machine']['threads']} threads; written to {path}\n"
    )
    return record


def _show(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
