"""The command line: report, attend, plan, stats, claims, doctor.

Exit codes: 0 done, 1 a claim is not as expected, 2 bad input, 3 the tolerance cannot be certified.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

import subquad
from subquad import arguments

app = typer.Typer(add_completion=False, no_args_is_help=True, help=(
    "Attention with a tolerance: the output, a proof of its error, and the plan that explains it."
))  # fmt: skip
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)

File = Annotated[Path, typer.Argument(help="A .npz with arrays Q, K and V.")]
Tol = Annotated[float, typer.Option(help="Tolerance in units of value_radius, in (0, 2].")]
METHOD = Annotated[str, typer.Option(help="auto, or the name of a method.")]


def main() -> None:
    """Run the command line; errors of the user become a message and an exit code."""
    try:
        app()
    except subquad.ToleranceError as error:
        err.print(f"[bold red]tolerance not certifiable:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(3)
    except (ValueError, TypeError, OSError) as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)


@app.command()
def attend(
    file: File,
    tol: Tol,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write output, row bounds, plan to this .npz.")
    ] = None,
    method: METHOD = "auto",
    check: Annotated[
        bool, typer.Option(help="Also measure the error against exact float64 attention.")
    ] = False,
) -> None:
    """Compute certified attention for the arrays of a .npz file."""
    arrays = _load(file)
    if out_file is not None:
        if out_file.suffix != ".npz":
            out_file = out_file.with_name(out_file.name + ".npz")
        if not out_file.parent.is_dir():
            msg = f"`--out` is {out_file}, but the folder {out_file.parent} does not exist."
            raise ValueError(msg)
    with _busy("planning and running"):
        result = subquad.attention(
            arrays["Q"], arrays["K"], arrays["V"], tol=tol, method=method,
            scale=arrays.get("scale"), key_mask=arrays.get("key_mask"),
        )  # fmt: skip
    out.print(str(result.plan), markup=False)
    out.print()
    out.print(str(result.certificate), markup=False)
    if check:
        out.print(f"measured {_measured(arrays, result.output):.3e} of value_radius, "
                  "against exact attention in float64")
    if out_file is not None:
        np.savez(
            out_file, output=result.output, row_bounds=result.certificate.row_bounds,
            certificate=result.certificate.to_json(), plan=str(result.plan),
        )  # fmt: skip
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
    method: METHOD = "auto",
) -> None:
    """Print the plan for a file, or for sizes and a logit bound; run nothing."""
    if file is not None and dtype is not None:
        msg = "`--dtype` goes with sizes; with a file the dtype is that of its arrays."
        raise ValueError(msg)
    arrays = {} if file is None else _load(file)
    with _busy("planning"):
        made = subquad.plan(
            arrays.get("Q"), arrays.get("K"), arrays.get("V"), tol=tol, method=method,
            n=n, m=m, d=d, d_v=d_v, logit_bound=logit_bound, dtype=dtype or "float32",
            scale=arrays.get("scale"), key_mask=arrays.get("key_mask"),
        )  # fmt: skip
        text = str(made)
    out.print(text, markup=False)
    if any(head.chosen is None for head in made.heads):
        sys.exit(3)


@app.command()
def stats(file: File) -> None:
    """Print the entry statistics of the arrays of a .npz file, each estimate with its interval."""
    arrays = _load(file)
    if "key_mask" in arrays:
        msg = "the file has a `key_mask`, which the statistics do not take; drop those keys first."
        raise ValueError(msg)
    with _busy("resampling"):
        text = str(subquad.entry_statistics(
            arrays["Q"], arrays["K"], arrays["V"], scale=arrays.get("scale")
        ))  # fmt: skip
    out.print(text, markup=False)


@app.command()
def report(
    quick: Annotated[bool, typer.Option(help="Smaller sizes, under 45 s.")] = False,
    out_dir: Annotated[Path, typer.Option("--out", help="Where to write it.")] = Path("report"),
) -> None:
    """Measure bounds, errors and speed on real and synthetic input; write HTML and JSON."""
    from experiments import report as page

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("report", total=None)
        page.write(out_dir, quick=quick, progress=lambda text: progress.update(
            task, description=text
        ))  # fmt: skip
    out.print(f"wrote {out_dir / 'index.html'} and {out_dir / 'report.json'}", markup=False)


@app.command()
def claims(
    source: Annotated[str | None, typer.Option(help="Only claims of this source.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Only ids containing this.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write JSON.")] = None,
    tree: Annotated[bool, typer.Option(help="Print what rests on what, run nothing.")] = False,
) -> None:
    """Check every claim and its falsified twin; exit 1 if one is not as expected."""
    from proofs_checks.__main__ import main as check

    pairs = (("--source", source), ("--id", id_), ("--json", json_file))
    words = [str(word) for pair in pairs if pair[1] is not None for word in pair]
    sys.exit(check([*words, *(["--tree"] if tree else [])]))


@app.command()
def doctor() -> None:
    """Print what is installed, what is usable, and the measured rates."""
    from subquad.engine.threads import thread_count
    from subquad.planner import memory_bytes

    threads = thread_count()
    table = Table("package", "version", "for", box=None)
    for name, use in _PACKAGES.items():
        table.add_row(name, _version(name) or "missing", use)
    table.add_row("cupy", _version_of_cupy() or "missing", _gpu())
    out.print(table)
    out.print(f"threads {threads} (SUBQUAD_NUM_THREADS), memory "
              f"{memory_bytes() / 2**30:.1f} GiB, python {sys.version.split()[0]}")
    start = time.perf_counter()
    with _busy("measuring rates"):
        rates = subquad.measured_rates()
    table = Table("rate per second", "float32", "float64", box=None)
    for field in ("exact_flops", "pairs", "polynomial_flops", "features", "elements"):
        table.add_row(field, *(f"{getattr(s, field):.2e}" for s in (rates.float32, rates.float64)))
    out.print(table)
    out.print(f"measured in {time.perf_counter() - start:.2f} s")


_PACKAGES = {
    "numpy": "core", "scipy": "core", "sympy": "core", "python-flint": "core",
    "array-api-compat": "core", "threadpoolctl": "core", "matplotlib": "report",
    "jinja2": "report", "numba": "compiled passes", "dask": "many machines (to come)",
    "tokenizers": "capture of real heads", "torch": "SDPA beside ours in benchmarks",
}  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version_of_cupy() -> str | None:
    found = (_version(f"cupy-cuda{cuda}x") for cuda in (13, 12))
    return next((version for version in found if version), None)


def _gpu() -> str:
    if importlib.util.find_spec("cupy") is None:
        return "GPUs"
    import cupy

    return "GPUs: usable" if cupy.is_available() else "GPUs: none usable"


def _load(file: Path) -> dict:
    """Return the arrays of a .npz; float16 as float32, scale as a float."""
    if not file.exists():
        msg = f"`{file}` does not exist; give a .npz with arrays Q, K and V."
        raise ValueError(msg)
    try:
        # Opened here: np.load leaves a broken archive open.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            names = archive.files
            arrays = {k: archive[k] for k in names if k in ("Q", "K", "V", *_OPTIONAL)}
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        # Of any other file NumPy says how to load it as a pickle, which is no option here.
        reason = "it holds no plain arrays" if "pickle" in str(error) else error
        msg = f"`{file}` is not a readable .npz: {reason}"
        raise ValueError(msg) from None
    missing = [name for name in "QKV" if name not in arrays]
    arguments.refuse_options({k: None for k in names if k in arguments.NOT_BUILT}, ())
    if missing:
        msg = f"`{file}` has no array {', '.join(missing)}; it needs Q, K and V."
        raise ValueError(msg)
    if "scale" in arrays:
        arrays["scale"] = arguments.check_real("scale", arrays["scale"][()])
    return {k: v.astype(np.float32) if getattr(v, "dtype", None) == np.float16 else v
            for k, v in arrays.items()}  # fmt: skip


_OPTIONAL = ("scale", "key_mask")


def _measured(arrays: dict, output: np.ndarray) -> float:
    """Return max |output - exact| / value_radius against float64; 0 for constant columns."""
    Q, K, V = (arrays[name].astype(np.float64) for name in "QKV")
    mask = arrays.get("key_mask")
    exact = subquad.exact_attention(Q, K, V, scale=arrays.get("scale"), key_mask=mask)
    kept = np.ones(V.shape[:-1], bool) if mask is None else np.broadcast_to(mask, V.shape[:-1])
    high = np.max(np.where(kept[..., None], V, -np.inf), axis=-2, keepdims=True)
    low = np.min(np.where(kept[..., None], V, np.inf), axis=-2, keepdims=True)
    radius = (high - low) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(radius > 0.0, np.abs(output - exact) / radius, 0.0)
    return float(error.max())


@contextmanager
def _busy(text: str) -> Iterator[None]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        progress.add_task(text, total=None)
        yield
