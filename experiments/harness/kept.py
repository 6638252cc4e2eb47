"""How the report shows an experiment: what its module exports as `KEPT`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kept:
    """Where on the page an experiment stands, under which heading, with which figures and tables.

    Parameters
    ----------
    place : int
        Sections stand in ascending order of it.
    title : str
        The heading.
    charts : tuple of str
        "module.function" of `report/`: takes a record, returns the figure and its caption.
    about : callable, optional
        Record -> the sizes in words, a sentence or two.
    summary : (header, callable), optional
        A short table that stands open, its rows a function of the record; the long one is folded.
    """

    place: int
    title: str
    charts: tuple[str, ...] = ()
    about: Callable[[dict], str] | None = None
    summary: tuple[tuple[str, ...], Callable[[dict], list[list[Any]]]] | None = None
