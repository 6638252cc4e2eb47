"""The questions: one file each, found by walking this folder.

A file exports

* `QUESTION`, one sentence;
* `experiment(quick)`, which returns the Experiment that answers it;
* `HEADER` and `table_rows(record)`, its table;
* `FINDINGS`, a function of a finished record: what holds and what does not;
* `KEPT`, how the report shows its committed record of `results/`, None where it does not;
* `light(quick)`, where the report also makes it anew: the Experiment, small enough for that;
* `same_case(key)`, where the report compares what it makes anew with rows of another key;
* `beside(fresh, kept)`, where it has more to say of the two: a sentence;
* `NEEDS`, where it cannot run without some package: the names of the modules.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import asdict
from typing import Any


def names() -> tuple[str, ...]:
    """Return the names of all experiments, in the order in which the report shows them."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return tuple(sorted(found, key=lambda name: (_place(name), name)))


def _place(name: str) -> float:
    kept = load(name).KEPT
    return float("inf") if kept is None else kept.place


def load(name: str) -> Any:
    """Return the module of an experiment."""
    return importlib.import_module(f".{name}", __package__)


def findings(record: dict) -> list[dict]:
    """Return what follows from a record, as plain dictionaries; nothing from an unfinished one."""
    if not record["complete"]:
        return []
    return [asdict(finding) for finding in load(record["experiment"]).FINDINGS(record)]
