from __future__ import annotations

import datetime
import json
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbatch.core.errors import ReadError
from llmbatch.core.types import Cursor, FailureKind
from llmbatch.sources.memory import MemorySource, open_memory

ROWS = [{"id": "a", "n": 1}, {"n": 2}, {"id": 7, "n": 3}]


def test_a_sequence_is_read_from_any_row_again_and_again() -> None:
    source = MemorySource(ROWS)
    rows = list(source.rows())
    assert [(row.index, row.id, row.data) for row in rows] == [(0, "a", ROWS[0]), (1, 1, ROWS[1]), (2, 7, ROWS[2])]
    for row in rows:
        assert list(source.rows(row.cursor)) == rows[row.index :]


def test_an_iterator_is_taken_from_only_as_rows_are_asked_for() -> None:
    taken = []
    source = MemorySource(taken.append(row) or row for row in ROWS)  # type: ignore[func-returns-value]
    rows = source.rows()
    assert taken == []
    assert next(rows).id == "a"
    assert len(taken) == 1


def test_an_iterator_goes_on_forward_and_not_back() -> None:
    source = MemorySource(iter(ROWS))
    next(source.rows())
    assert [row.index for row in source.rows(Cursor(2, 0, 2, 2))] == [2]
    with pytest.raises(ReadError, match="read once, and 3 rows were taken"):
        list(source.rows())


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("text", "row 1: a str, and a row is a mapping"),
        (None, "row 1: a NoneType"),
        ({"a": object()}, "a value of type builtins.object"),
        ({"a": "\ud83d"}, "half of a surrogate pair"),
        ({("a", 1): 1}, "a key of type tuple"),
    ],
)
def test_an_item_that_is_no_row_is_malformed_and_its_neighbours_live(item: Any, said: str) -> None:
    rows = list(MemorySource([{"a": 1}, item, {"a": 2}]).rows())
    assert [row.data for row in rows] == [{"a": 1}, {}, {"a": 2}]
    assert rows[1].failure is not None
    assert rows[1].failure.kind is FailureKind.MALFORMED_ROW
    assert said in rows[1].failure.message


def test_a_value_that_holds_itself_is_malformed() -> None:
    knot: dict[str, Any] = {}
    knot["self"] = knot
    [row] = MemorySource([knot]).rows()
    assert row.failure is not None
    assert "nested more than 200 deep" in row.failure.message


def test_values_of_numpy_and_dates_become_json_values() -> None:
    item = {
        "f": np.float64(1.5),
        "i": np.int32(2),
        "a": np.array([[1, 2]]),
        "s": np.str_("x"),
        "t": datetime.time(1, 2),
        3: 4,
    }
    [row] = MemorySource([item]).rows()
    assert row.data == {"f": 1.5, "i": 2, "a": [[1, 2]], "s": "x", "t": "01:02:00", "3": 4}
    assert json.loads(json.dumps(row.data)) == row.data


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=3))
def test_whatever_is_a_row_can_be_written_as_strict_json(item: dict[str, Any]) -> None:
    [row] = MemorySource([item]).rows()
    assert json.loads(json.dumps(row.data, allow_nan=False, ensure_ascii=False).encode()) == row.data


def test_the_digest_changes_with_the_rows_between() -> None:
    one, two = MemorySource(ROWS), MemorySource([*ROWS[:2], {"id": 7, "n": 4}])
    assert one.digest(Cursor(0), Cursor(2)) == two.digest(Cursor(0), Cursor(2))
    assert one.digest(Cursor(0), None) != two.digest(Cursor(0), None)
    assert MemorySource(iter(ROWS)).digest(Cursor(0), None) is None


def test_progress_is_known_of_a_sequence_only() -> None:
    assert MemorySource(ROWS * 2).progress(Cursor(3)) == 0.5
    assert MemorySource(iter(ROWS)).progress(Cursor(3)) is None


def test_a_dataset_is_read_as_one() -> None:
    source = open_memory(datasets.Dataset.from_list([{"key": "a"}, {"key": "b"}]), "key")
    rows = list(source.rows())
    assert [row.id for row in rows] == ["a", "b"]
    assert list(source.rows(rows[1].cursor)) == rows[1:]
    assert list(open_memory(ROWS).rows()) == list(MemorySource(ROWS).rows())
