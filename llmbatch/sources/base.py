"""The contract of a source: a path, glob, "-" or dataset in; rows out, each with an index, an id and the place where it starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.table import find
from llmbatch.core.types import Cursor, Row
from llmbatch.sources import FORMATS

START = Cursor(0)


class SourceSettings(BaseModel):
    """Where the rows come from. Text is UTF-8; a byte order mark is skipped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        min_length=1, description="a file, a glob, - for stdin, or a Hugging Face dataset: a hub name or a folder"
    )
    format: str | None = Field(
        None, description="jsonl, requests, csv, parquet or dataset; by default told from the path"
    )
    id_field: str | None = Field(None, description="the field that names a row; by default id, else the row's index")
    limit: int | None = Field(None, ge=1, description="read at most so many rows, malformed ones included")
    columns: tuple[str, ...] | None = Field(None, description="csv, parquet, dataset: read only these columns")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="csv: by default a comma, in .tsv a tab"
    )
    config: str | None = Field(None, description="dataset: the configuration (subset)")
    split: str | None = Field(None, description="dataset: the split, such as train or test[:10%]; by default train")
    revision: str | None = Field(None, description="dataset: branch, tag or commit on the hub")
    streaming: bool = Field(
        False, description="dataset: read from the hub as it goes, without downloading all of it first"
    )


class Source(Protocol):
    """The contract. ``rows`` may be called again and again, but for stdin and iterators, which are read once, forward."""

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        """Every row from ``start`` on, in order; the end of the iteration is the end of the input.

        A line that is no row is a row with a ``failure``. Raises ``ReadError``, after all rows before it, where the
        input itself fails.
        """

    def locate(self, cursor: Cursor) -> str:
        """The place in words, such as ``a.jsonl:17`` or ``a.parquet[16]``: lines count from 1, rows of tables from 0."""

    def fingerprint(self) -> list[dict[str, Any]]:
        """JSON that tells one input from another: an entry a file, or one for a dataset.

        Of a file: ``file`` (as the user named it), ``size``, ``mtime_ns``, and ``ends``, the sha256 of its first and
        last 64 KiB. ``mtime_ns`` also changes when a file is copied or touched; the others do not.
        """

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        """sha256 of the input from ``start`` up to ``stop`` (``None``: the end), read anew; ``None`` where too dear."""

    def progress(self, cursor: Cursor) -> float | None:
        """The share (0 to 1) of the input that lies before the cursor, cheaply; ``None`` if unknown."""


SourceFactory = Callable[[SourceSettings], Source]
"""Settings -> a source of that format. Raises ``SourceError`` for what can be known before the first row."""


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
    factory: SourceFactory = find(FORMATS, name, "input format", error=SourceError)
    for option, formats in _ONLY_FOR.items():
        if getattr(settings, option) and name not in formats:
            raise SourceError(
                f"input.{option} is for {', '.join(formats)}, and {settings.path} is read as {name}: leave it out"
            )
    source = factory(settings)
    if settings.path != "-" and next(source.rows(), None) is None:
        raise SourceError(f"{settings.path}: there is no row in it (blank lines are not rows)")
    if settings.limit is not None:
        from llmbatch.sources.limited import Limited

        return Limited(source, settings.limit)
    return source


def guess_format(path: str) -> str:
    """The format by the path's suffix, or by its being a folder or a hub name; requests by their first line.

    Raises ``SourceError`` where it cannot be told, ``ReadError`` for a file that cannot be read.
    """
    from llmbatch.sources.input_files import expand, find_files, suffix_of

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
            f"{files[0]}: cannot tell its format from its name; set input.format to one of {', '.join(FORMATS)}"
        )
    if name == "jsonl":
        from llmbatch.sources.requests import looks_like_requests

        return "requests" if looks_like_requests(files) else "jsonl"
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


__all__ = ["START", "Source", "SourceFactory", "SourceSettings", "guess_format", "open_source"]
