"""A source in, its rows one by one out, with a look at the next; reading that fails is tried again where that can help."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from llmbatch.core.errors import ReadError
from llmbatch.core.types import Cursor, Row

T = TypeVar("T")
_START = Cursor(0)
_AGAIN_SECONDS = (0.2, 1.0, 3.0)  # a file system or network that fails is given so long between two tries


class HasRows(Protocol):
    """What of a source is needed here."""

    def rows(self, start: Cursor, /) -> Iterator[Row]: ...


class Reader:
    """A source's rows with one row of look-ahead; goes back only when it has to.

    Reading that fails is tried again a few times, where that can help. If it goes on failing, ``next`` is ``None`` as at the end,
    and ``failure`` says why.
    """

    def __init__(self, source: HasRows) -> None:
        self._source = source
        self._rows: Iterator[Row] | None = None
        self._next: Row | None = None
        self.failure: ReadError | None = None

    def seek(self, start: Cursor) -> None:
        """Be before the row at ``start``."""
        if self._rows is None or self._next is None or self._next.cursor.index != start.index:
            self._rows = self.failure = None
            self._next = self._read(start, passed=False)

    @property
    def next(self) -> Row | None:
        """The row that ``take`` would give, or ``None`` at the end."""
        return self._next

    def take(self) -> Row:
        """One row on. Only where ``next`` is not ``None``."""
        row = self._next
        assert row is not None  # noqa: S101 - for the type checker
        self._next = self._read(row.cursor, passed=True)
        return row

    def _read(self, at: Cursor, *, passed: bool) -> Row | None:
        """The row at ``at``, or if that was ``passed`` the one after it."""
        for pause in (*_AGAIN_SECONDS, None):
            try:
                if self._rows is None:
                    self._rows = iter(self._source.rows(at))
                    if passed:
                        next(self._rows, None)
                return next(self._rows, None)
            except ReadError as error:
                self._rows = None
                if pause is None or not _may_pass(error):
                    self.failure = error
                    return None
                time.sleep(pause)
        return None


def each_row(source: HasRows, start: Cursor = _START) -> Iterator[Row]:
    """A source's rows from ``start`` on, read as a ``Reader`` does, for the source's own work alone. Raises ``ReadError``."""
    last: Row | None = None
    failed_behind: Row | None = None
    tries = 0
    while True:
        try:
            rows = source.rows(start if last is None else last.cursor)
            if last is not None:
                next(rows, None)
            for last in rows:
                yield last
            return
        except ReadError as error:
            tries = 0 if failed_behind is not last else tries
            if tries == len(_AGAIN_SECONDS) or not _may_pass(error):
                raise
            time.sleep(_AGAIN_SECONDS[tries])
            failed_behind, tries = last, tries + 1


def again(read: Callable[[], T]) -> T:
    """What a call gives that reads; where it fails in a way that may pass, it is called a few times more. Raises ``ReadError``."""
    for pause in _AGAIN_SECONDS:
        try:
            return read()
        except ReadError as error:
            if not _may_pass(error):
                raise
            time.sleep(pause)
    return read()


def _may_pass(error: ReadError) -> bool:
    """Whether reading again may help: after an error of the file system or network, not where the content is damaged."""
    return isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, gzip.BadGzipFile)
