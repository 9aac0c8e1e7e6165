"""What a job calls its input in; the source of its rows, seen to have at least one, out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from glob import has_magic
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.table import find
from llmbatch.formats import FORMATS as WIRE_FORMATS
from llmbatch.sources import FORMATS
from llmbatch.sources.base import Source, SourceFactory, SourceSettings
from llmbatch.sources.documents import DOCUMENTS
from llmbatch.sources.input_files import InputFiles, find_input, suffix_of
from llmbatch.sources.limited import Limited
from llmbatch.sources.places import Found, expand, is_url
from llmbatch.sources.repeated import Repeated
from llmbatch.sources.requests import format_of_requests

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "columns": ("csv", "parquet", "dataset"),
    "delimiter": ("csv",),
    "config": ("dataset",),
    "split": ("dataset",),
    "revision": ("dataset",),
    "streaming": ("dataset",),
    "more": ("jsonl", *WIRE_FORMATS),
    "options": tuple(WIRE_FORMATS),
    "max_record_bytes": tuple(WIRE_FORMATS),
}


def open_source(settings: SourceSettings) -> Source:
    """The source that the settings name, seen to have at least one row.

    Stdin (``-``) is the exception: it is not looked at, and its rows can be read once, forward. Raises ``SourceError``.
    """
    try:
        return _open(settings)
    except ReadError as error:  # before the first row nothing was begun: the input is not usable
        raise SourceError(str(error)) from error


def _known() -> dict[str, str]:
    """Every name of ``input.format``: the containers, and the wire formats, whose lines are JSON."""
    return {**FORMATS, **dict.fromkeys(WIRE_FORMATS, FORMATS["requests"])}


def _open(settings: SourceSettings) -> Source:
    if settings.storage_options and not is_url(settings.path):
        raise SourceError(f"input.storage_options is for URLs, and {settings.path} is none: leave it out")
    name = settings.format or guess_format(settings.path, settings.storage_options)
    factory: SourceFactory = find(_known(), name, "input format", error=SourceError)
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
    if settings.strict and settings.path != "-":
        _refuse_malformed(source)
    return source if settings.repeat is None else Repeated(source, settings.repeat)


def _refuse_malformed(source: Source) -> None:
    """Raises ``SourceError`` where a row cannot be read, before the job that would give it a record of its own."""
    if wrong := next((row.failure for row in source.rows() if row.failure is not None), None):
        raise SourceError(
            f"{wrong.message}. With input.strict such a row ends the job before it begins: put it right, or leave that out"
        )


def guess_format(path: str, options: Mapping[str, Any] = _NO_OPTIONS) -> str:
    """The format by the path's suffix, or by its being a folder or a hub name; requests by their first line.

    Raises ``SourceError`` where it cannot be told, ``ReadError`` for a file that cannot be read.
    """
    if path == "-":
        return "jsonl"
    here = not is_url(path)
    if here and not Path(path).exists() and _HUB_NAME.fullmatch(path) and not _FILE_SUFFIX.fullmatch(suffix_of(path)):
        return "dataset"
    if here and Path(expand(path)).is_dir() and any((Path(expand(path)) / name).is_file() for name in _DATASET_FILES):
        return "dataset"
    found = find_input(path, options, folders=True)
    if found.is_folder:
        return _guess_folder(path, found)
    files = InputFiles(found.place)
    formats = {_SUFFIXES.get(suffix_of(files.path(number)), "") for number in range(len(files))}
    if len(formats) > 1:
        raise SourceError(
            f"{path}: files of more than one format; name them by a narrower pattern, or set input.format"
        )
    name = formats.pop()
    # a text that is named alone may hold a row a line, or be one
    if not name or (name == "documents" and not has_magic(path) and suffix_of(path) in _LINES_PERHAPS):
        raise SourceError(
            f"{files.name(0)}: cannot tell its format from its name; set input.format to one of {', '.join(_known())}"
        )
    if name == "jsonl":
        return format_of_requests(files) or "jsonl"
    return name


def _guess_folder(path: str, found: Found) -> str:
    """A folder is one of documents where there are some in it and no files of data; else it is for the library of datasets."""
    kinds = {suffix_of(file.name) for file in found.place.files}
    if is_url(path) and kinds & _DATA:
        raise SourceError(f"{path}: a folder; name its files, for example {path.rstrip('/')}/*.jsonl")
    documents = is_url(path) or (kinds & DOCUMENTS.keys() and not kinds & _DATA)
    return "documents" if documents else "dataset"


_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    **dict.fromkeys(DOCUMENTS, "documents"),
}
_DATASET_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")
_DATA = frozenset({".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".pq", ".arrow"})
_LINES_PERHAPS = frozenset({".txt", ".text", ".md", ".markdown"})
_FILE_SUFFIX = re.compile(r"\.[a-z]{2,7}")  # unlike the numbers that names on the hub end in
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
