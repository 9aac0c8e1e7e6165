"""Single rows of a source, wherever they are: every source that can be entered anywhere gives the rows that reading it gives."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbatch.core.errors import ReadError
from llmbatch.sources.base import Counting, Scattered, Source, SourceSettings
from llmbatch.sources.opening import open_source

Write = Callable[..., Path]
LINES = [
    '{"id": "a", "text": "one"}',
    "",
    '{"text": "zwei ü"}',
    "{not json",
    "  ",
    '{"text": 3}',
    "[1]",
    '{"text": "last"}',
]


def jsonl(path: Path) -> dict[str, Any]:
    (path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + "\n".join(LINES).encode())  # the last line is not ended
    (path / "b.jsonl").write_text('\n\n{"text": "of another file"}\r\n')
    return {"path": str(path / "*.jsonl")}


def csv(path: Path) -> dict[str, Any]:
    (path / "a.csv").write_text('id,text\n\nx,"two\n\nlines"\ny,1,2\nz,"broken" quotes\nw,last\n')
    (path / "b.csv").write_text("text,id\nother,o\n")
    return {"path": str(path / "*.csv")}


def requests(path: Path) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    lines = [
        json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body})
        for i in range(5)
    ]
    (path / "r.jsonl").write_text("\n".join([*lines[:3], "{}", *lines[3:]]))
    return {"path": str(path / "r.jsonl"), "format": "requests"}


def documents(path: Path) -> dict[str, Any]:
    for number in range(5):
        (path / f"{number}.md").write_text("" if number == 3 else f"# {number}")
    return {"path": str(path)}


def dataset(path: Path) -> dict[str, Any]:
    import datasets

    rows = [{"id": f"d{i}", "text": f"text {i}", "number": i / 3} for i in range(7)]
    datasets.Dataset.from_list(rows).save_to_disk(str(path / "data"))
    return {"path": str(path / "data")}


def drawn(_path: Path) -> dict[str, Any]:
    return {"draw": {"name": ["a", "b", "c"]}, "rows": 7}


def limited(path: Path) -> dict[str, Any]:
    return {**jsonl(path), "limit": 4}


def repeated(path: Path) -> dict[str, Any]:
    return {**jsonl(path), "limit": 4, "repeat": 3}


KINDS = (jsonl, csv, requests, documents, dataset, drawn, limited, repeated)


def opened(settings: Mapping[str, Any]) -> Source:
    return open_source(SourceSettings(**settings))


@pytest.mark.parametrize("kind", KINDS)
def test_any_rows_are_those_that_reading_all_gives(kind: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    source = opened(kind(tmp_path))
    rows, seeker = list(source.rows()), source.seeks()
    assert seeker is not None
    for some in (rows, rows[1::2], rows[::3], rows[-1:], rows[2:4], []):
        assert list(seeker.at([row.cursor for row in some])) == some


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_marks_are_blocks_that_together_are_all_of_the_input(
    kind: Callable[[Path], dict[str, Any]], size: int, tmp_path: Path
) -> None:
    source = opened(kind(tmp_path))
    rows, seeker = list(source.rows()), source.seeks()
    assert seeker is not None
    marks = list(seeker.marks(size))
    assert sum(mark.rows for mark in marks) == len(rows)
    at = 0
    for mark in marks:
        assert mark.start == rows[at].cursor
        at += mark.rows


@given(st.lists(st.sampled_from([*LINES, '{"text": "x"}']), min_size=1, max_size=40), st.integers(1, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_marks_count_lines_as_rows_do(tmp_path: Path, lines: list[str], size: int) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join([*lines, '{"text": "one row at least"}']))
    source = opened({"path": str(tmp_path / "x.jsonl")})
    rows, seeker = list(source.rows()), source.seeks()
    assert seeker is not None
    assert [(m.start, m.rows) for m in seeker.marks(size)] == [
        (rows[at].cursor, min(size, len(rows) - at)) for at in range(0, len(rows), size)
    ]


def test_rows_are_picked_by_their_indexes_from_any_row_on(tmp_path: Path) -> None:
    source = opened(jsonl(tmp_path))
    rows, seeker = list(source.rows()), source.seeks()
    assert isinstance(seeker, Counting)
    assert rows[-1].cursor.file == 1
    for begin in range(len(rows)):
        for step in (1, 2, 3):
            some = rows[begin::step]
            assert list(seeker.picked(rows[begin].cursor, [row.index for row in some])) == some
    assert list(seeker.picked(rows[0].cursor, [])) == []
    assert list(seeker.picked(rows[0].cursor, [1, len(rows) + 5])) == rows[1:2], "what is not there is left out"


@pytest.mark.parametrize(("count", "size"), [(1, 1 << 20), (2, 1 << 20), (3, 1), (100, 1 << 20), (3, 40)])
def test_blocks_follow_one_another_and_end_where_they_hold_enough(tmp_path: Path, count: int, size: int) -> None:
    source = opened(jsonl(tmp_path))
    rows, seeker = list(source.rows()), source.seeks()
    assert isinstance(seeker, Counting)
    start, at = rows[0].cursor, 0
    while start is not None:
        block = seeker.block(start, count, size)
        assert 1 <= block.rows <= count
        lines = [len(LINES[row.cursor.line].encode()) for row in rows[at : at + block.rows - 1] if row.cursor.file == 0]
        assert sum(lines) < size, "it would have ended before"
        at += block.rows
        assert block.stop == (rows[at].cursor if at < len(rows) else None)
        start = block.stop
    assert at == len(rows)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_stretches_are_neighbours_and_no_row_comes_twice(tmp_path: Path, count: int) -> None:
    source = opened(jsonl(tmp_path))
    seeker = source.seeks()
    assert isinstance(seeker, Scattered)
    assert [(row.data, row.failure is None) for rows in seeker.stretches(count, 100) for row in rows] == [
        (row.data, row.failure is None) for row in source.rows()
    ]


def test_stretches_begin_all_over_the_input_where_its_rows_are(tmp_path: Path) -> None:
    numbers = list(range(1000))
    for name, some in (("a", numbers[:100]), ("b", numbers[100:101]), ("c", numbers[101:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "{number:090d}"}}\n' for number in some))
    source = opened({"path": str(tmp_path / "*.jsonl")})
    seeker = source.seeks()
    assert isinstance(seeker, Scattered)
    found = [list(rows) for rows in seeker.stretches(4, 3)]
    assert [[int(row.data["text"]) for row in rows] for rows in found] == [
        [start, start + 1, start + 2] for start in (0, 250, 500, 750)
    ]
    places = {row.index: row.cursor for row in source.rows()}
    assert [(c.file, c.offset) for c in (row.cursor for row in found[2])] == [places[i][1:3] for i in (500, 501, 502)]


@pytest.mark.parametrize("size", [10, 5_000, 200_000])
def test_single_rows_of_any_length_are_whole(tmp_path: Path, size: int) -> None:
    lines = [json.dumps({"text": character * (size + place)}) for place, character in enumerate("abcdef")]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    source = opened({"path": str(tmp_path / "x.jsonl")})
    rows, seeker = list(source.rows()), source.seeks()
    assert seeker is not None
    assert list(seeker.at([row.cursor for row in rows[::-2]])) == rows[::-2]


def test_a_picked_line_that_is_too_long_is_malformed_as_when_all_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.sources.lines.MAX_LINE", 10_000)
    lines = ['{"text": "first"}', json.dumps({"text": "x" * 20_000}), '{"text": "last"}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    source = opened({"path": str(tmp_path / "x.jsonl")})
    rows, seeker = list(source.rows()), source.seeks()
    assert seeker is not None
    assert [row.failure is None for row in rows] == [True, False, True]
    assert list(seeker.at([row.cursor for row in rows])) == rows


def test_what_is_appended_meanwhile_is_no_part_of_a_single_row(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"text": "b"}')
    source = opened({"path": str(tmp_path / "x.jsonl")})
    rows, seeker = list(source.rows()), source.seeks()
    assert seeker is not None
    with (tmp_path / "x.jsonl").open("a") as file:
        file.write("x")
    assert list(seeker.at([row.cursor for row in rows])) == rows


def test_what_is_compressed_or_a_column_store_is_read_forward(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n'))
    (tmp_path / "odd.jsonl").write_bytes(gzip.compress(b'{"text": "x"}\n'))  # not told by its name
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "x.parquet")
    for name in ("x.jsonl.gz", "odd.jsonl", "x.parquet"):
        assert opened({"path": str(tmp_path / name)}).seeks() is None


@pytest.mark.parametrize("kind", [jsonl, csv])
def test_a_file_that_was_cut_off_is_an_error_of_reading(kind: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    source = opened(kind(tmp_path))
    rows, seeker = list(source.rows()), source.seeks()
    assert seeker is not None
    last = max((path for path in tmp_path.iterdir()), key=lambda path: path.name)
    last.write_bytes(last.read_bytes()[:1])
    with pytest.raises(ReadError, match="was cut off"):
        list(seeker.at([rows[-1].cursor]))
