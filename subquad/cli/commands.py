"""The commands: report, attend, plan, stats, claims, doctor; `main` words their errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import subquad
from subquad.cli import claims, files

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.add_typer(claims.app, name="claims")
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)

File = Annotated[Path, typer.Argument(help="A .npz with arrays Q, K and V.")]
Tol = Annotated[float, typer.Option(help="Tolerance in units of value_radius, in (0, 2].")]
Method = Annotated[str, typer.Option(help="auto, or the name of a method.")]


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
        if out_file.suffix != ".npz":
            out_file = out_file.with_name(out_file.name + ".npz")
        files.check_not_input("--out", out_file, file)
        files.check_writable("--out", out_file)
    with _busy("planning and running"):
        result = subquad.attention(
            arrays["Q"],
            arrays["K"],
            arrays["V"],
            tol=tol,
            method=method,
            scale=arrays.get("scale"),
            key_mask=arrays.get("key_mask"),
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
    if file is not None and dtype is not None:
        msg = "`--dtype` goes with sizes; with a file the dtype is that of its arrays."
        raise ValueError(msg)
    arrays = {} if file is None else files.load(file)
    with _busy("planning"):
        made = subquad.plan(
            arrays.get("Q"),
            arrays.get("K"),
            arrays.get("V"),
            tol=tol,
            method=method,
            n=n,
            m=m,
            d=d,
            d_v=d_v,
            logit_bound=logit_bound,
            dtype=dtype or "float32",
            scale=arrays.get("scale"),
            key_mask=arrays.get("key_mask"),
        )
        text = str(made)
    out.print(text, markup=False)
    if any(head.chosen is None for head in made.heads):
        sys.exit(3)


@app.command()
def stats(file: File) -> None:
    """Print the entry statistics of the arrays of a .npz file, each estimate with its interval."""
    arrays = files.load(file)
    if "key_mask" in arrays:
        msg = "the file has a `key_mask`, which the statistics do not take; drop those keys first."
        raise ValueError(msg)
    with _busy("resampling"):
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
    from experiments.report import report as page

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


@contextmanager
def _busy(text: str) -> Iterator[None]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        progress.add_task(text, total=None)
        yield
