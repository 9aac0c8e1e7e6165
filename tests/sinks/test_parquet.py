from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llmbatch.core.errors import FolderError
from llmbatch.core.record import record_to_dict
from llmbatch.core.types import Record, Status, Usage
from llmbatch.sinks.base import Finished, SinkSettings, write_sinks
from llmbatch.sinks.parquet import VERSION, version_of

Seal = Callable[..., Finished]
PARQUET = SinkSettings(formats=("parquet",))


def test_a_row_for_each_record_in_order_with_all_that_it_says(
    tmp_path: Path, seal: Seal, records: tuple[Record, ...]
) -> None:
    write_sinks(PARQUET, seal(records, 2), tmp_path)
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["id"] for row in rows] == ["a", "1", 'tricky","status":"ok"', "status", str(10**30)]
    for row, record in zip(rows, records, strict=True):
        line = record_to_dict(record)
        for name in ("status", "finish_reason", "attempts"):
            assert row[name] == line[name]
        for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
            assert row[name] == line["usage"][name]
            assert row[f"wasted_{name}"] == line["usage"]["wasted"][name]
        assert (row["error_kind"], row["error_message"]) == (
            (line["error"]["kind"], line["error"]["message"]) if "error" in line else (None, None)
        )
        for name in ("raw", "reasoning"):
            assert row[name] == line.get(name)
        for name in ("logprobs", "details", "history", "input"):
            assert (row[name] and json.loads(row[name])) == line.get(name)


def test_an_output_that_is_text_stays_and_another_is_json_text(
    tmp_path: Path, seal: Seal, records: tuple[Record, ...]
) -> None:
    write_sinks(PARQUET, seal(records, 5), tmp_path)
    outputs = pq.read_table(tmp_path / "results.parquet")["output"].to_pylist()
    assert outputs[:3] == [records[0].output, None, None]
    assert [json.loads(output) for output in outputs[3:]] == [records[3].output, records[4].output]


def test_many_records_are_written_in_several_row_groups(tmp_path: Path, seal: Seal) -> None:
    records = [Record(n, n, Status.OK, "x" * 100_000, "stop", 1, Usage(1, 1)) for n in range(400)]
    write_sinks(PARQUET, seal(records, 100), tmp_path)
    file = pq.ParquetFile(tmp_path / "results.parquet")
    assert file.num_row_groups > 1
    assert file.read()["index"].to_pylist() == list(range(400))


def test_the_reasoning_of_several_samples_is_json_text(tmp_path: Path, seal: Seal) -> None:
    record = Record(0, 0, Status.OK, ["a", "b"], "stop", 2, reasoning=["hm", None])
    write_sinks(PARQUET, seal([record], 1), tmp_path)
    [reasoning] = pq.read_table(tmp_path / "results.parquet")["reasoning"].to_pylist()
    assert json.loads(reasoning) == ["hm", None]


def test_vectors_of_several_lengths_are_no_table_and_the_row_is_named(tmp_path: Path, seal: Seal) -> None:
    records = [Record(n, f"row {n}", Status.OK, [0.5] * (3 + n), "stop", 1) for n in range(2)]
    with pytest.raises(FolderError, match="row 'row 1': its vector has 4 numbers, and those before it have 3"):
        write_sinks(PARQUET, seal(records, 2, vectors=True), tmp_path)
    assert not (tmp_path / "results.parquet").exists()


def test_a_vector_may_have_large_numbers(tmp_path: Path, seal: Seal) -> None:
    numbers = array("f", [123_456_792.0, 33_554_436.0, -0.5])
    records = [Record(n, n, Status.OK, each, "stop", 1) for n, each in enumerate((numbers, numbers * 8))]
    for n, record in enumerate(records):
        folder = tmp_path / str(n)
        folder.mkdir()
        write_sinks(PARQUET, seal([record], 1, vectors=True), folder)
        [vector] = pq.read_table(folder / "results.parquet")["output"].to_pylist()
        assert vector == list(record.output)


def test_the_stop_sequence_that_ended_an_answer_is_the_last_column(tmp_path: Path, seal: Seal) -> None:
    said: tuple[Any, ...] = ("\n\n", None, ["END", None])
    records = [Record(n, n, Status.OK, "a", "stop", 1, stop_reason=each) for n, each in enumerate(said)]
    write_sinks(PARQUET, seal(records, 3), tmp_path)
    table = pq.read_table(tmp_path / "results.parquet")
    assert table.column_names[-1] == "stop_reason"
    assert table["stop_reason"].to_pylist() == ["\n\n", None, json.dumps(["END", None])]


def test_a_table_says_which_columns_it_has_and_one_before_there_was_a_stop_reason_says_nothing(
    tmp_path: Path, seal: Seal, records: tuple[Record, ...]
) -> None:
    write_sinks(PARQUET, seal(records, 5), tmp_path)
    path = tmp_path / "results.parquet"
    assert version_of(path) == VERSION
    table = pq.read_table(path).drop_columns(["stop_reason"]).replace_schema_metadata(None)
    pq.write_table(table, path)
    assert version_of(path) == 1


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    path.write_bytes(b"no table")
    with pytest.raises(FolderError, match=r"results\.parquet: is no table that can be read"):
        version_of(path)
