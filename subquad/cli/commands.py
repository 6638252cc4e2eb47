"""The commands: report, attend, plan, stats, claims, doctor; `main` words their errors."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import subquad
from subquad.cli import claims, files
from subquad.cli.words import joined, spoken

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.add_typer(claims.app, name="claims")
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)

File = Annotated[Path, typer.Argument(help="A .npz with arrays Q, K and V.")]
Tol = Annotated[float, typer.Option(help="Tolerance in units of value_radius, in (0, 2].")]
Method = Annotated[str, typer.Option(help="auto, or the name of a method.")]

NEEDED = ("n", "d", "logit_bound")
"""What `plan` needs where there is no file."""


def _print_version(asked: bool) -> None:
    if asked:
        out.print(f"subquad {subquad.__version__}", markup=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Attention with a tolerance: the output, a proof of its error, the plan that explains it."""


@app.command()
def attend(
    file: File,
    tol: Tol,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write output, row bounds, plan to this .npz.")
    ] = None,
    method: Method = "auto",
    check: Annotated[
        bool, typer.Option(help="Also measure the error against exact float64 attention.")
    ] = False,
) -> None:
    """Compute certified attention for the arrays of a .npz file."""
    arrays = files.load(file)
    if out_file is not None:
        out_file = files.output("--out", out_file, file)
    with _busy("planning and running"), spoken("tol", "method", file=file):
        result = subquad.attention(
            *(arrays[name] for name in "QKV"), tol=tol, method=method, **_optional(arrays)
        )
    out.print(str(result.plan), markup=False)
    out.print()
    out.print(str(result.certificate), markup=False)
    if check:
        out.print(
            f"measured {files.measured(arrays, result.output):.3e} of value_radius, "
            "against exact attention in float64"
        )
    if out_file is not None:
        np.savez(
            out_file,
            output=result.output,
            row_bounds=result.certificate.row_bounds,
            certificate=result.certificate.to_json(),
            plan=str(result.plan),
        )
        out.print(f"wrote {out_file}", markup=False)


@app.command()
def plan(
    tol: Tol,
    file: Annotated[Path | None, typer.Argument(help="A .npz; or give the sizes.")] = None,
    n: Annotated[int | None, typer.Option(help="Number of queries.")] = None,
    m: Annotated[int | None, typer.Option(help="Number of keys; n by default.")] = None,
    d: Annotated[int | None, typer.Option(help="Head dimension.")] = None,
    d_v: Annotated[int | None, typer.Option(help="Columns of V; d by default.")] = None,
    logit_bound: Annotated[float | None, typer.Option(help="Upper bound of |logit|.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Without a file: float32 by default.")] = None,
    method: Method = "auto",
) -> None:
    """Print the plan for a file, or for sizes and a logit bound; run nothing."""
    sizes = {"n": n, "m": m, "d": d, "d_v": d_v, "logit_bound": logit_bound, "dtype": dtype}
    given: dict[str, Any] = {name: size for name, size in sizes.items() if size is not None}
    _check_sizes(file, given)
    arrays = {} if file is None else files.load(file)
    with _busy("planning"), spoken("tol", "method", *sizes, file=file):
        made = subquad.plan(
            *(arrays.get(name) for name in "QKV"),
            tol=tol,
            method=method,
            **given,
            **_optional(arrays),
        )
        text = str(made)
    out.print(text, markup=False)
    if any(head.chosen is None for head in made.heads):
        err.print(
            f"[bold red]tolerance not certifiable:[/] no method proves `--tol {tol:g}`; "
            "the last column of the table says why.",
            soft_wrap=True,
        )
        sys.exit(3)


def _optional(arrays: dict) -> dict:
    return {name: arrays[name] for name in files.OPTIONAL if name in arrays}


def _check_sizes(file: Path | None, given: dict) -> None:
    """Raise ValueError where sizes come with a file, or not all that are needed without one."""
    options = {name: f"--{name.replace('_', '-')}" for name in (*NEEDED, *given)}
    if file is not None and given:
        words = joined([options[name] for name in given])
        verb = "is" if len(given) == 1 else "are"
        msg = f"{words} {verb} for a plan without a file, and `{file}` has its own; give one."
        raise ValueError(msg)
    missing = [options[name] for name in NEEDED if name not in given]
    if file is None and missing:
        msg = (
            f"`plan` needs a .npz, or {joined([options[name] for name in NEEDED])}; "
            f"missing: {joined(missing)}."
        )
        raise ValueError(msg)


@app.command()
def stats(file: File) -> None:
    """Print the entry statistics of the arrays of a .npz file, each estimate with its interval."""
    arrays = files.load(file)
    if "key_mask" in arrays:
        msg = (
            f"`{file}` has a `key_mask`, which the statistics do not take; leave it, and the keys "
            "and values that it drops, out of the file."
        )
        raise ValueError(msg)
    with _busy("resampling"), spoken(file=file):
        text = str(
            subquad.entry_statistics(
                arrays["Q"], arrays["K"], arrays["V"], scale=arrays.get("scale")
            )
        )
    out.print(text, markup=False)


@app.command()
def report(
    quick: Annotated[bool, typer.Option(help="Smaller sizes, under 45 s.")] = False,
    out_dir: Annotated[Path, typer.Option("--out", help="Where to write it.")] = Path("report"),
) -> None:
    """Measure bounds, errors and speed on real and synthetic input; write HTML and JSON."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        msg = f"the report needs {' and '.join(missing)}: install subquad[report]."
        raise ValueError(msg)
    page = experiments_module("report.report")
    files.make_folder("--out", out_dir, ("index.html", "report.json"))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("report", total=None)
        page.write(
            out_dir, quick=quick, progress=lambda text: progress.update(task, description=text)
        )
    out.print(f"wrote {out_dir / 'index.html'} and {out_dir / 'report.json'}", markup=False)


@app.command()
def doctor() -> None:
    """Print what is installed, what is usable, and the measured rates."""
    from subquad.cli.doctor import machine, packages, speeds

    out.print(packages())
    out.print(machine())
    start = time.perf_counter()
    with _busy("measuring rates"):
        rates = subquad.measured_rates()
    out.print(speeds(rates))
    out.print(f"measured in {time.perf_counter() - start:.2f} s")


def experiments_module(name: str) -> Any:
    """Import a module of the experiments: inside the package where installed, else next to it.

    Never `import experiments`: a user's own folder of that name may come first on the path.
    """
    package = Path(subquad.__file__).parent
    if not (package / "experiments").is_dir() and str(package.parent) not in subquad.__path__:
        subquad.__path__.append(str(package.parent))
    return importlib.import_module(f"subquad.experiments.{name}")


@contextmanager
def _busy(text: str) -> Iterator[None]:
    if not err.is_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        progress.add_task(text, total=None)
        yield
