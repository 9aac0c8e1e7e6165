from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from llmbatch.core.errors import WriteError
from llmbatch.runs.latest import Latest


class Disk:
    """Keeps what is written; waits where it is told to, fails where it is told to."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Event()
        self.full = False

    def write(self, text: str) -> Callable[[], None]:
        def write() -> None:
            self.begun.set()
            self.free.wait()
            if self.full:
                raise WriteError("no space")
            self.written.append(text)

        return write


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.free.set()


@pytest.fixture
def latest() -> Iterator[Latest]:
    latest = Latest()
    yield latest
    latest.close()


def test_what_is_put_is_written_by_another_thread(disk: Disk, latest: Latest) -> None:
    seen: list[str] = []
    latest.put("a", lambda: seen.append(threading.current_thread().name))
    latest.flush()
    assert seen and seen[0] != threading.current_thread().name
    latest.put("a", disk.write("again, after the thread had nothing to do"))
    latest.flush()
    assert len(disk.written) == 1


def test_a_slow_disk_holds_nobody_up_and_gets_the_newest_of_each_file(disk: Disk, latest: Latest) -> None:
    disk.free.clear()
    latest.put("a", disk.write("a 0"))
    assert disk.begun.wait(60)
    for number in range(1, 100):
        latest.put("a", disk.write(f"a {number}"))
        latest.put("b", disk.write(f"b {number}"))
    assert not disk.written
    disk.free.set()
    latest.flush()
    assert disk.written == ["a 0", "a 99", "b 99"]


def test_an_error_is_raised_once_and_then_it_is_tried_again(disk: Disk, latest: Latest) -> None:
    disk.full = True
    latest.put("a", disk.write("a"))
    with pytest.raises(WriteError, match="no space"):
        latest.flush()
    disk.full = False
    latest.put("a", disk.write("there is space again"))
    latest.flush()
    assert disk.written == ["there is space again"]


def test_an_error_is_raised_by_the_next_put_too(disk: Disk, latest: Latest) -> None:
    def put_until_it_is_known() -> None:
        while True:
            latest.put("a", disk.write("a"))
            time.sleep(0.001)

    disk.full = True
    with pytest.raises(WriteError, match="no space"):
        put_until_it_is_known()
    disk.full = False
    latest.put("a", disk.write("there is space again"))
    latest.flush()
    assert disk.written == ["there is space again"]


def test_closing_leaves_what_waits(disk: Disk) -> None:
    latest = Latest()
    disk.free.clear()
    latest.put("a", disk.write("a"))
    assert disk.begun.wait(60)
    latest.put("a", disk.write("never"))
    closing = threading.Thread(target=latest.close)
    closing.start()
    while latest._waiting:  # it was taken away before the thread is waited for
        time.sleep(0.001)
    disk.free.set()
    closing.join()
    assert disk.written == ["a"]


def test_nothing_is_begun_for_nothing() -> None:
    before = set(threading.enumerate())
    latest = Latest()
    latest.flush()
    assert set(threading.enumerate()) <= before
    latest.close()
