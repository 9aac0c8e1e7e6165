"""The contract of a source: a path, glob, "-" or dataset in; rows out, each with an index, an id and the place where it starts."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from llmbatch.core.settings import Counts, IsPath, is_named_as_path, is_there
from llmbatch.core.types import Cursor, Row
from llmbatch.sources.draw import DrawSettings, as_settings
from llmbatch.sources.places import is_url
from llmbatch.sources.shard import Shard, Slice

START = Cursor(0)


_DATA_FILE = re.compile(
    r".*\.(jsonl|ndjson|json|csv|tsv|parquet|pq|txt|text|md|markdown|html?|xhtml|pdf)(\.(gz|zst|bz2|xz))?",
    re.DOTALL | re.IGNORECASE,
)


def _is_path(value: str, base: Path) -> bool:
    if value == "-" or is_url(value) or "\n" in value:
        return False
    named = is_named_as_path(value) or glob.has_magic(value) or _DATA_FILE.fullmatch(value) is not None
    return named or is_there(value, base)


def _shard(text: str | None) -> str | None:
    return None if text is None else str(Shard.named(text))


class SourceSettings(BaseModel):
    """Where the rows come from. Text is UTF-8; a byte order mark is skipped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[str, IsPath(_is_path), Counts.NOTHING] = Field(  # its content counts, window by window
        "",
        description="a file, a glob, a folder of documents, a URL of these such as s3://bucket/*.jsonl, - for stdin, or a "
        "Hugging Face dataset: a hub name or a folder",
    )
    more: Annotated[tuple[str, ...], IsPath(_is_path, each=True), Counts.NOTHING] = Field(
        (),
        description="further files, globs or URLs, read after path in this order: for JSON lines, and the formats of other systems",
    )
    format: str | None = Field(
        None,
        description="jsonl, requests, csv, parquet, dataset, documents, drawn or openai (the same as requests); by default told "
        "from the path",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="settings of the wire format's own, such as the filters of sagemaker"
    )
    max_record_bytes: int | None = Field(
        None, ge=1, description="of formats whose records may be any text: a longer one is a malformed row"
    )
    strict: Annotated[bool, Counts.NOTHING] = Field(
        False,
        description="refuse an input with a malformed row before anything is begun, for which all of it is read once more; else "
        "such a row gets its record",
    )
    storage_options: Annotated[dict[str, Any], Counts.NOTHING] = Field(
        default_factory=dict,
        description="for a URL: settings of its file system, as fsspec has them; secrets are refused",
    )
    id_field: str | None = Field(
        None, description="the field that names a row; by default id (of documents the path), else the row's index"
    )
    # it may be raised to go on with more rows
    limit: Annotated[int | None, Counts.NOTHING] = Field(
        None, ge=1, description="read at most so many rows, malformed ones included"
    )
    shard: Annotated[str | None, AfterValidator(_shard)] = Field(
        None, description="i/n: run slice i of n (from 1) alone; llmbatch merge puts finished slices together"
    )
    columns: tuple[str, ...] | None = Field(None, description="csv, parquet, dataset: read only these columns")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="csv: by default a comma, in .tsv a tab"
    )
    config: str | None = Field(None, description="dataset: the configuration (subset)")
    split: str | None = Field(None, description="dataset: the split, such as train or test[:10%]; by default train")
    revision: str | None = Field(None, description="dataset: branch, tag or commit on the hub")
    streaming: Annotated[bool, Counts.NOTHING] = Field(
        False, description="dataset: read from the hub as it goes, without downloading all of it first"
    )
    draw: dict[str, DrawSettings] = Field(
        default_factory=dict,
        description="rows without an input: for each variable a list of values, a range {from, to, step}, or the lines of a file "
        "{items_of}, of which every row draws one",
    )
    # it may be raised to go on with more rows, as a file may grow
    rows: Annotated[int | None, Counts.NOTHING] = Field(
        None, ge=1, description="draw: how many rows; without it there is no end, and accept.rows or limit is needed"
    )
    repeat: int | None = Field(
        None,
        ge=2,
        description="every row so many times, one after another, with the ids ROW#0, ROW#1, ...; set by a sweep",
    )
    seed: int | None = Field(None, ge=0, description="draw: other rows are drawn with another one; by default 0")

    @model_validator(mode="before")
    @classmethod
    def _drawn_is_a_format(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(draw := data.get("draw"), Mapping) or not draw:
            return data
        values = {name: as_settings(value) for name, value in draw.items()}
        return {**data, "draw": values, "format": data.get("format") or "drawn"}

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> SourceSettings:
        if self.draw and (self.path or self.format != "drawn"):
            raise ValueError("rows are read from path, in its format, or are drawn: draw cannot be given beside these")
        if not self.draw and not self.path:
            raise ValueError("path is missing: give --input, or say in draw what rows are made of")
        if not self.draw and (self.rows is not None or self.seed is not None):
            given = "seed" if self.rows is None else "rows"
            raise ValueError(f"{given} is for rows that are drawn (draw); to read only the first rows, give --limit")
        return self

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.path or "drawn rows"

    @property
    def slice(self) -> Slice | None:
        """Which rows are in the slice that is run; None: all."""
        return None if self.shard is None else Slice(Shard.named(self.shard))

    @property
    def endless(self) -> bool:
        """Whether there is always one more row."""
        return bool(self.draw) and self.rows is None and self.limit is None


class Mark(NamedTuple):
    """A block of neighbours: where its first row starts, and how many rows it has."""

    start: Cursor
    rows: int


class Block(NamedTuple):
    """Rows that follow one another; ``stop`` is where the row behind them is, None at the end of the input."""

    rows: int
    stop: Cursor | None


class Seeker(Protocol):
    """Reads single rows of a source, wherever they are."""

    def at(self, cursors: Sequence[Cursor]) -> Iterator[Row]:
        """The rows at these cursors, which are in the order of the input. Raises ``ReadError``."""

    def marks(self, rows: int) -> Iterator[Mark]:
        """All of the input in blocks of so many rows, the last of fewer; found for less than reading it where that can be."""


@runtime_checkable
class Scattered(Protocol):
    """A ``Seeker`` that reads rows all over the input without those between them."""

    def stretches(self, count: int, rows: int) -> Iterator[Iterator[Row]]:
        """From each of so many places, spread evenly, at most so many neighbours, and no row twice; each is read before the next.

        Where they start is as in a cursor, but rows and lines are counted from there.
        """


@runtime_checkable
class Counting(Protocol):
    """A ``Seeker`` that finds rows by counting them from any row on, for less than reading what lies between them."""

    def picked(self, start: Cursor, indexes: Sequence[int]) -> Iterator[Row]:
        """The rows with these indexes, which ascend; none lies before ``start``. Raises ``ReadError``."""

    def block(self, start: Cursor, rows: int, size: int) -> Block:
        """At most so many rows from ``start`` on; fewer where they take so many bytes. Raises ``ReadError``."""


class Source(Protocol):
    """The contract. ``rows`` may be called again and again, but for stdin, which is read once, forward."""

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        """Every row from ``start`` on, in order; the end of the iteration is the end of the input.

        A line that is no row is a row with a ``failure``. Raises ``ReadError``, after all rows before it, where the
        input itself fails.
        """

    def locate(self, cursor: Cursor) -> str:
        """The place in words, such as ``a.jsonl:17`` or ``a.parquet[16]``: lines count from 1, rows of tables from 0.

        For a person: a record tells it by a name that is the same however the input was named (``places.called``).
        """

    def places(self, start: Cursor = START) -> Iterator[Row]:
        """As ``rows``, but without what is in a row where that can be had for less."""

    def seeks(self) -> Seeker | None:
        """What reads single rows; ``None`` where that takes reading what lies before them, or goes over a network."""

    def files(self) -> Sequence[str]:
        """The names of its files below the folder that they share, by the number in a cursor; a dataset counts as one."""

    def notes(self) -> Sequence[str]:
        """What a person should know of the input, in sentences: files that are passed over."""

    def fingerprint(self, files: int | None = None) -> list[dict[str, Any]]:
        """JSON that tells one input from another: an entry a file, or one for a dataset. ``files``: of its first so many alone.

        Of a file: ``file`` (as the user named it), ``size``, and either ``etag``, an object store's mark of its content, or
        ``mtime_ns`` and ``ends``, the sha256 of its first and last 64 KiB. ``mtime_ns`` also changes when a file is copied or
        touched, ``etag`` when it is sent in other parts; the others do not. Of more than a thousand files all but the last have
        one entry together: ``files`` (how many), ``first``, ``last``, ``bytes``, and the sha256 of their ``names`` and sizes and of
        their ``etags`` or ``mtimes``.
        """

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        """sha256 of the input from ``start`` up to ``stop`` (``None``: the end), read anew; ``None`` where too dear.

        Asked for in the order of the input, digests together cost at most one more reading of it.
        """

    def progress(self, cursor: Cursor) -> float | None:
        """The share (0 to 1) of the input that lies before the cursor, cheaply; ``None`` if unknown."""


SourceFactory = Callable[[SourceSettings], Source]
"""Settings -> a source of that format. Raises ``SourceError`` for what can be known before the first row."""
