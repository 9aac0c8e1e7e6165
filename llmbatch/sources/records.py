"""Files in; rows of which each holds one record of a wire format, any JSON value or text (``formats/base.Container``), out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

from llmbatch.core.types import Cursor, Row
from llmbatch.core.words import excerpt
from llmbatch.formats.base import RECORD, Format
from llmbatch.sources.input_files import InputFiles, reading
from llmbatch.sources.jsonl import json_value
from llmbatch.sources.lines import MAX_LINE, Lines
from llmbatch.sources.rows import make_row, malformed_row

Read = Callable[[InputFiles, Cursor], Iterator[Row]]
_TOO_LONG = f"longer than {MAX_LINE >> 20} MiB"


def records(format_: Format, id_field: str | None, most: int | None = None) -> Read:
    """What reads the records of a format from a place on; ``id_field`` is that of a record which is an object.

    One of more than ``most`` bytes is malformed.
    """
    make = _Maker(format_, id_field, most)
    return make.of_files if format_.container in ("files", "texts") else make.of_lines


class _Maker:
    def __init__(self, format_: Format, id_field: str | None, most: int | None) -> None:
        self._format = format_
        self._id_field = id_field
        self._most = most
        own = {"csv_lines": _fields, "texts": _text}
        self._parse: Callable[[bytes], Any] = own.get(format_.container, self._value)

    def of_lines(self, files: InputFiles, start: Cursor) -> Iterator[Row]:
        index, offset, before = start.index, start.offset, start.line
        for number in range(start.file, len(files)):
            name, called = files.name(number), files.called(number)
            with files.open(number, offset) as stream:
                lines = Lines(stream, name, offset, before)
                for raw in lines:
                    cursor = Cursor(index, number, lines.start, lines.number - 1)
                    yield self._row(None if lines.too_long else raw, cursor, called)
                    index += 1
            offset = before = 0

    def of_files(self, files: InputFiles, start: Cursor) -> Iterator[Row]:
        """A row a file, an empty one too; index and file count alike."""
        for number in range(start.file, len(files)):
            with files.open(number) as stream, reading(files.name(number), lambda: 0):
                content = stream.read(MAX_LINE + 1)
            yield self._row(None if len(content) > MAX_LINE else content, Cursor(number, number), files.called(number))

    def _row(self, raw: bytes | None, cursor: Cursor, name: str) -> Row:
        try:
            if raw is None:
                raise ValueError(_TOO_LONG)
            if self._most is not None and (size := len(raw.rstrip(b"\r\n"))) > self._most:
                raise ValueError(f"a record of {size:,} bytes, and one may have {self._most:,}; saw: {excerpt(raw)}")
            record = self._parse(raw)
        except ValueError as error:
            return malformed_row(cursor, f"{name}:{cursor.line + 1}: {error}")
        data = {RECORD: record}
        if problem := self._format.problem(data):
            return malformed_row(cursor, f"{name}:{cursor.line + 1}: {problem}; saw: {excerpt(raw)}")
        if not isinstance(record, dict):
            return Row(cursor.index, cursor.index, data, cursor)
        row = make_row(record, cursor, self._id_field, lambda at: f"{name}:{at.line + 1}")
        return row if row.failure is not None else Row(row.index, row.id, data, cursor)

    def _value(self, raw: bytes) -> Any:
        """JSON; or the text as it is, where the format takes that."""
        try:
            return json_value(raw)
        except ValueError:
            if not self._format.takes_text:
                raise
            return _text(raw).removesuffix("\n").removesuffix("\r")


def _fields(raw: bytes) -> list[str]:
    """The fields of a line of CSV. A line break within quotes ends it all the same."""
    try:
        return next(csv.reader(io.StringIO(_text(raw).rstrip("\r\n"), newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"broken CSV: {error}; a record is one line; saw: {excerpt(raw)}") from None


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        said = (
            f"not UTF-8: 0x{raw[error.start]:02x} is byte {error.start + 1} of it; convert it, e.g. with iconv -t UTF-8"
        )
        raise ValueError(said) from None
