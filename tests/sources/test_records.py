from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import SourceError
from llmbatch.core.types import Failure, Rendered, Row
from llmbatch.formats import FORMATS
from llmbatch.formats.base import Container, NoSettings
from llmbatch.sources import opening
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import open_source

Write = Callable[..., Path]


class Settings(NoSettings):
    container: Container = "values"
    takes_text: bool = False


class AnyFormat:
    """A format that takes all records but those that are null or empty."""

    Settings = Settings
    id_field: str | None = None
    keys: frozenset[str] = frozenset()
    takes_prompt = True

    def __init__(self, settings: Settings) -> None:
        self.container = settings.container
        self.takes_text = settings.takes_text

    def problem(self, line: Mapping[str, Any]) -> str | None:
        return None if line["record"] or line["record"] == 0 else "nothing is in it"

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure | None:
        return None


@pytest.fixture(autouse=True)
def any_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "any", f"{__name__}:AnyFormat")
    monkeypatch.setitem(opening._ONLY_FOR, "options", ("any",))
    monkeypatch.setitem(opening._ONLY_FOR, "more", ("any", "jsonl"))


def opened(*paths: Path, **options: Any) -> Source:
    first, *more = map(str, paths)
    return open_source(SourceSettings(path=first, more=tuple(more), format="any", options=options))


def seen(row: Row) -> Any:
    return row.data["record"] if row.failure is None else row.failure.message.partition("; saw")[0].rpartition("/")[2]


def test_a_record_of_values_is_any_json_value(write: Write) -> None:
    path = write("a.jsonl", '{"id":"x","a":1}\n\n["b"]\n"c"\n0\nnull\n{"id":\n')
    rows = list(opened(path).rows())
    assert [seen(row) for row in rows] == [
        {"id": "x", "a": 1},
        ["b"],
        "c",
        0,
        "a.jsonl:6: nothing is in it",
        "a.jsonl:7: not JSON: Expecting value at column 1",
    ]
    assert [row.id for row in rows] == ["x", 1, 2, 3, 4, 5]


def test_a_line_that_is_no_json_is_a_text_where_the_format_takes_that(write: Write) -> None:
    path = write("a.txt", b"one loaf\r\n\xff\n12\n{broken\n")
    assert [seen(row) for row in opened(path, takes_text=True).rows()] == [
        "one loaf",
        "a.txt:2: not UTF-8: 0xff is byte 1 of it; convert it, e.g. with iconv -t UTF-8",
        12,
        "{broken",
    ]


def test_a_record_of_files_is_a_whole_file_and_an_empty_one_has_its_row(write: Write) -> None:
    paths = [write("a.json", '{"x":\n 1}\n'), write("b.json", ""), write("c.json", "two\nlines\n")]
    rows = list(opened(*paths, container="files", takes_text=True).rows())
    assert [seen(row) for row in rows] == [{"x": 1}, "b.json:1: nothing is in it", "two\nlines"]
    assert [row.cursor.file for row in rows] == [0, 1, 2]


def test_a_record_of_csv_without_a_header_is_the_fields_of_a_line(write: Write) -> None:
    path = write("a.csv", 'a,"b, c"\n"broken\nd,e\n')
    assert [seen(row) for row in opened(path, container="csv_lines").rows()] == [
        ["a", "b, c"],
        "a.csv:2: broken CSV: unexpected end of data; a record is one line",
        ["d", "e"],
    ]


def test_a_record_of_csv_is_a_mapping(write: Write) -> None:
    path = write("a.csv", "id,b\nx,1\ny\n")
    rows = list(opened(path, container="csv").rows())
    assert [(row.id, row.data) for row in rows] == [("x", {"record": {"id": "x", "b": "1"}}), (1, {})]


@pytest.mark.parametrize("container", ["values", "files", "csv_lines", "csv"])
def test_reading_goes_on_at_any_row(write: Write, container: str) -> None:
    text = "id,b\n" * (container == "csv") + "".join(f'"a{number}",{number}\n' for number in range(3))
    paths = [write(f"{name}.csv", text) for name in "abc"]
    if container == "csv":
        paths = [paths[0].parent / "*.csv"]
    source = opened(*paths, container=container, takes_text=True)
    rows = list(source.rows())
    assert len(rows) == (3 if container == "files" else 9)
    for row in rows:
        assert list(source.rows(row.cursor)) == rows[row.index :]


def test_a_setting_that_the_format_does_not_have_is_refused_by_its_name(write: Write) -> None:
    with pytest.raises(SourceError, match=r"input\.options\.color: .*the settings of any are container, takes_text"):
        opened(write("a.jsonl", "1\n"), color="red")


def test_several_inputs_are_read_one_after_another_in_the_order_given(write: Write) -> None:
    paths = [write("b/2.jsonl", '{"n":1}\n'), write("a/1.jsonl", '{"n":2}\n'), write("a/0.jsonl", '{"n":3}\n')]
    source = open_source(SourceSettings(path=str(paths[0]), more=tuple(map(str, paths[1:]))))
    assert [row.data["n"] for row in source.rows()] == [1, 2, 3]
    assert source.files() == ["b/2.jsonl", "a/1.jsonl", "a/0.jsonl"]
    assert [Path(entry["file"]).name for entry in source.fingerprint()] == ["2.jsonl", "1.jsonl", "0.jsonl"]


def test_several_inputs_are_for_json_lines_alone(write: Write) -> None:
    path = write("a.csv", "a\n1\n")
    with pytest.raises(SourceError, match=r"input\.more is for any, jsonl"):
        open_source(SourceSettings(path=str(path), more=(str(path),)))


def test_a_further_input_that_is_not_there_is_said_before_the_first_row(write: Write) -> None:
    path = write("a.jsonl", json.dumps({"a": 1}))
    with pytest.raises(SourceError, match=r"gone\.jsonl: no such file"):
        open_source(SourceSettings(path=str(path), more=(str(path.parent / "gone.jsonl"),)))
