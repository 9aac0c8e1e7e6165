from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llmbatch.core.errors import FolderError
from llmbatch.core.record import record_to_line
from llmbatch.core.types import Cursor, Record, Status
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.order import Making, Order, discard_order, in_input_order, read_order, sound

PLACES = [(2, 0, 20, 2, -1, -1), (0, 0, 0, 0, -1, -1), (1, 0, 10, 1, -1, -1)]


def packed(places: list[tuple[int, ...]]) -> bytes:
    return b"".join(number.to_bytes(8, "little", signed=True) for place in places for number in place)


def make(folder: Path) -> Order:
    read = [(Bounds(0, Cursor(0), Cursor(2, 0, 20, 2), None, 3), "digest")]
    with Making(folder, "test") as making:
        return making.commit([packed(PLACES[:2]), packed(PLACES[2:])], read, {"job": "j"}, {"spooled": False})


def lines(indexes: list[int]) -> list[bytes]:
    return [record_to_line(Record(i, f"row {i}", Status.OK, output=f'"index":{i}' * (i % 5))) for i in indexes]


def test_an_order_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = make(tmp_path)
    order = read_order(tmp_path)
    assert order is not None
    assert (order.rows, order.last, order.read, order.made_of) == (3, Cursor(2, 0, 20, 2), made.read, {"job": "j"})
    assert [place.cursor for place in order.places(0, 9)] == [Cursor(*place[:4]) for place in PLACES]
    assert [place.cursor.index for place in order.places(1, 1)] == [0]
    assert sound(order)
    assert sorted(path.name for path in (tmp_path / "order").iterdir()) == ["order.json", "places"]


def test_a_window_s_indexes_are_those_of_its_places_and_behind_the_order_its_places(tmp_path: Path) -> None:
    order = make(tmp_path)
    assert order.indexes(Bounds(0, Cursor(0), Cursor(1), Cursor(2), 2)) == [0, 2]
    assert order.indexes(Bounds(1, Cursor(2), Cursor(4), None, 3)) == [1, 3, 4]


def test_without_its_last_file_there_is_no_order(tmp_path: Path) -> None:
    assert read_order(tmp_path) is None
    make(tmp_path)
    (tmp_path / "order" / "order.json").unlink()
    assert read_order(tmp_path) is None
    discard_order(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["temp-written/places", "renamed/places", "order-placed", "temp-written/order.json"])
def test_a_kill_before_the_end_leaves_no_order_and_another_makes_it(
    kill_at: Callable[[str, Callable[[], object]], None], fault: str, tmp_path: Path
) -> None:
    kill_at(fault, lambda: make(tmp_path))
    assert read_order(tmp_path) is None
    make(tmp_path)
    assert read_order(tmp_path) is not None
    assert sorted(path.name for path in (tmp_path / "order").iterdir()) == ["order.json", "places"]


def test_an_order_that_was_damaged_is_told(tmp_path: Path) -> None:
    order = make(tmp_path)
    path = tmp_path / "order" / "places"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\1")
    assert not sound(order)
    path.write_bytes(content[:-1])
    with pytest.raises(FolderError, match="has 143 bytes, and 3 rows have 144"):
        read_order(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"llmbatch_order": 99}, "upgrade llmbatch"),
        ({"rows": None}, "cannot be read"),
        ({"read": [{}]}, "cannot be read"),
    ],
)
def test_an_order_that_cannot_be_understood_is_an_error(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    make(tmp_path)
    path = tmp_path / "order" / "order.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FolderError, match=said):
        read_order(tmp_path)


@pytest.mark.parametrize("parts", [1, 2, 7, 300])
def test_parts_are_merged_by_the_rows_indexes(tmp_path: Path, parts: int) -> None:
    indexes = list(range(3000))
    Random(parts).shuffle(indexes)
    paths = []
    for number in range(parts):
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(b"".join(lines(sorted(indexes[number::parts]))))
    assert list(in_input_order(paths)) == lines(list(range(3000)))


def test_lines_longer_than_what_is_read_at_a_time_are_whole(tmp_path: Path) -> None:
    long = [record_to_line(Record(i, i, Status.OK, output="x" * 100_000)) for i in range(4)]
    for number in range(2):
        (tmp_path / f"{number}").write_bytes(b"".join(long[number::2]))
    many = [tmp_path / f"{number}" for number in range(2)] + [tmp_path / "empty"] * 4000
    (tmp_path / "empty").touch()
    assert list(in_input_order(many)) == long


def test_lines_are_merged_with_parts(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"".join(lines([1, 4])))
    assert list(in_input_order([lines([0, 5]), tmp_path / "part", lines([2, 3])])) == lines([0, 1, 2, 3, 4, 5])


def test_a_part_that_ends_within_a_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"".join(lines([1, 4]))[:-3])
    with pytest.raises(FolderError, match="ends in the middle of a line"):
        list(in_input_order([tmp_path / "part"]))
