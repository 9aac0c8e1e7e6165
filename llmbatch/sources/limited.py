"""A source and a number in; the source's first so many rows out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from llmbatch.core.types import Cursor, Row
from llmbatch.sources.base import START, Mark, Seeker, Source


class Limited:
    """The first ``limit`` rows of a source, malformed ones included."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self._limit = limit

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        return islice(self._source.rows(start), max(0, self._limit - start.index))

    def places(self, start: Cursor = START) -> Iterator[Row]:
        return islice(self._source.places(start), max(0, self._limit - start.index))

    def seeks(self) -> Seeker | None:
        seeker = self._source.seeks()
        return None if seeker is None else _LimitedSeeker(seeker, self._limit)

    def files(self) -> Sequence[str]:
        return self._source.files()

    def notes(self) -> Sequence[str]:
        return self._source.notes()

    def locate(self, cursor: Cursor) -> str:
        return self._source.locate(cursor)

    def fingerprint(self, files: int | None = None) -> list[dict[str, Any]]:
        return self._source.fingerprint(files)

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        """As of the source; with ``stop`` ``None`` the rows beyond the limit are part of it too."""
        return self._source.digest(start, stop)

    def progress(self, cursor: Cursor) -> float | None:
        """The greater of the share of the limit and the share of the input, which may end before the limit."""
        return max(min(1.0, cursor.index / self._limit), self._source.progress(cursor) or 0.0)


class _LimitedSeeker:
    def __init__(self, seeker: Seeker, limit: int) -> None:
        self._seeker = seeker
        self._limit = limit
        self.at = seeker.at

    def marks(self, rows: int) -> Iterator[Mark]:
        for mark in self._seeker.marks(rows):
            left = self._limit - mark.start.index
            if left > 0:
                yield Mark(mark.start, min(mark.rows, left))
            if left <= mark.rows:
                return
