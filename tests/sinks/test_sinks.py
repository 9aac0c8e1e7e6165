from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from llmbatch.core.errors import FolderError, InputChanged, WriteError
from llmbatch.core.record import record_to_line
from llmbatch.core.types import Record, Status
from llmbatch.sinks.base import Finished, SinkSettings, write_sinks

Seal = Callable[..., Finished]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_results_are_the_bytes_of_the_parts_one_after_another(
    tmp_path: Path, seal: Seal, records: tuple[Record, ...], rows: int
) -> None:
    write_sinks(SinkSettings(), seal(records, rows), tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == b"".join(map(record_to_line, records))


def test_large_parts_are_copied_whole(tmp_path: Path, finished: Seal, records: tuple[Record, ...]) -> None:
    parts = [tmp_path / "part-00000.jsonl", tmp_path / "part-00001.jsonl"]
    line = record_to_line(records[0])
    for part in parts:
        part.write_bytes(line * 50_000)
    write_sinks(SinkSettings(), finished(parts), tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == line * 100_000


def test_errors_are_the_lines_of_the_records_that_are_not_ok(
    tmp_path: Path, seal: Seal, records: tuple[Record, ...]
) -> None:
    write_sinks(SinkSettings(), seal(records, 2), tmp_path)
    assert (tmp_path / "errors.jsonl").read_bytes() == record_to_line(records[1]) + record_to_line(records[2])


def test_errors_are_found_in_lines_that_are_written_otherwise(tmp_path: Path, finished: Seal) -> None:
    lines = [{"status": "ok", "id": 1, "index": 0}, {"output": "ok", "status": "failed", "id": 1, "index": 1}]
    part = tmp_path / "part"
    part.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_sinks(SinkSettings(), finished([part]), tmp_path)
    assert json.loads((tmp_path / "errors.jsonl").read_bytes()) == lines[1]


def test_errors_are_an_empty_file_where_all_is_well(tmp_path: Path, seal: Seal, records: tuple[Record, ...]) -> None:
    write_sinks(SinkSettings(), seal(records[:1], 1), tmp_path)
    assert (tmp_path / "errors.jsonl").read_bytes() == b""


def test_every_format_that_is_asked_for_is_written_once(
    tmp_path: Path, seal: Seal, records: tuple[Record, ...]
) -> None:
    written = write_sinks(SinkSettings(formats=("parquet", "openai", "parquet")), seal(records, 2), tmp_path)
    names = ["errors.jsonl", "results.jsonl", "results.parquet", "results.openai.jsonl"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "parts"])


def test_writing_again_replaces_what_was_there(tmp_path: Path, seal: Seal, records: tuple[Record, ...]) -> None:
    write_sinks(SinkSettings(), seal(records, 2), tmp_path)
    write_sinks(SinkSettings(), seal(records[:1], 1), tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == record_to_line(records[0])


def test_an_unknown_format_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="unknown output format 'xlsx': known are parquet, openai"):
        SinkSettings(formats=("xlsx",))


def test_a_part_that_is_cut_off_is_an_error_and_no_results_are_written(
    tmp_path: Path, seal: Seal, records: tuple[Record, ...]
) -> None:
    made = seal(records, 2)
    made.parts[0].write_bytes(made.parts[0].read_bytes()[:-10])
    with pytest.raises(FolderError, match=r"part-00000\.jsonl: a sealed part ends in the middle of a line"):
        write_sinks(SinkSettings(), made, tmp_path)
    assert not (tmp_path / "results.jsonl").exists()


def test_a_part_that_is_missing_is_an_error(tmp_path: Path, seal: Seal, records: tuple[Record, ...]) -> None:
    made = seal(records, 2)
    made.parts[1].unlink()
    with pytest.raises(FolderError, match=r"part-00001\.jsonl: a sealed part cannot be read: No such file"):
        write_sinks(SinkSettings(), made, tmp_path)


def test_a_line_that_is_no_record_is_an_error(tmp_path: Path, finished: Seal) -> None:
    part = tmp_path / "part"
    part.write_text("{oops}\n")
    with pytest.raises(FolderError, match="not JSON"):
        write_sinks(SinkSettings(), finished([part]), tmp_path)


@pytest.mark.parametrize("format_", ["parquet", "openai"])
def test_a_full_disk_is_a_write_error_and_leaves_no_half_file(
    tmp_path: Path, seal: Seal, records: tuple[Record, ...], format_: str
) -> None:
    made = seal(records, 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(WriteError, match="File too large"):
            write_sinks(SinkSettings(formats=(format_,)), made, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_the_results_file_alone_can_fail_too(tmp_path: Path, seal: Seal, records: tuple[Record, ...]) -> None:
    made = seal(records[:1] * 100, 50)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(WriteError, match=r"results\.jsonl: File too large"):
            write_sinks(SinkSettings(), made, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errors.jsonl", "parts"]


def test_the_settings_import_nothing_heavy() -> None:
    code = "import sys; import llmbatch.sinks; print(sorted({'pyarrow', 'pandas', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_record_comes_with_its_row_also_where_only_some_rows_were_run(finished: Seal, seal: Seal) -> None:
    rows = [Record(index, f"r{index}", Status.OK) for index in range(10)]
    some = [rows[index] for index in (0, 3, 4, 9)]
    pairs = finished(seal(some, 3).parts, rows).pairs()
    assert [(record["id"], row.id, row.data) for record, row in pairs] == [(r.id, r.id, {"id": r.id}) for r in some]


def test_pairs_are_read_as_they_are_asked_for(finished: Seal, seal: Seal) -> None:
    rows = [Record(index, index, Status.OK) for index in range(3)]
    made = seal(rows, 1)
    pairs = made.pairs()
    assert next(pairs)[1].id == 0
    made.parts[1].unlink()
    with pytest.raises(FolderError, match=r"part-00001\.jsonl"):
        next(pairs)


@pytest.mark.parametrize(
    ("ids", "said"),
    [(["r0"], "row 'r1' (index 1) the input ends before it"), (["r0", "other"], ":2 is the row 'other'")],
)
def test_an_input_that_is_another_is_no_pair(finished: Seal, seal: Seal, ids: list[str], said: str) -> None:
    made = seal([Record(0, "r0", Status.OK), Record(1, "r1", Status.OK)], 2)
    pairs = finished(made.parts, [Record(index, name, Status.OK) for index, name in enumerate(ids)]).pairs()
    next(pairs)
    with pytest.raises(InputChanged, match=re.escape(said)):
        next(pairs)
