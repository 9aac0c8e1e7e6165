"""CSV with a header row in, rows out; all values are text.

Read as RFC 4180 has it: quotes around a field, doubled quotes and line breaks within them. A record with more or fewer
fields than the header is a malformed row. Where the quotes of a record are broken, its first line is the malformed row
and reading goes on at the next line, so that a quote that was never closed does not swallow the rows after it.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.types import Cursor, Row
from llmbatch.core.words import excerpt
from llmbatch.sources.base import START, Mark, SourceSettings
from llmbatch.sources.file_source import FileSource
from llmbatch.sources.input_files import InputFiles, suffix_of
from llmbatch.sources.lines import MAX_LINE, Lines
from llmbatch.sources.rows import choose_columns, make_row, malformed_row


def open_csv(settings: SourceSettings) -> FileSource:
    """A source of CSV files, each with its own header. Raises ``SourceError`` for a header that cannot be one."""
    files = InputFiles.of(settings)
    format_ = _Format(settings)
    if settings.path != "-":
        for number in range(len(files)):
            format_.header(files, number)
    return FileSource(files, format_.read, _Seeker(files, format_))


class _Line(NamedTuple):
    text: str
    end: int  # the offset behind it
    problem: str | None  # why the record that it is in cannot be a row


class _Feed:
    """The lines of a file as ``csv.reader`` takes them, with a memory for those of the record at hand.

    An iterator and no generator: it can end (which tells the reader that a record is too long) and go on.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._source = iter(lines)
        self._ahead: deque[_Line] = deque()
        self.record: list[_Line] = []
        self._length = 0

    def begin(self) -> None:
        """A new record starts at the next line."""
        self.record = []
        self._length = 0

    def put_back(self) -> None:
        """Give the lines of the record at hand out again, all but its first."""
        self._ahead.extendleft(reversed(self.record[1:]))
        del self.record[1:]

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if self._length > MAX_LINE:
            raise StopIteration
        line = self._ahead.popleft() if self._ahead else self._read()
        self.record.append(line)
        self._length += len(line.text)
        return line.text

    def _read(self) -> _Line:
        raw = next(self._source)
        if self._lines.too_long:
            return _Line("", self._lines.end, f"a line longer than {MAX_LINE >> 20} MiB")
        try:
            return _Line(raw.decode(), self._lines.end, None)
        except UnicodeDecodeError as error:
            said = f"not UTF-8: byte 0x{raw[error.start]:02x}; convert the file, e.g. with iconv -t UTF-8"
            return _Line(raw.decode(errors="replace"), self._lines.end, said)


class _Format:
    """How the job's CSV files are read."""

    def __init__(self, settings: SourceSettings) -> None:
        self._id_field = settings.id_field
        self._columns = settings.columns
        self._delimiter = settings.delimiter or ("\t" if suffix_of(settings.path) == ".tsv" else ",")
        # The library's limit is the process's, and smaller than a long document; MAX_LINE bounds memory in any case.
        csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_LINE))

    def header(self, files: InputFiles, number: int) -> None:
        """Look at a file's header alone. Raises ``SourceError``."""
        with files.open(number) as stream:
            self._read_header(_Feed(Lines(stream, files.name(number), blank=True)), files.name(number))

    def read(self, files: InputFiles, start: Cursor) -> Iterator[Row]:
        index, offset, before = start.index, start.offset, start.line
        for number in range(start.file, len(files)):
            name = files.name(number)
            with files.open(number) as stream:
                feed = _Feed(Lines(stream, name, blank=True))
                try:
                    header = self._read_header(feed, name)
                except SourceError as error:
                    raise ReadError(str(error)) from error
                if header is None:
                    continue
                at = feed.record[-1].end
                if offset <= at:
                    for row in self._records(
                        feed, header, Cursor(index, number, at, len(feed.record)), files.called(number)
                    ):
                        index += 1
                        yield row
            if offset > at:
                with files.open(number, offset) as stream:
                    feed = _Feed(Lines(stream, name, offset, before, blank=True))
                    for row in self._records(feed, header, Cursor(index, number, offset, before), files.called(number)):
                        index += 1
                        yield row
            offset = before = 0

    def at(self, files: InputFiles, cursors: Sequence[Cursor]) -> Iterator[Row]:
        for number, picked in groupby(cursors, attrgetter("file")):
            name = files.name(number)
            with files.open_to_seek(number) as stream:
                header = self._read_header(_Feed(Lines(stream, name, blank=True)), name)
                for cursor in picked:
                    stream.seek(cursor.offset)
                    feed = _Feed(Lines(stream, name, cursor.offset, cursor.line, blank=True))
                    row = (
                        None
                        if header is None
                        else next(self._records(feed, header, cursor, files.called(number)), None)
                    )
                    if row is None:
                        raise ReadError(
                            f"{name}: ends before byte {cursor.offset}, where a row was before: it was cut off"
                        )
                    yield row

    def _read_header(self, feed: _Feed, name: str) -> list[str] | None:
        """The names of the columns; ``None`` for a file without a line. Raises ``SourceError``."""
        try:
            header = next((fields for fields in self._reader(feed) if any(map(str.strip, fields))), None)
        except csv.Error as error:
            raise SourceError(f"{name}:1: the header row cannot be read: {error}") from error
        if header is None:
            return None
        if problem := next((line.problem for line in feed.record if line.problem), None):
            raise SourceError(f"{name}:1: the header row cannot be read: {problem}")
        twice = sorted({column for column in header if header.count(column) > 1})
        if twice:
            raise SourceError(
                f"{name}:1: the column {twice[0]!r} is twice in the header row ({excerpt(', '.join(header))}); "
                "give every column a name of its own, or add a header row if there is none"
            )
        if len(header) == 1 and (other := next((d for d in ";\t|" if d in header[0] and d != self._delimiter), None)):
            raise SourceError(f"{name}:1: the columns seem to be divided by {other!r}: set input.delimiter to it")
        choose_columns(f"{name}:1", header, self._columns, self._id_field)
        return header

    def _reader(self, feed: _Feed) -> Iterator[list[str]]:
        return csv.reader(feed, delimiter=self._delimiter, strict=True)

    def _records(self, feed: _Feed, header: list[str], start: Cursor, name: str) -> Iterator[Row]:
        reader = self._reader(feed)
        index, number, offset, before = start
        chosen = choose_columns(name, header, self._columns, self._id_field)

        def locate(cursor: Cursor) -> str:
            return f"{name}:{cursor.line + 1}"

        while True:
            feed.begin()
            fields: list[str] = []
            problem: str | None = None
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                feed.put_back()
                problem = f"broken CSV: {error}; reading goes on at the next line"
            cursor = Cursor(index, number, offset, before)
            offset, before = feed.record[-1].end, before + len(feed.record)
            problem = next((line.problem for line in feed.record if line.problem), problem)
            if problem is None:
                if not fields or (len(feed.record) == 1 and feed.record[0].text.isspace()):
                    continue
                if len(fields) == len(header):
                    data = dict(zip(header, fields, strict=True))
                    if self._columns:
                        data = {column: data[column] for column in chosen}
                    yield make_row(data, cursor, self._id_field, locate)
                    index += 1
                    continue
                problem = (
                    f"{len(fields)} fields, and the header row has {len(header)}; "
                    f"put quotes around fields that hold {self._delimiter!r}"
                )
            yield malformed_row(cursor, f"{locate(cursor)}: {problem}; saw: {excerpt(feed.record[0].text)}")
            index += 1


class _Seeker:
    """Single records; where one begins is told by reading those before it."""

    def __init__(self, files: InputFiles, format_: _Format) -> None:
        self._files = files
        self._format = format_

    def at(self, cursors: Sequence[Cursor]) -> Iterator[Row]:
        return self._format.at(self._files, cursors)

    def marks(self, rows: int) -> Iterator[Mark]:
        start, count = START, 0
        for row in self._format.read(self._files, START):
            if count == rows:
                yield Mark(start, count)
                count = 0
            if not count:
                start = row.cursor
            count += 1
        if count:
            yield Mark(start, count)
