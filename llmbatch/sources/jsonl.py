"""JSON lines in, rows out; a line that is not a JSON object becomes a malformed row, and its neighbours live.

What is taken is JSON as its standard has it: NaN, infinities and numbers too great for a float are not, nor is text with
half of a surrogate pair, because neither can be written back. Of two equal keys in an object the last wins. Whole numbers
are kept exactly, up to Python's limit of 4,300 digits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, NoReturn

from llmbatch.core.errors import SourceError
from llmbatch.core.record import json_decoder
from llmbatch.core.types import Cursor, Row
from llmbatch.core.words import excerpt, is_encodable
from llmbatch.sources.base import Block, Mark, Source, SourceSettings
from llmbatch.sources.file_source import FileSource
from llmbatch.sources.input_files import InputFiles, suffix_of
from llmbatch.sources.lines import MAX_LINE, Lines, PickedLines, first_line
from llmbatch.sources.rows import MAX_DEPTH, depth, make_row, malformed_row

Complaint = Callable[[dict[str, Any]], str | None]
"""What is wrong with an object, in words, or ``None``; for formats that are JSON lines of a certain kind."""


def open_jsonl(settings: SourceSettings) -> Source:
    """A source of JSON lines: plain, .gz, .zst, .bz2 or .xz, one or many files, or stdin.

    Raises ``SourceError`` for a .json file that is one document.
    """
    files = InputFiles.of(settings)
    if (
        suffix_of(files.name(0)) == ".json"
        and (first := first_line(files).strip())
        and (first[:1] == b"[" or first == b"{")
    ):
        raise SourceError(
            f"{settings.path}: one JSON document, and not a JSON object on every line; turn a list into lines with "
            "jq -c '.[]' FILE.json > FILE.jsonl"
        )
    return json_lines(files, settings.id_field)


def json_lines(
    files: InputFiles, id_field: str | None, complaint: Complaint | None = None, *, optional_id: bool = False
) -> FileSource:
    """A source of the files' lines. An object for which ``complaint`` has words is a malformed row.

    ``optional_id``: one without the ``id_field`` is called by its index.
    """

    def locate(cursor: Cursor) -> str:
        return f"{files.called(cursor.file)}:{cursor.line + 1}"

    def rows_on(lines: Lines | PickedLines, index: int, number: int) -> Generator[Row, None, int]:
        """The rows on lines of one file, of which the first has this index; that of a picked line is its own. Returns the next."""
        for raw in lines:
            data: Any = None
            try:
                data = _read(raw)
            except (ValueError, RecursionError) as error:
                problem: str | None = _explain(error, lines)
            else:
                problem = _problem(data, raw) or (complaint(data) if complaint else None)
            cursor = lines.cursor or Cursor(index, number, lines.start, lines.number - 1)
            if problem is None:
                yield make_row(data, cursor, id_field, locate, optional=optional_id)
            else:
                yield malformed_row(cursor, f"{locate(cursor)}: {problem}; saw: {excerpt(lines.raw)}")
            index += 1
        return index

    def read(files: InputFiles, start: Cursor) -> Iterator[Row]:
        index, offset, before = start.index, start.offset, start.line
        for number in range(start.file, len(files)):
            with files.open(number, offset) as stream:
                index = yield from rows_on(Lines(stream, files.name(number), offset, before), index, number)
            offset = before = 0

    def at(cursors: Sequence[Cursor]) -> Iterator[Row]:
        for number, picked in groupby(cursors, attrgetter("file")):
            with files.open_to_pick(number) as look:
                yield from rows_on(PickedLines(look, files.name(number), picked), 0, number)

    def behind(number: int, offset: int) -> Iterator[Row]:
        """The rows of one file whose lines begin at a byte or behind it; they and their lines are counted from there."""
        with files.open(number, max(0, offset - 1)) as stream:
            if offset:
                offset += len(stream.readline(MAX_LINE)) - 1
            yield from rows_on(Lines(stream, files.name(number), offset), 0, number)

    return FileSource(files, read, LineSeeker(files, at, behind))


class LineSeeker:
    """Finds the lines of plain files for less than reading what is on them: a row is a line that is not blank.

    ``behind`` gives the rows of a file from a byte on. Implements ``Scattered`` and ``Counting``.
    """

    def __init__(
        self,
        files: InputFiles,
        at: Callable[[Sequence[Cursor]], Iterator[Row]],
        behind: Callable[[int, int], Iterator[Row]],
    ) -> None:
        self._files = files
        self._behind = behind
        self.at = at

    def stretches(self, count: int, rows: int) -> Iterator[Iterator[Row]]:
        total = sum(self._files.sizes)
        for number in range(count):
            yield islice(self._between(total * number // count, total * (number + 1) // count), rows)

    def _between(self, begin: int, end: int) -> Iterator[Row]:
        """The rows that begin in these bytes of all files together."""
        before = 0
        for number, size in enumerate(self._files.sizes):
            if before + size > begin and before < end:
                for row in self._behind(number, max(0, begin - before)):
                    if before + row.cursor.offset >= end:
                        return
                    yield row
            before += size

    def picked(self, start: Cursor, indexes: Sequence[int]) -> Iterator[Row]:
        yield from self.at(self._cursors(start, frozenset(indexes)))

    def block(self, start: Cursor, rows: int, size: int) -> Block:
        count = taken = 0
        for number, lines in self._lines(start):
            for raw in lines:
                if count >= rows or taken >= size:
                    return Block(count, Cursor(start.index + count, number, lines.start, lines.number - 1))
                count += 1
                taken += len(raw)
        return Block(count, None)

    def _cursors(self, start: Cursor, wanted: frozenset[int]) -> list[Cursor]:
        found: list[Cursor] = []
        index = start.index
        for number, lines in self._lines(start) if wanted else ():
            for _ in lines:
                if index in wanted:
                    found.append(Cursor(index, number, lines.start, lines.number - 1))
                    if len(found) == len(wanted):
                        return found
                index += 1
        return found

    def _lines(self, start: Cursor) -> Iterator[tuple[int, Lines]]:
        """The lines of each file from ``start`` on, by its number."""
        offset, before = start.offset, start.line
        for number in range(start.file, len(self._files)):
            with self._files.open(number, offset) as stream:
                yield number, Lines(stream, self._files.name(number), offset, before)
            offset = before = 0

    def marks(self, rows: int) -> Iterator[Mark]:
        start, index, count = Cursor(0), 0, 0
        for number in range(len(self._files)):
            with self._files.open(number) as stream:
                lines = Lines(stream, self._files.name(number))
                for _ in lines:
                    if count == rows:
                        yield Mark(start, count)
                        count = 0
                    if not count:
                        start = Cursor(index, number, lines.start, lines.number - 1)
                    index += 1
                    count += 1
        if count:
            yield Mark(start, count)


def json_value(raw: bytes) -> Any:
    """The JSON value of a line or a file. Raises ``ValueError`` with what is wrong, in words, and what was seen."""
    try:
        value = _read(raw)
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        problem: str | None = (
            f"not UTF-8: 0x{byte:02x} is byte {error.start + 1} of it; convert it, e.g. with iconv -t UTF-8"
        )
    except RecursionError:
        problem = _TOO_DEEP
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    except ValueError as error:
        problem = f"not JSON: {error}"
    else:
        problem = _unsound(value, raw)
        if problem is None:
            return value
    raise ValueError(f"{problem}; saw: {excerpt(raw)}")


def _problem(data: Any, raw: bytes) -> str | None:
    """Why a value that is JSON is no row, or ``None``. Looks inside only where the line's bytes give a reason to."""
    if data is None:
        return "a JSON null, and a row is a JSON object; leave the line out"
    if type(data) is not dict:
        return f'{_KINDS[type(data)]}, and a row is a JSON object; write it as {{"name": value, ...}} on one line'
    return _unsound(data, raw)


def _unsound(data: Any, raw: bytes) -> str | None:
    """Why a value cannot be kept and written again, or ``None``."""
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and depth(data) > MAX_DEPTH:
        return _TOO_DEEP
    # one byte is looked for in a tenth of the time that two take
    if b"\\" in raw and (b"\\ud" in raw or b"\\uD" in raw) and not is_encodable(json.dumps(data, ensure_ascii=False)):
        return (
            "half of a surrogate pair (\\ud800 to \\udfff), which is no character: was text cut inside one? take it out"
        )
    return None


def _explain(error: BaseException, lines: Lines | PickedLines) -> str:
    if lines.too_long:
        return f"a line longer than {MAX_LINE >> 20} MiB; split it into several rows"
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return f"not UTF-8: 0x{byte:02x} is byte {error.start + 1} of the line; convert it, e.g. with iconv -t UTF-8"
    if isinstance(error, json.JSONDecodeError):
        cut = "" if lines.raw.endswith(b"\n") else " (the file ends in this line: it may have been cut off)"
        return f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}{cut}; write one JSON object a line"
    if "digits" in str(error):
        return "a whole number with more than 4,300 digits; write it as text"
    return f"not JSON: {error}"


_TOO_DEEP = f"nested more than {MAX_DEPTH} deep; write the inner part as text"
_KINDS = {
    list: "a JSON list",
    str: "a JSON string",
    int: "a JSON number",
    float: "a JSON number",
    bool: "a JSON boolean",
}


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{excerpt(text)} is too great for a number; write it as text")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not in the JSON standard; write null or text")


def _read(raw: bytes) -> Any:
    text = raw.decode()
    return _loads(text[1:] if text.startswith(_BEFORE) else text)


_BEFORE = ("\ufeff", "\x1e")  # a byte order mark, and what stands before each text of a JSON text sequence (RFC 7464)
_loads = json_decoder(json.JSONDecoder(parse_float=_float, parse_constant=_refuse))
