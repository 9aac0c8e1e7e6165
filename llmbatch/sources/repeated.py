"""A source and a number in; each of the source's rows so many times, one after another, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llmbatch.core.types import Cursor, Row
from llmbatch.sources.base import START, Mark, Seeker, Source


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

    def seeks(self) -> Seeker | None:
        seeker = self._source.seeks()
        return None if seeker is None else _RepeatedSeeker(seeker, self._times)

    def files(self) -> Sequence[str]:
        return self._source.files()

    def _each(self, rows: Iterator[Row], start: Cursor) -> Iterator[Row]:
        first = start.index % self._times
        for row in rows:
            for number in range(first, self._times):
                yield _repeated(row, number, self._times)
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


class _RepeatedSeeker:
    def __init__(self, seeker: Seeker, times: int) -> None:
        self._seeker = seeker
        self._times = times

    def at(self, cursors: Sequence[Cursor]) -> Iterator[Row]:
        inner = {cursor.index // self._times: cursor for cursor in cursors}
        rows = self._seeker.at([cursor._replace(index=index) for index, cursor in inner.items()])
        row = next(rows, None)
        for cursor in cursors:
            index, number = divmod(cursor.index, self._times)
            while row is not None and row.index < index:
                row = next(rows, None)
            if row is not None:
                yield _repeated(row, number, self._times)

    def marks(self, rows: int) -> Iterator[Mark]:
        for start, count in self._seeker.marks(max(1, rows // self._times)):
            yield Mark(start._replace(index=start.index * self._times), count * self._times)


def _repeated(row: Row, number: int, times: int) -> Row:
    index = row.index * times + number
    return Row(index, f"{row.id}#{number}", row.data, row.cursor._replace(index=index), row.failure)
