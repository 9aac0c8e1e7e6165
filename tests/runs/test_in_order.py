from __future__ import annotations

from pathlib import Path

import pytest

from llmbatch.core.errors import FolderError
from llmbatch.core.types import Cursor
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.parts import Parts
from llmbatch.runs.in_order import InOrder
from llmbatch.runs.window import OpenWindow


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def complete(number: int) -> OpenWindow:
    window = OpenWindow(Bounds(number, Cursor(number), Cursor(number), None, 1))
    window.order, window.lines = [number], {number: b"%d\n" % number}
    return window


def seal(parts: Parts, number: int) -> None:
    parts.path(number).write_bytes(b"%d on disk\n" % number)


def test_windows_wait_for_their_turn_on_the_disk(parts: Parts) -> None:
    ordered = InOrder(parts)
    for number in (3, 1, 2):
        ordered.add(complete(number))
        assert ordered.held == 1, "the one that is not sealed yet"
        assert list(ordered.lines()) == []
        seal(parts, number)
    ordered.add(complete(0))
    assert ordered.held == 1
    assert list(ordered.lines()) == [b"0\n", b"1 on disk\n", b"2 on disk\n", b"3 on disk\n"]
    assert ordered.held == 0


def test_a_window_whose_turn_comes_before_it_is_sealed_is_not_waited_for(parts: Parts) -> None:
    ordered = InOrder(parts)
    for number in (1, 0, 2):
        ordered.add(complete(number))
    assert list(ordered.lines()) == [b"0\n", b"1\n", b"2\n"]
    assert ordered.held == 0


def test_a_part_that_went_away_is_an_error(parts: Parts) -> None:
    ordered = InOrder(parts)
    seal(parts, 0)
    ordered.add(complete(0))
    parts.path(0).unlink()
    with pytest.raises(FolderError, match=r"part-00000\.jsonl: a sealed part cannot be read"):
        list(ordered.lines())
