"""Records of a wire format in, rows out. How they lie in files is the format's ``container``; what one asks for is the prompt's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from llmbatch.core.errors import SourceError
from llmbatch.core.types import Cursor, Row
from llmbatch.formats import FORMATS
from llmbatch.formats.base import RECORD, Format, wire_format
from llmbatch.formats.openai.format import OpenAI
from llmbatch.formats.openai.validation import problems
from llmbatch.sources.base import START, Seeker, Source, SourceSettings
from llmbatch.sources.csv import open_csv
from llmbatch.sources.file_source import FileSource
from llmbatch.sources.input_files import InputFiles
from llmbatch.sources.jsonl import json_lines
from llmbatch.sources.lines import first_line
from llmbatch.sources.records import records
from llmbatch.sources.rows import malformed_row

_PROBLEMS = 5  # that are told


def open_requests(settings: SourceSettings) -> Source:
    """A source of requests. Raises ``SourceError``."""
    format_ = wire_format(settings.format or "requests", settings.options)
    id_field = settings.id_field or format_.id_field
    if format_.container == "csv":
        return _Table(open_csv(settings.model_copy(update={"id_field": id_field})), format_)
    files = InputFiles.of(settings)
    if isinstance(format_, OpenAI) and format_.validated:
        _validate(files)
    if format_.container == "lines":
        return json_lines(files, id_field, format_.problem, optional_id=settings.id_field is None)
    return FileSource(files, records(format_, id_field, settings.max_record_bytes))


def _validate(files: InputFiles) -> None:
    """Look at each file as the Batch API does before it begins. Raises ``SourceError`` with what is wrong, and ``ReadError``."""
    for number in range(len(files)):
        with files.open(number) as stream:
            found = list(islice(problems(stream), _PROBLEMS))
        if found:
            said = "; ".join(
                f"{files.name(number)}{'' if p.line is None else f':{p.line}'}: {p.code}: {p.message}" for p in found
            )
            raise SourceError(f"{said} (input.options.validation=rows runs the rows that can be run)")


def format_of_requests(files: InputFiles) -> str | None:
    """The wire format that the first line which is not blank is a request of, or ``None``. Raises ``ReadError``."""
    try:
        first = json.loads(first_line(files))
    except (ValueError, RecursionError):
        return None
    if not isinstance(first, dict):
        return None
    return next((name for name in FORMATS if (keys := wire_format(name).keys) and keys <= first.keys()), None)


class _Table:
    """A source of CSV whose rows are records of a wire format."""

    def __init__(self, source: FileSource, format_: Format) -> None:
        self._source = source
        self._format = format_
        self.files, self.notes, self.locate = source.files, source.notes, source.locate
        self.fingerprint, self.digest, self.progress = source.fingerprint, source.digest, source.progress

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        return map(self._record, self._source.rows(start))

    def places(self, start: Cursor = START) -> Iterator[Row]:
        return self._source.places(start)

    def seeks(self) -> Seeker | None:
        return None

    def _record(self, row: Row) -> Row:
        if row.failure is not None:
            return row
        data = {RECORD: row.data}
        problem = self._format.problem(data)
        if problem is None:
            return replace(row, data=data)
        return malformed_row(row.cursor, f"{self._source.called(row.cursor)}: {problem}")
