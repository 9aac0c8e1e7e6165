from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from llmbatch.core.types import Record, Status
from llmbatch.sinks.base import Finished, SinkSettings, write_sinks

Seal = Callable[..., Finished]


def written(finished: Finished, folder: Path, rows: int, **settings: Any) -> list[str]:
    asked = SinkSettings(formats=("shards",), rows_per_shard=rows, **settings)
    names = [path.name for path in write_sinks(asked, finished, folder)[2:]]
    assert names == sorted(path.name for path in folder.glob("results-*"))
    return names


@pytest.fixture
def ten_records(seal: Seal) -> Finished:
    return seal([Record(index, index, Status.OK, "é") for index in range(10)], 4)


def test_shards_of_so_many_rows_are_the_results_in_order(ten_records: Finished, tmp_path: Path) -> None:
    names = written(ten_records, tmp_path, 4)
    assert names == ["results-00000-of-00003.jsonl", "results-00001-of-00003.jsonl", "results-00002-of-00003.jsonl"]
    shards = [(tmp_path / name).read_bytes() for name in names]
    assert [shard.count(b"\n") for shard in shards] == [4, 4, 2]
    assert b"".join(shards) == (tmp_path / "results.jsonl").read_bytes()


def test_shards_can_be_parquet(ten_records: Finished, tmp_path: Path) -> None:
    names = written(ten_records, tmp_path, 5, shard_format="parquet")
    assert names == ["results-00000-of-00002.parquet", "results-00001-of-00002.parquet"]
    assert pyarrow.parquet.read_table(tmp_path / names[1])["index"].to_pylist() == [5, 6, 7, 8, 9]


def test_shards_of_other_settings_are_gone(ten_records: Finished, tmp_path: Path) -> None:
    written(ten_records, tmp_path, 2)
    assert written(ten_records, tmp_path, 10) == ["results-00000-of-00001.jsonl"]
    assert written(ten_records, tmp_path, 10, shard_format="parquet") == ["results-00000-of-00001.parquet"]
