"""Files, and a function that reads rows from a place in them on, in; a source out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llmbatch.core.types import Cursor, Row
from llmbatch.sources.base import START, Seeker
from llmbatch.sources.input_files import InputFiles


class FileSource:
    """A source over files whose format is a function that reads rows from a place on; ``seeker`` reads single ones."""

    def __init__(
        self, files: InputFiles, read: Callable[[InputFiles, Cursor], Iterator[Row]], seeker: Seeker | None = None
    ) -> None:
        self._files = files
        self._read = read
        self._seeker = seeker

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        return self._read(self._files, start)

    def places(self, start: Cursor = START) -> Iterator[Row]:
        return self.rows(start)

    def seeks(self) -> Seeker | None:
        return self._seeker if self._seeker is not None and self._files.plain else None

    def files(self) -> list[str]:
        return self._files.names()

    def notes(self) -> list[str]:
        return []

    def locate(self, cursor: Cursor) -> str:
        return f"{self._files.name(cursor.file)}:{cursor.line + 1}"

    def called(self, cursor: Cursor) -> str:
        """The place as records tell it."""
        return f"{self._files.called(cursor.file)}:{cursor.line + 1}"

    def fingerprint(self, files: int | None = None) -> list[dict[str, Any]]:
        return self._files.fingerprint(files)

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        return self._files.digest(start, stop)

    def progress(self, cursor: Cursor) -> float | None:
        return self._files.progress(cursor)
