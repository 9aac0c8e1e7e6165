"""What a job calls its input in; the source of its rows, seen to have at least one, out."""

from __future__ import annotations

import re
from pathlib import Path

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.table import find
from llmbatch.formats import FORMATS as WIRE_FORMATS
from llmbatch.sources import FORMATS
from llmbatch.sources.base import Source, SourceFactory, SourceSettings
from llmbatch.sources.input_files import expand, find_files, suffix_of
from llmbatch.sources.limited import Limited
from llmbatch.sources.repeated import Repeated
from llmbatch.sources.requests import format_of_requests

_KNOWN = {**FORMATS, **dict.fromkeys(WIRE_FORMATS, FORMATS["requests"])}
"""Every name of ``input.format``: the containers, and the wire formats, whose lines are JSON."""

_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "columns": ("csv", "parquet", "dataset"),
    "delimiter": ("csv",),
    "config": ("dataset",),
    "split": ("dataset",),
    "revision": ("dataset",),
    "streaming": ("dataset",),
}


def open_source(settings: SourceSettings) -> Source:
    """The source that the settings name, seen to have at least one row.

    Stdin (``-``) is the exception: it is not looked at, and its rows can be read once, forward. Raises ``SourceError``.
    """
    try:
        return _open(settings)
    except ReadError as error:  # before the first row nothing was begun: the input is not usable
        raise SourceError(str(error)) from error


def _open(settings: SourceSettings) -> Source:
    name = settings.format or guess_format(settings.path)
    factory: SourceFactory = find(_KNOWN, name, "input format", error=SourceError)
    for option, formats in _ONLY_FOR.items():
        if getattr(settings, option) and name not in formats:
            raise SourceError(
                f"input.{option} is for {', '.join(formats)}, and {settings.path} is read as {name}: leave it out"
            )
    source = factory(settings.model_copy(update={"format": name}))
    if settings.path != "-" and next(source.rows(), None) is None:
        raise SourceError(f"{settings.path}: there is no row in it (blank lines are not rows)")
    if settings.limit is not None:
        source = Limited(source, settings.limit)
    return source if settings.repeat is None else Repeated(source, settings.repeat)


def guess_format(path: str) -> str:
    """The format by the path's suffix, or by its being a folder or a hub name; requests by their first line.

    Raises ``SourceError`` where it cannot be told, ``ReadError`` for a file that cannot be read.
    """
    if path == "-":
        return "jsonl"
    if path.startswith(("http://", "https://")):
        raise SourceError(f"{path}: a URL cannot be read from; download the file first")
    if Path(expand(path)).is_dir():
        return "dataset"
    if not Path(path).exists() and _HUB_NAME.fullmatch(path) and not _FILE_SUFFIX.fullmatch(suffix_of(path)):
        return "dataset"
    files = find_files(path)
    formats = {_SUFFIXES.get(suffix_of(str(file)), "") for file in files}
    if len(formats) > 1:
        raise SourceError(
            f"{path}: files of more than one format; name them by a narrower pattern, or set input.format"
        )
    name = formats.pop()
    if not name:
        raise SourceError(
            f"{files[0]}: cannot tell its format from its name; set input.format to one of {', '.join(_KNOWN)}"
        )
    if name == "jsonl":
        return format_of_requests(files) or "jsonl"
    return name


_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_FILE_SUFFIX = re.compile(r"\.[a-z]{2,7}")  # unlike the numbers that names on the hub end in
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
