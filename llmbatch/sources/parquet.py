"""Parquet files in, rows out; values become JSON values as ``rows.plain`` says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.types import Cursor, Row
from llmbatch.sources.base import START, Seeker, Source, SourceSettings
from llmbatch.sources.input_files import PUT_RIGHT, InputFiles, read_error
from llmbatch.sources.places import is_url
from llmbatch.sources.rows import choose_columns
from llmbatch.sources.tables import BATCH, fields_of, table_row


def open_parquet(settings: SourceSettings) -> Source:
    """A source of one or many Parquet files. Raises ``SourceError`` where the first one lacks a column."""
    if settings.path == "-":
        raise SourceError("Parquet cannot be read from stdin: its index is at its end; name the file")
    return ParquetSource(InputFiles.named(settings.path, settings.storage_options), settings)


class ParquetSource:
    """Rows of Parquet files. A cursor's ``offset`` and ``line`` are both the row's number in its file."""

    def __init__(self, files: InputFiles, settings: SourceSettings) -> None:
        self._files = files
        self._id_field = settings.id_field
        self._columns = settings.columns
        self._rows_in: dict[int, int] = {}
        self._passed: tuple[Iterator[Row], int] | None = (
            None  # rows after the last digest, and the index of their first
        )
        with self._open(0) as file:
            self._choose(file, 0)

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        """Row groups before ``start`` are not read."""
        index, skip = start.index, start.offset
        for number in range(start.file, len(self._files)):
            with self._open(number) as file:
                for position, batch in self._batches(file, number, skip):
                    for row, fields in enumerate(fields_of(batch), position):
                        yield table_row(fields, Cursor(index, number, row, row), self._id_field, self._called)
                        index += 1
            skip = 0

    def locate(self, cursor: Cursor) -> str:
        return f"{self._files.name(cursor.file)}[{cursor.offset}]"

    def _called(self, cursor: Cursor) -> str:
        return f"{self._files.called(cursor.file)}[{cursor.offset}]"

    def places(self, start: Cursor = START) -> Iterator[Row]:
        return self.rows(start)

    def seeks(self) -> Seeker | None:
        """``None``: a row is had by decoding all of its row group."""
        return None

    def files(self) -> list[str]:
        return self._files.names()

    def notes(self) -> list[str]:
        return []

    def fingerprint(self, files: int | None = None) -> list[dict[str, Any]]:
        """The end of a Parquet file, which is part of ``ends``, is its index with statistics of every column."""
        return self._files.fingerprint(files)

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        """Of the rows' values. What follows on the last digest is read on from there, so that nothing is read twice for it."""
        rows, at = self._passed or (iter(()), -1)
        if at != start.index:
            rows = self.rows(start)
        sha256, count = hashlib.sha256(), 0
        for row in islice(rows, None if stop is None else stop.index - start.index):
            sha256.update(json.dumps(row.data, ensure_ascii=False, sort_keys=True).encode() + b"\n")
            count += 1
        self._passed = (rows, start.index + count)
        return sha256.hexdigest()

    def progress(self, cursor: Cursor) -> float | None:
        sizes = self._files.sizes
        before = float(sum(sizes[: cursor.file]))
        if cursor.offset and cursor.file < len(sizes):
            if cursor.file not in self._rows_in:
                with self._open(cursor.file):
                    pass
            before += sizes[cursor.file] * min(1.0, cursor.offset / max(1, self._rows_in[cursor.file]))
        return min(1.0, before / sum(sizes))

    def _open(self, number: int) -> Any:
        """A ``pyarrow.parquet.ParquetFile``. Raises ``ReadError``."""
        import pyarrow.parquet as pq

        try:
            path = self._files.path(number)
            file = pq.ParquetFile(self._files.raw(number) if is_url(path) else path, pre_buffer=False)
        except (OSError, ValueError) as error:
            raise read_error(self._files.name(number), 0, error) from error
        self._rows_in[number] = file.metadata.num_rows
        return file

    def _choose(self, file: Any, number: int) -> list[str]:
        return choose_columns(self._files.name(number), file.schema_arrow.names, self._columns, self._id_field)

    def _batches(self, file: Any, number: int, skip: int) -> Iterator[tuple[int, Any]]:
        """(number of its first row in the file, batch) from row ``skip`` on. Raises ``ReadError``."""
        name, of_group = (
            self._files.name(number),
            [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)],
        )
        if skip > sum(of_group):
            raise ReadError(f"{name}: has {sum(of_group)} rows, and {skip} were read before")
        group, at = 0, 0
        while group < len(of_group) and at + of_group[group] <= skip:
            at += of_group[group]
            group += 1
        try:
            columns = self._choose(file, number)
            for batch in file.iter_batches(BATCH, row_groups=range(group, len(of_group)), columns=columns):
                start, at = at, at + batch.num_rows
                if at > skip:
                    yield max(start, skip), batch.slice(max(0, skip - start))
        except SourceError as error:
            raise ReadError(str(error)) from error
        except (OSError, ValueError, NotImplementedError) as error:
            raise ReadError(f"{name}: cannot be read beyond row {at}: {error}; {PUT_RIGHT}") from error
