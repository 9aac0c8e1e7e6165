"""A source and a number in; each of the source's rows so many times, one after another, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llmbatch.core.types import Cursor, Row
from llmbatch.sources.base import START, Source


class Repeated:
    """Row i of the source is the rows ``i * times`` up to ``(i + 1) * times``, with its id, ``#`` and a number from 0.

    A cursor is that of the source's row, but for the index.
    """

    def __init__(self, source: Source, times: int) -> None:
        self._source = source
        self._times = times

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        return self._each(self._source.rows(self._inner(start)), start)

    def places(self, start: Cursor = START) -> Iterator[Row]:
        return self._each(self._source.places(self._inner(start)), start)

    def files(self) -> Sequence[str]:
        return self._source.files()

    def _each(self, rows: Iterator[Row], start: Cursor) -> Iterator[Row]:
        first = start.index % self._times
        for row in rows:
            for number in range(first, self._times):
                index = row.index * self._times + number
                yield Row(index, f"{row.id}#{number}", row.data, row.cursor._replace(index=index), row.failure)
            first = 0

    def locate(self, cursor: Cursor) -> str:
        return self._source.locate(self._inner(cursor))

    def notes(self) -> Sequence[str]:
        return self._source.notes()

    def fingerprint(self, files: int | None = None) -> list[dict[str, Any]]:
        return self._source.fingerprint(files)

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        """As of the source. A row of it of which only some are before ``stop`` is not part of it, but of what begins there."""
        return self._source.digest(self._inner(start), None if stop is None else self._inner(stop))

    def progress(self, cursor: Cursor) -> float | None:
        return self._source.progress(self._inner(cursor))

    def _inner(self, cursor: Cursor) -> Cursor:
        return cursor._replace(index=cursor.index // self._times)
