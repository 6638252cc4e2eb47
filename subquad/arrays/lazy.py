"""Lazy: what is worth computing only if somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Lazy(Generic[Answer]):
    """Calls `find` when first called, keeps the answer, and lets go of what it was found from."""

    def __init__(self, find: Callable[[], Answer]) -> None:
        self._find: Callable[[], Answer] | None = find
        self._answer: list[Answer] = []

    @classmethod
    def known_to_be(cls, answer: Answer) -> Lazy[Answer]:
        """Return one that somebody asked already."""
        found = cls(lambda: answer)
        found.settle(answer)
        return found

    def __call__(self) -> Answer:
        """Return the answer."""
        if not self._answer:
            assert self._find is not None
            self._answer, self._find = [self._find()], None
        return self._answer[0]

    def __reduce__(self) -> tuple[Callable[[Answer], Lazy[Answer]], tuple[Answer]]:
        """Return what pickle and copy need: the answer, found now if nobody asked yet."""
        return Lazy.known_to_be, (self(),)

    @property
    def known(self) -> bool:
        """Whether somebody asked already."""
        return bool(self._answer)

    def settle(self, answer: Answer) -> None:
        """Let go of what it would be found from: `answer` is given where nobody asked yet."""
        if not self._answer:
            self._answer, self._find = [answer], None
