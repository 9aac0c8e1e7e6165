from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from llmbatch.core.record import record_to_line
from llmbatch.core.types import Record, Status
from llmbatch.formats.base import Asked
from llmbatch.sinks.base import Finished, SinkSettings, write_sinks
from llmbatch.sinks.by_file import distinct, output_names
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.opening import open_source

Run = Callable[..., Finished]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run over files with so many rows each, of which some were run."""

    def run(files: dict[str, int], some: Sequence[int] | None = None, **settings: Any) -> Finished:
        for name, rows in files.items():
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps({"id": f"{name}-{row}"}) + "\n" for row in range(rows)))
        source = partial(open_source, SourceSettings(path=str(tmp_path / "in" / "**" / "*.jsonl"), **settings))
        records = [Record(row.index, row.id, Status.OK, "é") for row in source().rows()]
        part = tmp_path / "part.jsonl"
        part.write_bytes(b"".join(map(record_to_line, records if some is None else [records[i] for i in some])))
        return Finished([part], source, lambda row: Asked())

    return run


def written(finished: Finished, folder: Path, **settings: Any) -> dict[str, list[str]]:
    """The ids in each file that was written for one of the input."""
    found = {}
    for path in write_sinks(SinkSettings(**{"formats": ("by_file",), **settings}), finished, folder)[2:]:
        if path.suffix == ".parquet":
            ids = pyarrow.parquet.read_table(path)["id"].to_pylist()
        else:
            ids = [json.loads(line)["id"] for line in path.read_bytes().splitlines()]
        found[str(path.relative_to(folder))] = ids
    assert sorted(found) == sorted(str(path.relative_to(folder)) for path in (folder / "results").rglob("*.*"))
    return found


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
def test_each_file_with_rows_has_one_with_its_records_in_the_same_folder(
    run: Run, tmp_path: Path, format_: Any
) -> None:
    finished = run({"a.jsonl": 2, "de/a.jsonl": 3, "de/none.jsonl": 0, "fr/x.y.jsonl": 1})
    assert written(finished, tmp_path, shard_format=format_) == {
        f"results/a.{format_}": ["a.jsonl-0", "a.jsonl-1"],
        f"results/de/a.{format_}": ["de/a.jsonl-0", "de/a.jsonl-1", "de/a.jsonl-2"],
        f"results/fr/x.y.{format_}": ["fr/x.y.jsonl-0"],
    }


def test_the_files_put_together_are_the_bytes_of_the_results(run: Run, tmp_path: Path) -> None:
    names = written(run({"a.jsonl": 2, "b.jsonl": 3}), tmp_path)
    together = b"".join((tmp_path / name).read_bytes() for name in names)
    assert together == (tmp_path / "results.jsonl").read_bytes()


def test_rows_that_were_not_run_and_rows_behind_a_limit_are_left_out(run: Run, tmp_path: Path) -> None:
    finished = run({"a.jsonl": 3, "b.jsonl": 3, "c.jsonl": 3}, some=[1, 3, 4])
    assert written(finished, tmp_path) == {
        "results/a.jsonl": ["a.jsonl-1"],
        "results/b.jsonl": ["b.jsonl-0", "b.jsonl-1"],
    }
    assert written(run({}, limit=4), tmp_path).keys() == {"results/a.jsonl", "results/b.jsonl"}


def test_what_an_earlier_session_wrote_with_other_settings_is_gone(run: Run, tmp_path: Path) -> None:
    finished = run({"a.jsonl": 1, "b.jsonl": 1})
    written(finished, tmp_path)
    assert written(finished, tmp_path, shard_format="parquet").keys() == {"results/a.parquet", "results/b.parquet"}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.jsonl", "b/c.ndjson.gz", "d.csv", "e.parquet"], ["a.x", "b/c.x", "d.x", "e.x"]),
        (["a.txt", "a.html", "a.txt.gz"], ["a.txt.x", "a.html.x", "a.txt.gz.x"]),
        (["a.jsonl", "a.jsonl.gz"], ["a.jsonl.x", "a.jsonl.gz.x"]),
        (["a.csv", "a.x/b.csv"], ["a.csv.x", "a.x/b.x"]),
        (["../../etc/passwd", "/etc/passwd", "a//./b"], ["_/_/etc/passwd.x", "etc/passwd.x", "a/b.x"]),
        (["a//b.txt", "a/b.txt"], ["a/0-b.txt.x", "a/1-b.txt.x"]),
        (["", "_", ".jsonl"], ["0-_.x", "1-_.x", ".jsonl.x"]),
    ],
)
def test_the_names_are_those_of_the_files_each_another_and_none_outside(files: list[str], names: list[str]) -> None:
    assert output_names(files, ".x") == names


def test_no_name_is_that_of_another_s_folder() -> None:
    assert distinct(["a.out/b.out", "a.out", "c/d.out", "c/d.out"]) == [
        "a.out/b.out", "1-a.out", "c/2-d.out", "c/3-d.out",
    ]  # fmt: skip


def test_a_name_that_is_too_long_for_a_file_system_is_cut_and_stays_its_own() -> None:
    one, two = output_names(["ü" * 300 + "1.txt", "ü" * 300 + "2.txt"], ".jsonl")
    assert one != two
    assert max(len(name.encode()) for name in (one, two)) <= 255
