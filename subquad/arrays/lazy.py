"""Lazy: what is worth computing only if somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class Lazy(Generic[Answer]):
    """Calls `find` when first called, keeps the answer, and lets go of what it was found from.

    Threads that ask at once wait for the one that finds.

    Parameters
    ----------
    find : callable
        Returns the answer; called at most once, or again after it raised.
    released : optional
        The answer of a copy, and after `release`, where nobody asked before. Without it, both find
        the answer first.
    """

    def __init__(self, find: Callable[[], Answer], released: Any = ...) -> None:
        self._find: Callable[[], Answer] | None = find
        self._answer: list[Answer] = []
        self._released, self._lock = released, Lock()

    @classmethod
    def known_to_be(cls, answer: Answer) -> Lazy[Answer]:
        """Return one that somebody asked already."""
        found = cls(lambda: answer)
        found.release()
        return found

    def __call__(self) -> Answer:
        """Return the answer."""
        if not self._answer:
            with self._lock:
                if self._find is not None:
                    self._answer, self._find = [self._find()], None
        return self._answer[0]

    def __reduce__(self) -> tuple[Callable[[Answer], Lazy[Answer]], tuple[Answer]]:
        """Return what pickle and copy need: the answer."""
        asked = self.known or self._released is ...
        return Lazy.known_to_be, (self() if asked else self._released,)

    @property
    def known(self) -> bool:
        """Whether there is an answer already."""
        return bool(self._answer)

    def release(self) -> None:
        """Let go of what the answer would be found from."""
        if self._released is ...:
            self()
        with self._lock:
            if self._find is not None:
                self._answer, self._find = [self._released], None
