"""JSON lines that are requests of a wire format in, rows out: the id is the format's own, the data the whole object."""

from __future__ import annotations

import json

from llmbatch.formats import FORMATS
from llmbatch.formats.base import wire_format
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.input_files import InputFiles
from llmbatch.sources.jsonl import json_lines
from llmbatch.sources.lines import first_line


def open_requests(settings: SourceSettings) -> Source:
    """A source of requests; what one asks for is the prompt stage's matter."""
    format_ = wire_format(settings.format or "requests")
    files = InputFiles.named(settings.path, settings.storage_options)
    return json_lines(files, settings.id_field or format_.id_field, format_.problem)


def format_of_requests(files: InputFiles) -> str | None:
    """The wire format that the first line which is not blank is a request of, or ``None``. Raises ``ReadError``."""
    try:
        first = json.loads(first_line(files))
    except (ValueError, RecursionError):
        return None
    if not isinstance(first, dict):
        return None
    return next((name for name in FORMATS if wire_format(name).keys <= first.keys()), None)
