"""Mappings that are in memory in, rows out: a sequence, an iterator (once, forward), or a ``datasets`` object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llmbatch.core.errors import ReadError
from llmbatch.core.types import Cursor, Row
from llmbatch.sources.base import START, Source
from llmbatch.sources.rows import make_row, malformed_row, plain


def open_memory(data: Iterable[Mapping[str, Any]], id_field: str | None = None) -> Source:
    """The source for whatever a caller has in memory."""
    if type(data).__module__.partition(".")[0] == "datasets":
        from llmbatch.sources.dataset import DatasetSource

        return DatasetSource(data, "dataset", id_field)
    return MemorySource(data, id_field)


class MemorySource:
    """Rows of a sequence or of an iterator. An item that is no mapping of JSON-like values is a malformed row.

    An iterator is taken from as rows are asked for; what was taken cannot be read again, and asking for it raises
    ``ReadError``. A cursor's ``offset`` and ``line`` are both the row's index.
    """

    def __init__(self, data: Iterable[Mapping[str, Any]], id_field: str | None = None) -> None:
        self._sequence = data if isinstance(data, Sequence) else None
        self._iterator = iter(()) if self._sequence is not None else iter(data)
        self._taken = 0  # of the iterator
        self._id_field = id_field

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        if self._sequence is not None:
            for index in range(start.index, len(self._sequence)):
                yield self._row(index, self._sequence[index])
            return
        if start.index < self._taken:
            raise ReadError(
                f"an iterator can only be read once, and {self._taken} rows were taken; give a list to read it again"
            )
        for item in self._iterator:
            index = self._taken
            self._taken += 1
            if index >= start.index:
                yield self._row(index, item)

    def locate(self, cursor: Cursor) -> str:
        return f"row {cursor.index}"

    def fingerprint(self) -> list[dict[str, Any]]:
        return [{"memory": None if self._sequence is None else len(self._sequence)}]

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        """sha256 of the rows as JSON; ``None`` for an iterator."""
        if self._sequence is None:
            return None
        sha256 = hashlib.sha256()
        for index in range(start.index, len(self._sequence) if stop is None else stop.index):
            row = self._row(index, self._sequence[index])
            said = row.failure.message if row.failure else json.dumps(row.data, ensure_ascii=False)
            sha256.update(said.encode() + b"\n")
        return sha256.hexdigest()

    def progress(self, cursor: Cursor) -> float | None:
        if self._sequence is None:
            return None
        return min(1.0, cursor.index / max(1, len(self._sequence)))

    def _row(self, index: int, item: Any) -> Row:
        cursor = Cursor(index, 0, index, index)
        if not isinstance(item, Mapping):
            return malformed_row(
                cursor, f"row {index}: a {type(item).__name__}, and a row is a mapping of names to values"
            )
        try:
            data = plain(item)
        except ValueError as error:
            return malformed_row(cursor, f"row {index}: {error}; give text, numbers, lists and mappings")
        return make_row(data, cursor, self._id_field, self.locate)
