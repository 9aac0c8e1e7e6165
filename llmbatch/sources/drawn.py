"""Rows without an input: variables drawn from lists, ranges and files out, as many rows as are asked for, or without an end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import count
from typing import Any

from llmbatch.core.errors import SourceError
from llmbatch.core.types import Cursor, Row
from llmbatch.sources.base import START, Mark, Seeker, Source, SourceSettings
from llmbatch.sources.draw import Variable, draw, make_variable
from llmbatch.sources.rows import make_row
from llmbatch.sources.tables import numbered_marks


def open_drawn(settings: SourceSettings) -> Source:
    """Raises ``SourceError`` for a file of items that cannot be used."""
    if not settings.draw:
        raise SourceError("input.format is drawn, and input.draw says of no variable what it is drawn from")
    variables = [make_variable(name, each) for name, each in settings.draw.items()]
    return DrawnRows(variables, settings)


class DrawnRows:
    """Row i is drawn from the seed and i alone. A cursor's ``offset`` and ``line`` are both the row's number."""

    def __init__(self, variables: Sequence[Variable], settings: SourceSettings) -> None:
        self._variables = {variable.name: variable for variable in variables}
        # the order in which a job has its variables is none of the rows' business
        self._in_turn = sorted(variable.name for variable in variables if variable.turns)
        self._seed = settings.seed or 0
        self._rows = settings.rows
        self._id_field = settings.id_field

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        for index in count(start.index) if self._rows is None else range(start.index, self._rows):
            yield self._row(index)

    def places(self, start: Cursor = START) -> Iterator[Row]:
        return self.rows(start)

    def seeks(self) -> Seeker | None:
        return None if self._rows is None else self

    def at(self, cursors: Sequence[Cursor]) -> Iterator[Row]:
        return (self._row(cursor.index) for cursor in cursors)

    def marks(self, rows: int) -> Iterator[Mark]:
        return numbered_marks(self._rows or 0, rows)

    def files(self) -> Sequence[str]:
        return ("drawn",)

    def locate(self, cursor: Cursor) -> str:
        return f"drawn[{cursor.index}]"

    def notes(self) -> Sequence[str]:
        return ()

    def fingerprint(self, files: int | None = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """How many rows there are (``None``: without an end), and what the files held that items are from."""
        drawn = {variable.name: variable.digest for variable in self._variables.values() if variable.digest is not None}
        return [{"drawn": self._rows, "items": sha256(json.dumps(drawn).encode()).hexdigest() if drawn else None}]

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:  # noqa: ARG002
        """``None``: rows are made of what the fingerprint and the job's identity hold."""
        return None

    def progress(self, cursor: Cursor) -> float | None:
        return None if self._rows is None else min(1.0, cursor.index / self._rows)

    def _row(self, index: int) -> Row:
        return make_row(self._drawn(index), Cursor(index, 0, index, index), self._id_field, self.locate)

    def _drawn(self, index: int) -> dict[str, Any]:
        turn, places = index, {}
        for name in self._in_turn:
            turn, places[name] = divmod(turn, self._variables[name].choices)
        return {
            name: variable.value(places[name] if variable.turns else draw(self._seed, index, name))
            for name, variable in self._variables.items()
        }
