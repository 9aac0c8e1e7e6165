"""The contract of a sink: a finished run in, the user's output out, each a file that is there whole or not at all.

``results.jsonl`` and ``errors.jsonl`` are always written, ``accepted.jsonl`` where the job says what is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from llmbatch.accept.base import AcceptSettings
from llmbatch.core.errors import InputChanged
from llmbatch.core.settings import Counts, IsPath
from llmbatch.core.table import find
from llmbatch.core.types import EMPTY, Cursor, Row, Status
from llmbatch.core.words import short
from llmbatch.folder.records import brought_several, parse, part_lines, status_of
from llmbatch.formats.base import Asked
from llmbatch.sinks import ALWAYS, OF_LAYOUT, OF_PROGRAMS, SINKS
from llmbatch.sinks.layouts import LAYOUTS
from llmbatch.sources.base import Source
from llmbatch.sources.places import is_url
from llmbatch.sources.reader import HasRows, each_row


def _is_folder(value: str, _base: Path) -> bool:
    return not is_url(value)


LAYOUT_FOLDER = "output"
"""In a run folder: the tree of files of the job's layout."""


class LayoutSettings(BaseModel):
    """As which system's files the results are laid out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description=f"one of {', '.join(LAYOUTS)}")
    settings: dict[str, Any] = Field(default_factory=dict, description="the layout's own settings")

    @model_validator(mode="after")
    def _known(self) -> LayoutSettings:
        if self.name not in LAYOUTS:
            raise ValueError(f"unknown layout {self.name!r}: known are {', '.join(LAYOUTS)}")
        kind = find(LAYOUTS, self.name, "layout")
        try:
            kind.Settings.model_validate(self.settings)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(map(str, ("settings", *problem["loc"])))
            known = ", ".join(kind.Settings.model_fields) or "none"
            said = problem["msg"].removeprefix("Value error, ")
            raise ValueError(f"{place}: {said}; the settings of {self.name} are {known}") from None
        return self


class SinkSettings(BaseModel):
    """What is written beside ``results.jsonl``, and what of the input goes into each record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: Annotated[tuple[str, ...], Counts.NOTHING] = Field(
        (),
        description="more files: parquet, openai, by_file (results/NAME.jsonl for each file of the input), "
        "shards (results-00000-of-00012.jsonl and so on)",
    )
    shard_format: Annotated[Literal["jsonl", "parquet"], Counts.NOTHING] = Field(
        "jsonl", description="what by_file and shards are written as"
    )
    rows_per_shard: Annotated[int, Counts.NOTHING] = Field(100_000, ge=1, description="of shards")
    to: Annotated[str | None, IsPath(_is_folder), Counts.NOTHING] = Field(
        None, min_length=1, description="copy the finished files there: a folder, or a URL such as s3://bucket/prefix/"
    )
    storage_options: Annotated[dict[str, Any], Counts.NOTHING] = Field(
        default_factory=dict,
        description="for a URL: settings of its file system, as fsspec has them; secrets are refused",
    )
    layout: Annotated[LayoutSettings | None, Counts.NOTHING] = Field(
        None, description="the files that another system leaves of such a job, below output/; then only they are copied"
    )
    keep: tuple[str, ...] | Literal["all"] = Field((), description="input fields joined into each record, or all")

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        known = [name for name in SINKS if name not in (*ALWAYS, *OF_PROGRAMS, OF_LAYOUT)]
        if unknown := [name for name in formats if name not in known]:
            raise ValueError(f"unknown output format {unknown[0]!r}: known are {', '.join(known)}")
        return tuple(dict.fromkeys(formats))


Pair = tuple[dict[str, Any], Row]
"""A record in its JSON form, and the row of the input that it is of."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run whose every row has its record. Reading it streams, in input order, in constant memory, as often as it is asked for.

    ``source`` opens the input as the run read it, ``asked`` says how a row was asked. ``created`` is in Unix seconds. ``sinks`` are
    those that the run's program wants; what a sink counts by status, other than records, it tells ``counted`` under a name.
    ``laid_out`` is told once a layout is written, and why its system would call the job failed.
    ``accept``, where the job has it, says which rows are accepted. ``vectors``: a row's output is a vector. ``options`` are the
    settings of the input's wire format. ``limited``: the job reads the first rows of its input alone.
    """

    parts: Sequence[Path]
    source: Callable[[], Source]
    asked: Callable[[Row], Asked]
    model: str = ""
    created: int = 0
    sinks: Sequence[str] = ()
    counted: Callable[[str, Mapping[str, int]], None] = lambda _name, _counts: None
    laid_out: Callable[[str | None], None] = lambda _failure: None
    accept: AcceptSettings | None = None
    vectors: bool = False
    options: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    limited: bool = False

    def lines(self) -> Iterator[bytes]:
        """Every record's line of ``results.jsonl``. Raises ``FolderError`` for a part that cannot be read."""
        return part_lines(self.parts)

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record in its JSON form. Raises ``FolderError``."""
        return map(parse, self.lines())

    def dimensions(self) -> int | None:
        """How many numbers the vectors have; None where outputs are no vectors, or none is there, or a row has several.

        Raises ``FolderError``.
        """
        if not self.vectors or any(map(brought_several, self.lines())):
            return None
        return dimensions_of(self.lines())

    def pairs(self) -> Iterator[Pair]:
        """Every record with its row, for which the input is read once more; rows that were not run are passed over.

        Raises ``FolderError``, ``ReadError``, and ``InputChanged`` where a row is not there any more or is called otherwise.
        """
        source = self.source()
        return ((record, row) for _, record, row in self._beside(source, source))

    def placed(self, source: Source) -> Iterator[tuple[bytes, Cursor]]:
        """Every record's line with the place of its row in the source, which is this run's. Raises as ``pairs`` does."""
        return ((line, row.cursor) for line, _, row in self._beside(source, _Places(source)))

    def _beside(self, source: Source, rows: HasRows) -> Iterator[tuple[bytes, dict[str, Any], Row]]:
        each = each_row(rows)
        row = next(each, None)
        for line in self.lines():
            record = parse(line)
            index = record["index"]
            while row is not None and row.index < index:
                row = next(each, None)
            if row is None or row.index != index or row.id != record["id"]:
                seen = (
                    "the input ends before it"
                    if row is None
                    else f"{source.locate(row.cursor)} is the row {short(row.id)}"
                )
                raise InputChanged(
                    f"the input is not what this run read: for the record of row {short(record['id'])} (index {index}) "
                    f"{seen}. Restore it, and run the same command again"
                )
            yield line, record, row


def dimensions_of(lines: Iterable[bytes]) -> int | None:
    """How many numbers the first vector has among the outputs of records."""
    first = next((line for line in lines if status_of(line) == Status.OK), None)
    return None if first is None else len(parse(first)["output"])


class _Places:
    """A source's rows without what is in them."""

    def __init__(self, source: Source) -> None:
        self.rows = source.places


class Output(NamedTuple):
    """Where the files go, and how the job wants them."""

    folder: Path
    settings: SinkSettings


Sink = Callable[[Finished, Output], list[Path]]
"""A finished run -> the files it wrote into the folder.

Raises ``WriteError``, and what reading the run raises.
"""


def write_sinks(settings: SinkSettings, finished: Finished, folder: Path) -> list[Path]:
    """Write every file that is asked for, those of ``ALWAYS`` first; returns them. Raises as ``Sink``."""
    laid_out = () if settings.layout is None else (OF_LAYOUT,)
    names = (*ALWAYS, *finished.sinks, *settings.formats, *laid_out)
    sinks: list[Sink] = [find(SINKS, name, "output format") for name in names]
    output = Output(folder, settings)
    return [path for sink in sinks for path in sink(finished, output)]
