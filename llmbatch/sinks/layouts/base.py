"""The contract of a layout: a finished run in, a tree of files as another system leaves it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from llmbatch.core.table import find
from llmbatch.core.types import Row
from llmbatch.formats.base import Answered, Asked
from llmbatch.sinks.base import Finished, LayoutSettings
from llmbatch.sinks.layouts import LAYOUTS

BUFFER = 1 << 16
"""Bytes that are written to a file at once: with Python's 8 KiB half of what the writing of lines takes is calls of the system."""


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a layout in the order in which they are to be copied: what says that all is there comes last.

    ``failure``: why the system would call the job failed, in words that name the file and the record. ``lines``: how many there are
    of answers and of errors, where a layout counts them.
    """

    files: Sequence[Path]
    failure: str | None = None
    lines: tuple[int, int] = (0, 0)


class Layout(Protocol):
    """One layout; made with its settings."""

    Settings: type[BaseModel]

    def write(self, finished: Finished, folder: Path) -> Written:
        """Fill an empty folder, streaming, in input order. Raises as ``Sink``.

        The whole folder takes its place when this returns, so that no file of it need be written atomically.
        """


def layout_of(settings: LayoutSettings) -> Layout:
    """The layout with its settings, which are sound."""
    kind = find(LAYOUTS, settings.name, "layout")
    made: Layout = kind(kind.Settings.model_validate(settings.settings))
    return made


def answered(finished: Finished) -> Iterator[tuple[int, Answered]]:
    """(number of its input file, what became of it) of every row, in input order. Raises as ``Finished.pairs``."""
    for record, row in finished.pairs():
        yield row.cursor.file, answered_of(finished, record, row)


def answers(finished: Finished) -> Iterator[Answered]:
    """The same without the files."""
    return (each for _, each in answered(finished))


def answered_of(finished: Finished, record: dict[str, Any], row: Row) -> Answered:
    """What became of one row."""
    asked, line = _FoundOut(finished, row), row.cursor.line
    return Answered(record, row.data, asked, finished.model, finished.created, line)


class _FoundOut:
    """Implements ``HowAsked``: found out once somebody wants to know, as for that the row's prompt is made anew."""

    __slots__ = ("_finished", "_found", "_row")

    def __init__(self, finished: Finished, row: Row) -> None:
        self._finished, self._row = finished, row
        self._found: Asked | None = None

    def _asked(self) -> Asked:
        if self._found is None:
            self._found = self._finished.asked(self._row)
        return self._found

    @property
    def chat(self) -> bool:
        return self._asked().chat

    @property
    def samples(self) -> int:
        return self._asked().samples

    @property
    def vector(self) -> bool:
        return self._asked().vector

    @property
    def own_check(self) -> bool:
        return self._asked().own_check

    @property
    def job_check(self) -> bool:
        return self._asked().job_check
