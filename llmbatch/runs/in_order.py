"""Windows as they are completed in, in any order; their lines of results out, in input order.

Behind one slow row any number of windows may be complete. They lie on the disk as sealed parts by then, and are read from there
when their turn comes: in memory are only those that the writer has not sealed yet, of which a run has a bounded number.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmbatch.folder.parts import Parts
from llmbatch.folder.records import part_lines
from llmbatch.runs.window import OpenWindow


class InOrder:
    """Of a run that begins with window 0."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._following = 0
        self._sealed: set[int] = set()
        self._unsealed: dict[int, OpenWindow] = {}

    @property
    def held(self) -> int:
        """How many windows are in memory."""
        return len(self._unsealed)

    def add(self, window: OpenWindow) -> None:
        """Take a window that is complete and was given to the writer."""
        self._unsealed[window.bounds.window] = window
        for number in [number for number in self._unsealed if self._parts.path(number).exists()]:
            del self._unsealed[number]
            self._sealed.add(number)

    def lines(self) -> Iterator[bytes]:
        """The lines of the windows whose turn it is. Raises ``FolderError`` for a part that cannot be read."""
        while (number := self._following) in self._sealed or number in self._unsealed:
            self._following += 1
            self._sealed.discard(number)
            window = self._unsealed.pop(number, None)
            yield from window.sealed_lines() if window is not None else part_lines([self._parts.path(number)])


__all__ = ["InOrder"]
