from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from llmbatch.publishing.columns import Columns


def written(*blocks: list[dict[str, Any]]) -> tuple[pa.Schema, list[dict[str, Any]]]:
    """The schema over blocks of rows, and the rows as they are read back from a table with it."""
    columns = Columns()
    for block in blocks:
        columns.see(block)
    schema = columns.schema()
    rows = [columns.written(row) for block in blocks for row in block]
    return schema, pa.Table.from_pylist(rows, schema=schema).to_pylist()


def test_types_are_those_of_all_rows_together() -> None:
    schema, rows = written(
        [{"n": 1, "o": {"a": 1}, "l": []}], [{"n": 2.5, "o": {"b": "x"}, "l": ["y"], "late": True}], [{"n": None}]
    )
    assert schema.field("n").type == pa.float64()
    assert schema.field("late").type == pa.bool_()
    assert rows[0] == {"n": 1.0, "o": {"a": 1, "b": None}, "l": [], "late": None}
    assert rows[1]["o"] == {"a": None, "b": "x"}


@pytest.mark.parametrize(
    "blocks",
    [
        [[{"v": 1}, {"v": "x"}]],
        [[{"v": "x"}], [{"v": {"a": 1}}]],
        [[{"v": {}}]],
        [[{"v": 2**70}]],
        [[{"v": [{}, {}]}]],
        [[{"v": {f"key{i}": i for i in range(500)}}]],
    ],
)
def test_what_has_no_one_type_is_json_text(blocks: Any) -> None:
    schema, rows = written(*blocks)
    assert schema.field("v").type == pa.string()
    assert all(isinstance(row["v"], str) for row in rows)


def test_a_column_without_any_value_is_text() -> None:
    schema, rows = written([{"v": None, "o": {"inner": None}}])
    assert schema.field("v").type == pa.string()
    assert rows == [{"v": None, "o": {"inner": None}}]
