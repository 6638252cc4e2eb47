"""Results as JSON, row by row: a killed run loses the row in progress and goes on from there."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import subquad
from subquad import Rates, Speed, measured_rates
from subquad.engine.threads import thread_count

SCHEMA = 1
RESULTS = Path(__file__).parents[1] / "results"
PACKAGES, OPTIONAL = ("numpy", "scipy", "python-flint"), ("torch", "numba")
IDENTITY = ("schema", "experiment", "settings", "versions", "machine")

Progress = Callable[[str], None]
"""Called with what is being done, before each row."""


@dataclass(frozen=True)
class Experiment:
    """One question, its settings (`seed` among them) and its rows, each a function of the rates.

    `derive` makes what follows from all the rows together, slopes and ratios say. `rates`, where
    given, are used in place of measured ones: the plans then depend on no clock.
    """

    name: str
    question: str
    settings: dict[str, Any]
    cases: Mapping[str, Callable[[Rates], dict]]
    derive: Callable[[list[dict]], dict] | None = None
    rates: Rates | None = None


def run(
    experiment: Experiment,
    path: Path | None = None,
    *,
    fresh: bool = False,
    rates: Rates | None = None,
    progress: Progress | None = None,
) -> dict:
    """Return the finished record; with a path, each row is on disk as soon as it is made.

    Rows found at `path` are kept, and their rates used again, unless `fresh`, or unless the
    schema, settings, versions or machine differ: then all rows are made anew.
    """
    record = _begun(experiment, None if fresh else path, rates)
    rates = rates_from(record["rates"])
    done = {row["key"]: row for row in record["rows"]}
    for key, case in experiment.cases.items():
        if key in done:
            continue
        if progress is not None:
            progress(f"{experiment.name} {len(done) + 1}/{len(experiment.cases)}: {key}")
        done[key] = {"key": key, **plain(case(rates))}
        record["rows"] = [done[k] for k in experiment.cases if k in done]
        record["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
        write_json(record, path)
    record["derived"] = plain(experiment.derive(record["rows"])) if experiment.derive else {}
    record["complete"] = True
    write_json(record, path)
    return record


def _begun(experiment: Experiment, path: Path | None, rates: Rates | None) -> dict:
    """Return what is at `path` if it is of this experiment as it stands, else a blank record."""
    blank = plain(
        {
            "schema": SCHEMA,
            "experiment": experiment.name,
            "question": experiment.question,
            "date": None,
            "complete": False,
            "settings": experiment.settings,
            "versions": versions(),
            "machine": machine(),
        }
    )
    found = read_json(path) if path is not None and path.exists() else None
    if found is not None and all(found.get(k) == blank[k] for k in IDENTITY):
        return {**found, "question": blank["question"], "complete": False}
    rates = experiment.rates or rates or measured_rates()
    return {**blank, "rates": plain(rates.as_dict()), "rows": [], "derived": {}}


def rates_from(numbers: dict) -> Rates:
    """Return the Rates that a record holds as plain numbers, None for an infinite one."""

    def value(x):
        if not isinstance(x, dict):
            return x
        return Speed(**{k: math.inf if number is None else number for k, number in x.items()})

    return Rates(**{name: value(x) for name, x in numbers.items()})


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on; OPTIONAL ones where they are installed."""
    names = [*PACKAGES, *(name for name in OPTIONAL if importlib.util.find_spec(name))]
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "subquad": subquad.__version__, **found}


def machine() -> dict[str, Any]:
    """Return the processor's name, the cores this process may use and the threads it will."""
    name = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return {"processor": name or "unknown", "cores": cores, "threads": thread_count()}


def plain(value: Any) -> Any:
    """Return `value` as JSON has it: numpy scalars unwrapped, infinities None; NaN is an error."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            msg = "a result is NaN; a row holds numbers, or None where there is none."
            raise ValueError(msg)
        return None
    return value


def read_json(path: Path) -> dict | None:
    """Return the record at `path`, or None where the file holds no JSON object."""
    try:
        found = json.loads(path.read_text())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def write_json(record: dict, path: Path | None) -> None:
    """Write a record so that a reader sees the old file or the new one, never a part."""
    if path is not None:
        write_texts({path: as_json(record)})


def as_json(record: dict) -> str:
    """Return the text of a record's file; ValueError where a number is not finite."""
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write files, and the folders to them, so that a failure or a kill leaves whole ones.

    All are written beside their places before the first of them takes its place.
    """
    parts = {path: path.with_name(path.name + ".part") for path in texts}
    try:
        for path, part in parts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(texts[path], encoding="utf-8")
        for path, part in parts.items():
            os.replace(part, path)
    except BaseException:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise
