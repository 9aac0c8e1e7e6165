from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbatch.core.errors import SourceError
from llmbatch.core.types import FailureKind, Row
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import open_source

Write = Callable[..., Path]
Open = Callable[..., Source]


def message_of(row: Row) -> str:
    assert row.failure is not None
    assert row.failure.kind is FailureKind.MALFORMED_ROW
    return row.failure.message


def test_a_record_is_a_row_of_texts_by_the_names_in_the_header(write: Write, source: Open) -> None:
    rows = list(source(write("a.csv", "id,n,text\nx,1,\ny,2.0,é\r\n")).rows())
    assert [(row.id, row.data) for row in rows] == [
        ("x", {"id": "x", "n": "1", "text": ""}),
        ("y", {"id": "y", "n": "2.0", "text": "é"}),
    ]


def test_quotes_hold_delimiters_line_breaks_and_doubled_quotes(write: Write, source: Open) -> None:
    path = write("a.csv", 'a,b\n"x, y","line 1\r\n\nline ""2"""\n3,4\n')
    rows = list(source(path).rows())
    assert [row.data for row in rows] == [{"a": "x, y", "b": 'line 1\r\n\nline "2"'}, {"a": "3", "b": "4"}]
    assert source(path).locate(rows[1].cursor) == f"{path}:5"


def test_a_byte_order_mark_and_blank_lines_are_skipped(write: Write, source: Open) -> None:
    rows = list(source(write("a.csv", b"\xef\xbb\xbf \n\na,b\n\n1,2\n  \n3,4\n\n")).rows())
    assert [row.data for row in rows] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_ragged_record_is_malformed_and_names_the_numbers_of_fields(write: Write, source: Open) -> None:
    path = write("a.csv", "a,b\n1,2\n1,2,3\n1\n3,4\n")
    rows = list(source(path).rows())
    assert [row.data for row in rows] == [{"a": "1", "b": "2"}, {}, {}, {"a": "3", "b": "4"}]
    assert message_of(rows[1]).startswith(f"{path.name}:3: 3 fields, and the header row has 2")
    assert message_of(rows[2]).startswith(f"{path.name}:4: 1 fields")


@pytest.mark.parametrize("line", ['"never closed,1', '"closed" too soon,1', '1,"'])
def test_broken_quotes_cost_their_line_and_no_other(write: Write, source: Open, line: str) -> None:
    path = write("a.csv", f"a,b\n1,2\n{line}\n3,4\n5,6\n")
    rows = list(source(path).rows())
    assert [row.data for row in rows] == [{"a": "1", "b": "2"}, {}, {"a": "3", "b": "4"}, {"a": "5", "b": "6"}]
    assert message_of(rows[1]).startswith(f"{path.name}:3: broken CSV")
    assert list(source(path).rows(rows[2].cursor)) == rows[2:]


def test_a_record_that_is_not_utf8_is_malformed(write: Write, source: Open) -> None:
    rows = list(source(write("a.csv", b"a,b\n1,\xff\n3,4\n")).rows())
    assert "not UTF-8: byte 0xff" in message_of(rows[0])
    assert rows[1].data == {"a": "3", "b": "4"}


def test_a_field_may_be_longer_than_the_library_s_own_limit(write: Write, source: Open) -> None:
    text = "x" * 1_000_000
    assert next(source(write("a.csv", f"a,b\n1,{text}\n")).rows()).data["b"] == text


def test_tsv_and_a_delimiter_of_one_s_own(write: Write, source: Open) -> None:
    assert next(source(write("a.tsv", "a\tb\n1,5\t2\n")).rows()).data == {"a": "1,5", "b": "2"}
    assert next(source(write("a.csv", "a;b\n1,5;2\n"), delimiter=";").rows()).data == {"a": "1,5", "b": "2"}


def test_columns_that_were_asked_for_are_read_with_the_id(write: Write, source: Open) -> None:
    path = write("a.csv", "id,a,b,key\n1,2,3,4\n")
    assert next(source(path, columns=("b",)).rows()).data == {"id": "1", "b": "3"}
    assert next(source(path, columns=("b",), id_field="key").rows()).data == {"b": "3", "key": "4"}


def test_files_have_each_their_own_header(write: Write, source: Open, tmp_path: Path) -> None:
    write("d/a.csv", "a,b\n1,2\n")
    write("d/b.csv", "")
    write("d/c.csv.gz", gzip.compress(b"b,a\n3,4\n"))
    read = source(tmp_path / "d" / "*")
    rows = list(read.rows())
    assert [row.data for row in rows] == [{"a": "1", "b": "2"}, {"b": "3", "a": "4"}]
    assert list(read.rows(rows[1].cursor)) == rows[1:]


@pytest.mark.parametrize(
    ("content", "settings_", "said"),
    [
        ("a,b\n1,2\n", {"id_field": "key"}, "no column 'key'; the columns are a, b"),
        ("a,b\n1,2\n", {"columns": ("c",)}, "no column 'c'; the columns are a, b"),
        ("1,2,1\n3,4,5\n", {}, "column '1' is twice in the header"),
        ("a;b\n1;2\n", {}, "divided by ';': set input.delimiter"),
        ('a,"b\n1,2\n', {}, "header row cannot be read: unexpected end of data"),
        (b"a,\xff\n1,2\n", {}, "header row cannot be read: not UTF-8"),
        ("a,b\n\n", {}, "there is no row in it"),
        ("\n\n", {}, "there is no row in it"),
    ],
)
def test_a_header_that_cannot_be_one_ends_the_job_before_it_begins(
    write: Write, source: Open, content: str | bytes, settings_: dict[str, object], said: str
) -> None:
    with pytest.raises(SourceError) as caught:
        source(write("a.csv", content), **settings_)
    assert said in str(caught.value)
    assert "a.csv" in str(caught.value)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_reading_goes_on_at_any_row_as_if_it_had_not_stopped(tmp_path: Path, data: st.DataObject) -> None:
    line = st.sampled_from(["1,2", '"a\nb",c', "é,ü", "", " ", "1", '"open,2', '"x"y,1', '"q""q",","', "\0,1"])
    lines = data.draw(st.lists(line, min_size=1, max_size=10))
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n" + "\n".join(lines), encoding="utf-8", newline="")
    read = open_source(SourceSettings(path=str(path)))
    rows = list(read.rows())
    assert [row.index for row in rows] == list(range(len(rows)))
    k = data.draw(st.integers(0, len(rows) - 1))
    assert list(read.rows(rows[k].cursor)) == rows[k:]


field = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(records=st.lists(st.tuples(field, field), min_size=1, max_size=6))
def test_what_python_writes_as_csv_is_read_back(tmp_path: Path, records: list[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *records])
    path = tmp_path / "a.csv"
    path.write_bytes(text.getvalue().encode())
    rows = open_source(SourceSettings(path=str(path))).rows()
    assert [(row.data["a"], row.data["b"]) for row in rows] == records
