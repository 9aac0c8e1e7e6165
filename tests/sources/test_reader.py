from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmbatch.core.errors import ReadError
from llmbatch.core.types import Cursor, Row
from llmbatch.sources.reader import Reader


class Flaky:
    """A source of ten rows that fails at a row, with an error that has this cause, so many times."""

    def __init__(self, fails_at: int = -1, times: int = 0, cause: Exception | None = None) -> None:
        self.fails_at, self.times, self.cause = fails_at, times, cause
        self.opened: list[int] = []

    def rows(self, start: Cursor) -> Iterator[Row]:
        self.opened.append(start.index)
        for index in range(start.index, 10):
            if index == self.fails_at and self.times:
                self.times -= 1
                raise ReadError("it failed") from self.cause
            yield Row(index, index, {}, Cursor(index))


def read(source: Flaky, start: int = 0) -> tuple[list[int], Reader]:
    reader = Reader(source)  # type: ignore[arg-type]
    reader.seek(Cursor(start))
    indexes = []
    while reader.next is not None:
        indexes.append(reader.take().index)
    return indexes, reader


def test_every_row_comes_once_from_the_start_asked_for() -> None:
    assert read(Flaky())[0] == list(range(10))
    assert read(Flaky(), start=7)[0] == [7, 8, 9]


def test_the_next_row_can_be_looked_at_without_taking_it() -> None:
    reader = Reader(Flaky())  # type: ignore[arg-type]
    reader.seek(Cursor(0))
    assert reader.next is not None
    assert reader.next.index == reader.take().index == 0


def test_going_on_where_it_stands_opens_nothing_again() -> None:
    source = Flaky()
    reader = Reader(source)  # type: ignore[arg-type]
    for start in (0, 1, 2, 7):
        reader.seek(Cursor(start))
        assert reader.take().index == start
    assert source.opened == [0, 7]


@pytest.mark.parametrize("fails_at", [0, 1, 6, 9])
def test_a_failure_of_the_file_system_that_passes_loses_and_doubles_no_row(fails_at: int) -> None:
    source = Flaky(fails_at, times=2, cause=OSError(5, "Input/output error"))
    indexes, reader = read(source)
    assert indexes == list(range(10))
    assert reader.failure is None
    assert len(source.opened) == 3


def test_a_failure_that_stays_ends_the_rows_and_is_kept() -> None:
    indexes, reader = read(Flaky(3, times=99, cause=OSError(5, "Input/output error")))
    assert indexes == [0, 1, 2]
    assert str(reader.failure) == "it failed"


@pytest.mark.parametrize("cause", [None, EOFError("cut off"), ValueError("damaged")])
def test_damaged_content_is_not_read_again(cause: Exception | None) -> None:
    source = Flaky(3, times=99, cause=cause)
    indexes, reader = read(source)
    assert indexes == [0, 1, 2]
    assert reader.failure is not None
    assert source.opened == [0]
