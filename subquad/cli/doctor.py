"""What is installed, what is usable, and how fast it runs here: tables for the command line."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys

from rich.table import Table

import subquad
from subquad.cost.rates import Rates, memory_bytes
from subquad.engine.threads import thread_count

PACKAGES = {
    "numpy": "core",
    "scipy": "core",
    "sympy": "core",
    "python-flint": "core",
    "array-api-compat": "core",
    "threadpoolctl": "core",
    "typer": "core",
    "rich": "core",
    "matplotlib": "report",
    "jinja2": "report",
    "numba": "compiled passes",
    "dask": "many machines",
    "distributed": "many machines",
    "tokenizers": "capture of real heads",
    "torch": "SDPA beside ours in benchmarks",
}
"""What each package is for; CuPy, which has a name for every CUDA, is not among them."""


def packages() -> Table:
    """Return the versions of the packages, what each is for, and whether a GPU is usable.

    The version of subquad is that of the code that runs.
    """
    table = Table("package", "version", "for", box=None)
    table.add_row("subquad", subquad.__version__, "this package")
    for name, use in PACKAGES.items():
        table.add_row(name, _version(name) or "missing", use)
    table.add_row("cupy", _version_of_cupy() or "missing", _gpu())
    return table


def machine() -> str:
    """Return the line on threads, memory and Python."""
    return (
        f"threads {thread_count()} (SUBQUAD_NUM_THREADS), memory "
        f"{memory_bytes() / 2**30:.1f} GiB, python {sys.version.split()[0]}"
    )


def speeds(rates: Rates) -> Table:
    """Return the rates of the main operations, by dtype."""
    table = Table("rate per second", "float32", "float64", box=None)
    for field in ("exact_flops", "pairs", "polynomial_flops", "features", "elements"):
        table.add_row(field, *(f"{getattr(s, field):.2e}" for s in (rates.float32, rates.float64)))
    return table


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
