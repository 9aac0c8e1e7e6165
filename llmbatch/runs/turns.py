"""Rows as they are begun and what came of each, in any order, in; what came of them, in the order in which they were begun, out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Its length is how many rows are begun whose turn has not come."""

    def __init__(self) -> None:
        self._begun: deque[int] = deque()
        self._finished: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._begun)

    @property
    def outstanding(self) -> int:
        """Rows of which nothing came yet."""
        return len(self._begun) - len(self._finished)

    def begin(self, indexes: Iterable[int]) -> None:
        self._begun.extend(indexes)

    def finish(self, index: int, came: T) -> list[T]:
        """What came of a row that was begun; returns what came of those whose turn it is by that."""
        self._finished[index] = came
        ready: list[T] = []
        while self._begun and (first := self._finished.pop(self._begun[0], None)) is not None:
            self._begun.popleft()
            ready.append(first)
        return ready


__all__ = ["Turns"]
