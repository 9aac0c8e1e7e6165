"""A source and an order of its rows in, or what makes one; the same source, which gives its rows in that order, out.

A cursor's ``index`` is a place in the order, a row's own ``index`` what it ever was. What the input has beyond the order, because
it has grown since, comes behind it as it stands there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from llmbatch.core.errors import ReadError
from llmbatch.core.types import Cursor, Failure, FailureKind, Row
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.input import Known
from llmbatch.folder.order import Order, Place, read_order
from llmbatch.folder.parts import Parts
from llmbatch.sources.base import START, Seeker, Source

_BLOCK = 512  # rows that are looked up, and held, at a time


class Ordered:
    """Implements ``Source``."""

    def __init__(self, source: Source, order: Order) -> None:
        self.source = source
        self.order = order
        self._seeker = source.seeks()
        self.files, self.notes, self.locate = source.files, source.notes, source.locate
        self.fingerprint = source.fingerprint

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        order = self.order
        for at in range(start.index, order.rows, _BLOCK):
            yield from self._block(at, order.places(at, _BLOCK))
        if start.index < order.rows:
            yield from islice(self.source.rows(order.last), 1, None)
        else:
            yield from self.source.rows(start)

    def places(self, start: Cursor = START) -> Iterator[Row]:
        return self.rows(start)

    def seeks(self) -> Seeker | None:
        return None

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        """``None`` within the order: what was read for it has digests, see ``what_was_read``."""
        return None if start.index < self.order.rows else self.source.digest(start, stop)

    def progress(self, cursor: Cursor) -> float | None:
        rows = self.order.rows
        return cursor.index / rows if cursor.index <= rows else self.source.progress(cursor)

    def _block(self, start: int, places: Sequence[Place]) -> Iterator[Row]:
        by_index = sorted(places)
        if self.order.facts["spooled"]:
            rows = _copies(self.order.folder, by_index)
        elif self._seeker is not None:
            rows = self._seeker.at([place.cursor for place in by_index])
        else:
            raise ReadError(
                "the input can no longer be entered at any row, and the order of this run needs that: restore it"
            )
        found = {row.index: row for row in rows}
        for at, (cursor, _, _) in enumerate(places, start):
            row = found.get(cursor.index)
            if row is None:
                raise ReadError(
                    f"{self.locate(cursor)}: row {cursor.index} is not there any more; restore the input, and run the same command "
                    "again"
                )
            index, file, offset, line = cursor
            yield Row(index, row.id, row.data, Cursor(at, file, offset, line), row.failure)


class Coming:
    """Implements ``Source``: an input whose order is made when its first row is asked for; whoever else asks waits.

    ``make`` is called once, with what tells whether nobody waits for it any more: then it is to raise. Where it finds that no order
    is needed it returns ``None``.
    """

    def __init__(self, source: Source, make: Callable[[Callable[[], bool]], Order | None]) -> None:
        self.source = source
        self._make = make
        self._lock = threading.Lock()
        self._given_up = False
        self._found: Source | None = None
        self._failure: BaseException | None = None
        self.files, self.notes, self.locate = source.files, source.notes, source.locate
        self.fingerprint = source.fingerprint

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        return self._as_read().rows(start)

    def places(self, start: Cursor = START) -> Iterator[Row]:
        return self.rows(start)

    def seeks(self) -> Seeker | None:
        return None

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        return self._as_read().digest(start, stop)

    def progress(self, cursor: Cursor) -> float | None:
        return None if self._found is None else self._found.progress(cursor)

    def give_up(self) -> None:
        """Let who makes the order end. May be called from any thread."""
        self._given_up = True

    def _as_read(self) -> Source:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._found is None:
                try:
                    order = self._make(lambda: self._given_up)
                except BaseException as error:
                    self._failure = error
                    raise
                self._found = self.source if order is None else Ordered(self.source, order)
            return self._found


def as_it_lies(source: Source) -> Source:
    """The input itself, in whichever order a run reads it."""
    return source.source if isinstance(source, Ordered | Coming) else source


def what_was_read(order: Order | None, windows: Sequence[Known]) -> list[Known]:
    """What of an input was read with which digest: by windows, or for the order that they follow."""
    if order is None:
        return list(windows)
    return [*order.read, *((bounds, digest) for bounds, digest in windows if bounds.start.index >= order.rows)]


def entries(run: RunFolder) -> list[Bounds]:
    """Blocks of the input of a run as it lies, each of which can be read from its start: windows, or what was read for an order.

    Raises ``FolderError``.
    """
    known = what_was_read(read_order(run.path), [(bounds, None) for bounds in run.bounds()])
    return [bounds for bounds, _ in known]


def read_by(folder: Path) -> list[Known]:
    """The same of the sealed windows of a run folder. Raises ``FolderError``."""
    parts = Parts(folder / "parts")
    metas = map(parts.meta, sorted(parts.scan()[0]))
    return what_was_read(read_order(folder), [(meta.bounds, meta.input_sha256) for meta in metas])


def copied_row(row: Row) -> bytes:
    """A row as a line, from which ``Ordered`` makes it again."""
    failure = None if row.failure is None else [row.failure.kind.value, row.failure.message]
    body: list[Any] = [row.id, None if failure else row.data, failure]
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def copies_path(folder: Path, number: int) -> Path:
    return folder / f"rows-{number:05d}"


def _copies(folder: Path, places: Sequence[Place]) -> Iterator[Row]:
    for number, some in groupby(places, key=lambda place: place.spool):
        path = copies_path(folder, number)
        try:
            with path.open("rb", buffering=1 << 14) as file:
                for place in some:
                    file.seek(place.spot)
                    row_id, data, failure = json.loads(file.readline().decode("utf-8", "surrogatepass"))
                    cursor = place.cursor
                    why = None if failure is None else Failure(FailureKind(failure[0]), failure[1])
                    yield Row(cursor.index, row_id, data or {}, cursor, why)
        except (OSError, ValueError) as error:
            raise ReadError(
                f"{path}: the copy of the input's rows cannot be read: {error}; see llmbatch audit"
            ) from error


__all__ = ["Coming", "Ordered", "as_it_lies", "copied_row", "copies_path", "entries", "read_by", "what_was_read"]
