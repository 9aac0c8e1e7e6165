from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.types import Cursor, FailureKind
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import open_source

Open = Callable[..., Source]


def save(path: Path, table: pa.Table, row_group_size: int = 1000) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def numbers(start: int, stop: int) -> pa.Table:
    return pa.table({"n": list(range(start, stop)), "text": [f"t{n}" for n in range(start, stop)]})


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """1,000 rows in two files, of row groups of 100 and of 700 rows."""
    folder = tmp_path_factory.mktemp("shards")
    save(folder / "a.parquet", numbers(0, 300), 100)
    save(folder / "b.parquet", numbers(300, 1000), 700)
    return open_source(SourceSettings(path=str(folder / "*.parquet")))


def test_rows_of_all_files_come_in_order(shards: Source) -> None:
    rows = list(shards.rows())
    assert [row.data["n"] for row in rows] == list(range(1000))
    assert rows[299].cursor == Cursor(299, 0, 299, 299)
    assert rows[300].cursor == Cursor(300, 1, 0, 0)
    assert shards.locate(rows[301].cursor).endswith("b.parquet[1]")


@settings(max_examples=30, deadline=None)
@given(k=st.integers(0, 999))
def test_reading_goes_on_at_any_row_as_if_it_had_not_stopped(shards: Source, k: int) -> None:
    rows = list(shards.rows())
    assert list(shards.rows(rows[k].cursor)) == rows[k:]


def test_progress_grows_from_0_to_1(shards: Source) -> None:
    shares = [shards.progress(row.cursor) for row in shards.rows()]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1, abs=0.01)


def test_values_become_json_values(tmp_path: Path, source: Open) -> None:
    table = pa.table(
        {
            "id": ["x"],
            "when": [datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)],
            "day": [datetime.date(2024, 1, 2)],
            "price": [decimal.Decimal("12.50")],
            "text": [b"caf\xc3\xa9"],
            "blob": [b"\xff\x00"],
            "nan": [math.nan],
            "infinite": [math.inf],
            "third": [1 / 3],
            "none": pa.array([None], pa.int32()),
            "inner": [{"a": [1.5, math.nan], "b": datetime.date(2024, 1, 2)}],
            "long": [datetime.timedelta(seconds=90)],
            "big": pa.array([2**64 - 1], pa.uint64()),
        }
    )
    row = next(source(save(tmp_path / "a.parquet", table)).rows())
    assert row.id == "x"
    assert row.data == {
        "id": "x",
        "when": "2024-01-02T03:04:05+00:00",
        "day": "2024-01-02",
        "price": "12.50",
        "text": "café",
        "blob": "/wA=",
        "nan": None,
        "infinite": None,
        "third": 1 / 3,
        "none": None,
        "inner": {"a": [1.5, None], "b": "2024-01-02"},
        "long": 90.0,
        "big": 2**64 - 1,
    }
    json.dumps(row.data, allow_nan=False)


def test_a_value_that_cannot_be_read_spoils_only_its_own_row(tmp_path: Path, source: Open) -> None:
    texts = pa.StringArray.from_buffers(
        3, pa.py_buffer(b"\0\0\0\0\4\0\0\0\5\0\0\0\x09\0\0\0"), pa.py_buffer(b"good\xfffine")
    )
    rows = list(source(save(tmp_path / "a.parquet", pa.table({"text": texts}))).rows())
    assert [row.data.get("text") for row in rows] == ["good", None, "fine"]
    assert rows[1].failure is not None
    assert rows[1].failure.kind is FailureKind.MALFORMED_ROW
    assert "a.parquet[1]: " in rows[1].failure.message


def test_columns_that_were_asked_for_are_read_with_the_id(tmp_path: Path, source: Open) -> None:
    path = save(tmp_path / "a.parquet", pa.table({"id": ["x"], "a": [1], "b": [2]}))
    assert next(source(path, columns=("b",)).rows()).data == {"id": "x", "b": 2}


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"id_field": "key"}, "no column 'key'; the columns are n, text"), ({"columns": ("x",)}, "no column 'x'")],
)
def test_a_missing_column_ends_the_job_before_it_begins(
    tmp_path: Path, source: Open, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        source(save(tmp_path / "a.parquet", numbers(0, 3)), **asked)


def test_a_later_file_without_the_id_column_is_a_read_error_after_the_rows_before(tmp_path: Path, source: Open) -> None:
    save(tmp_path / "a.parquet", pa.table({"key": [1, 2]}))
    save(tmp_path / "b.parquet", pa.table({"other": [1, 2]}))
    rows = source(tmp_path / "*.parquet", id_field="key").rows()
    assert [next(rows).id, next(rows).id] == [1, 2]
    with pytest.raises(ReadError, match=r"b\.parquet: there is no column 'key'"):
        next(rows)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path, source: Open) -> None:
    (tmp_path / "a.parquet").write_text("hello")
    with pytest.raises(SourceError, match=r"a\.parquet: cannot be read"):
        source(tmp_path / "a.parquet")


def test_a_file_without_rows_is_refused(tmp_path: Path, source: Open) -> None:
    with pytest.raises(SourceError, match="there is no row in it"):
        source(save(tmp_path / "a.parquet", numbers(0, 0)))


def test_damage_in_the_middle_is_a_read_error(tmp_path: Path, source: Open) -> None:
    path = save(tmp_path / "a.parquet", numbers(0, 10_000), 1000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    rows = source(path).rows()
    with pytest.raises(ReadError, match=r"a\.parquet: cannot be read beyond row \d+"):
        list(rows)


def test_stdin_is_refused(source: Open) -> None:
    with pytest.raises(SourceError, match="cannot be read from stdin"):
        source("-", format="parquet")
