"""A plan as a dictionary of plain JSON with a version, and as a file of that."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from subquad.engine.shards.fleet import Fleet
from subquad.engine.shards.fleets import CpuFleet, fleet_of
from subquad.planning.choose import HeadPlan
from subquad.planning.codec import decoded, encoded

FORMAT, VERSION = "subquad plan", 1
PARTS = ("lead", "tol", "method", "scale", "rates", "frames")
HEAD_PARTS = ("views", "tol", "rates", "options", "fallback")


def record_of(made: Any) -> dict[str, Any]:
    """Return a Plan as plain JSON; TypeError, in words, where it holds what JSON cannot."""
    return {
        "format": FORMAT,
        "version": VERSION,
        **{name: encoded(getattr(made, name)) for name in PARTS},
        "fleet": _fleet_encoded(made.fleet),
        "heads": [_head_encoded(head) for head in made.heads],
    }


def parts_of(record: Any) -> dict[str, Any]:
    """Return the fields of the Plan of a record; ValueError, in words, where it is none."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        msg = "this is no plan as `Plan.to_dict` and `Plan.save` make it."
        raise ValueError(msg)
    if record.get("version") != VERSION:
        msg = (
            f"the plan has version {record.get('version')!r}, this subquad reads version "
            f"{VERSION}: plan again, or load it with the subquad that saved it."
        )
        raise ValueError(msg)
    try:
        parts = {name: decoded(record[name]) for name in PARTS}
        parts["heads"] = tuple(_head_decoded(head) for head in record["heads"])
        fleet = record["fleet"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        msg = f"the plan is damaged: {error!r}."
        raise ValueError(msg) from error
    return parts | {"fleet": None if fleet is None else _fleet_decoded(fleet)}


def write(record: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a record so that a reader sees the old file or the new one, never a part."""
    text, path = json.dumps(record, indent=1, allow_nan=False) + "\n", Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> Any:
    """Return the JSON of a file; ValueError, in words, where it is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"`{os.fspath(path)}` is no JSON: {error}."
        raise ValueError(msg) from error


def _head_encoded(head: HeadPlan) -> dict[str, Any]:
    chosen = [i for i, option in enumerate(head.options) if option is head.chosen]
    parts = {name: encoded(getattr(head, name)) for name in HEAD_PARTS}
    return parts | {"chosen": chosen[0] if chosen else None, "crossover": head.crossover}


def _head_decoded(record: dict[str, Any]) -> HeadPlan:
    parts, chosen = {name: decoded(record[name]) for name in HEAD_PARTS}, record["chosen"]
    head = HeadPlan(chosen=None if chosen is None else parts["options"][chosen], **parts)
    vars(head)["crossover"] = str(record["crossover"])  # what it was found from is not stored
    return head


def _fleet_encoded(fleet: Fleet | None) -> dict[str, Any] | None:
    """Return the devices of a fleet of this process; TypeError for others, which no file holds."""
    if fleet is None:
        return None
    if type(fleet) is CpuFleet:
        return {"cpu": encoded(fleet.shares)}
    devices: Sequence[int] | None = getattr(fleet, "devices", None)
    if devices is None or len(set(fleet.shares)) > 1:
        msg = (
            f"the plan is for a {type(fleet).__name__}, which a file cannot hold: save a plan for "
            "devices of one process, or for none, in equal shares."
        )
        raise TypeError(msg)
    return {"cuda": encoded(tuple(devices))}


def _fleet_decoded(record: dict[str, Any]) -> Fleet | None:
    """Return the fleet; ValueError where its devices are not here."""
    return CpuFleet(decoded(record["cpu"])) if "cpu" in record else fleet_of(list(record["cuda"]))
