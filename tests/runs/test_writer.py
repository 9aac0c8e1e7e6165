from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import WriteError
from llmbatch.core.types import Cursor
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.parts import Parts
from llmbatch.runs.window import OpenWindow
from llmbatch.runs.writer import Writer


class Disk(Parts):
    """Writes down what is asked of it instead of doing it; waits where it is told to, fails where it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.done: list[str] = []
        self.free = threading.Event()
        self.free.set()
        self.full = False

    def append(self, window: int, entries: Sequence[bytes]) -> None:
        self._do(f"append {window} {b''.join(entries).decode()}")

    def commit(self) -> None:
        self._do("commit")

    def seal(self, bounds: Bounds, lines: Any, *, ledger: Mapping[str, Any], input_sha256: str | None) -> None:
        self._do(f"seal {bounds.window}")

    def _do(self, what: str) -> None:
        self.free.wait()
        if self.full:
            raise WriteError("no space")
        self.done.append(what)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    disk.free.set()


def window(number: int, *entries: bytes) -> OpenWindow:
    made = OpenWindow(Bounds(number, Cursor(0), Cursor(0), None, 1))
    made.entries = list(entries)
    return made


def test_operations_are_done_in_the_order_given_and_committed_at_the_end(disk: Disk) -> None:
    writer = Writer(disk, commit_seconds=600)
    writer.append(window(1, b"a", b"b"))
    writer.append(window(2, b"c"))
    writer.seal(window(1))
    writer.close()
    assert disk.done == ["append 1 ab", "append 2 c", "seal 1", "commit"]


def test_a_window_without_news_is_not_appended_to(disk: Disk) -> None:
    writer = Writer(disk, commit_seconds=600)
    writer.append(window(1))
    writer.close()
    assert disk.done == ["commit"]


def test_entries_of_a_window_that_is_sealed_are_no_longer_needed(disk: Disk) -> None:
    complete = window(1, b"a")
    writer = Writer(disk, commit_seconds=600)
    writer.seal(complete)
    writer.append(complete)
    writer.close()
    assert disk.done == ["seal 1", "commit"]


def test_what_was_appended_is_committed_when_it_is_time_even_where_nothing_follows(disk: Disk) -> None:
    writer = Writer(disk, commit_seconds=1e-9)
    writer.append(window(1, b"a"))
    writer.check()
    writer.check()
    writer.close()
    assert disk.done == ["append 1 a", "commit", "commit"]


def test_a_slow_disk_keeps_nobody_waiting(disk: Disk) -> None:
    disk.free.clear()
    writer = Writer(disk, commit_seconds=600)
    for number in range(3):
        writer.append(window(number, b"a"))
        writer.seal(window(number))
        writer.check()
    assert disk.done == []
    assert writer.sealing == 3
    assert not writer.wait_for_seal(0.01)
    disk.free.set()
    writer.close()
    assert writer.sealing == 0
    assert len(disk.done) == 7


def test_after_a_failure_nothing_more_is_written_and_its_error_is_raised(disk: Disk) -> None:
    writer = Writer(disk, commit_seconds=600)
    disk.free.clear()
    disk.full = True
    writer.append(window(1, b"b"))
    writer.seal(window(2))
    disk.free.set()
    with pytest.raises(WriteError, match="no space"):
        writer.close()
    assert disk.done == []


def test_check_raises_the_error_of_what_failed_meanwhile(disk: Disk) -> None:
    disk.full = True
    writer = Writer(disk, commit_seconds=600)
    writer.seal(window(1))
    writer.wait_for_seal(60)
    with pytest.raises(WriteError, match="no space"):
        writer.check()
    disk.full = False
    writer.close()
    assert disk.done == ["commit"]


def test_a_folder_that_was_lost_is_not_written_to_any_more(disk: Disk) -> None:
    disk.free.clear()
    writer = Writer(disk, commit_seconds=600)
    writer.append(window(1, b"a"))
    writer.append(window(1, b"b"))
    writer.abandon()
    disk.free.set()
    writer.close()
    assert "append 1 b" not in disk.done
