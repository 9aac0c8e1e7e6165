from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from llmbatch.core.errors import ReadError
from llmbatch.core.types import Cursor
from llmbatch.engines.supervised import Cancelled
from llmbatch.folder.bounds import Bounds
from llmbatch.runs.read_ahead import ReadAhead
from llmbatch.runs.window import OpenWindow

PATIENCE = 300.0


def window(number: int) -> OpenWindow:
    return OpenWindow(Bounds(number, Cursor(0), Cursor(0), None, 0))


def taken(ahead: ReadAhead) -> list[int]:
    """The numbers of all windows that come."""
    numbers = []
    while not ahead.ended:
        if (opened := ahead.get(PATIENCE)) is not None:
            numbers.append(opened.bounds.window)
    return numbers


def test_windows_come_in_order_and_then_it_has_ended() -> None:
    ahead = ReadAhead(map(window, range(5)), 1)
    ahead.start()
    assert taken(ahead) == [0, 1, 2, 3, 4]
    assert ahead.get(PATIENCE) is None


def test_an_error_comes_where_its_window_would_have_come() -> None:
    def windows() -> Iterator[OpenWindow]:
        yield window(0)
        raise ReadError("broken")

    ahead = ReadAhead(windows(), 2)
    ahead.start()
    assert ahead.get(PATIENCE) is not None
    with pytest.raises(ReadError, match="broken"):
        ahead.get(PATIENCE)
    assert ahead.ended


def test_it_does_not_run_further_ahead_than_its_size_and_stop_ends_it() -> None:
    made: list[int] = []
    third, go_on = threading.Event(), threading.Event()

    def windows() -> Iterator[OpenWindow]:
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
                go_on.wait(PATIENCE)
            yield window(number)

    ahead = ReadAhead(windows(), 1)
    ahead.start()
    assert ahead.get(PATIENCE) is not None
    assert third.wait(PATIENCE), "one ready, one in the making"
    go_on.set()
    time.sleep(0.3)
    assert made == [0, 1, 2]
    ahead.stop()
    assert ahead.ended
    assert made == [0, 1, 2]


def test_where_the_engine_will_not_come_up_nothing_comes_and_nothing_is_raised() -> None:
    def windows() -> Iterator[OpenWindow]:
        raise Cancelled
        yield

    ahead = ReadAhead(windows(), 1)
    ahead.start()
    assert ahead.get(0.2) is None
    ahead.stop()
    assert ahead.ended


def test_who_waits_is_told_when_a_window_is_there() -> None:
    there = threading.Event()
    ahead = ReadAhead(map(window, range(1)), 1)
    ahead.start(there.set)
    assert there.wait(PATIENCE)
    assert ahead.get(0) is not None
    ahead.stop()
