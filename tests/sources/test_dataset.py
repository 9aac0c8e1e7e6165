from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from llmbatch.core.errors import SourceError
from llmbatch.core.types import Cursor
from llmbatch.sources.base import Source
from llmbatch.sources.dataset import DatasetSource

Open = Callable[..., Source]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the library makes of our files out of the user's cache."""
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


def numbers(stop: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"n": list(range(stop)), "text": [f"t{n}" for n in range(stop)]})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ``DatasetDict.save_to_disk``: 600 rows of train, 3 of test."""
    folder = tmp_path_factory.mktemp("saved")
    datasets.DatasetDict({"train": numbers(600), "test": numbers(3)}).save_to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data files, named for their splits."""
    folder = tmp_path_factory.mktemp("files")
    for split, stop in (("train", 600), ("test", 3)):
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps({"n": n, "text": f"t{n}"}) + "\n" for n in range(stop))
        )
    return folder


@pytest.fixture(params=["saved", "files", "streamed"])
def any_folder(request: pytest.FixtureRequest, saved: Path, files: Path, source: Open) -> Source:
    if request.param == "saved":
        return source(saved)
    return source(files, streaming=request.param == "streamed")


def test_rows_come_in_order_from_the_train_split(any_folder: Source) -> None:
    rows = list(any_folder.rows())
    assert [row.data for row in rows] == [{"n": n, "text": f"t{n}"} for n in range(600)]
    assert [row.cursor for row in rows] == [Cursor(n, 0, n, n) for n in range(600)]


@pytest.mark.parametrize("k", [0, 1, 255, 256, 257, 599])
def test_reading_goes_on_at_any_row_as_if_it_had_not_stopped(any_folder: Source, k: int) -> None:
    rows = list(any_folder.rows())
    assert list(any_folder.rows(rows[k].cursor)) == rows[k:]


def test_another_split_can_be_named(saved: Path, files: Path, source: Open) -> None:
    assert len(list(source(saved, split="test").rows())) == 3
    assert len(list(source(files, split="test").rows())) == 3
    assert len(list(source(files, split="train[:10]").rows())) == 10


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_split_is_refused_with_the_names_of_those_there_are(
    saved: Path, files: Path, source: Open, streaming: bool
) -> None:
    for folder in (saved, files):
        with pytest.raises(SourceError) as caught:
            source(folder, split="validation", streaming=streaming)
        assert "validation" in str(caught.value)
        assert "train" in str(caught.value)
        assert "test" in str(caught.value)


def test_a_missing_config_is_refused_with_the_names_of_those_there_are(files: Path, source: Open) -> None:
    with pytest.raises(SourceError, match=r"'nope' not found.*default"):
        source(files, config="nope")


def test_a_single_saved_split_needs_no_name(tmp_path: Path, source: Open) -> None:
    numbers(3).save_to_disk(tmp_path / "one")
    assert len(list(source(tmp_path / "one").rows())) == 3
    with pytest.raises(SourceError, match=r"leave input\.split out"):
        source(tmp_path / "one", split="test")


def test_columns_are_chosen_and_missing_ones_refused(saved: Path, files: Path, source: Open) -> None:
    for read in (source(saved, columns=("text",)), source(files, columns=("text",), streaming=True)):
        assert next(read.rows()).data == {"text": "t0"}
    with pytest.raises(SourceError, match="no column 'key'; the columns are n, text"):
        source(saved, id_field="key")


def test_the_id_field_names_the_row(saved: Path, source: Open) -> None:
    assert [row.id for row in source(saved, id_field="text", split="test").rows()] == ["t0", "t1", "t2"]


def test_progress_is_the_share_of_rows_and_unknown_when_streamed(saved: Path, files: Path, source: Open) -> None:
    assert source(saved).progress(Cursor(300, 0, 300, 300)) == 0.5
    assert source(files, streaming=True).progress(Cursor(300, 0, 300, 300)) is None


def test_the_fingerprint_is_json_and_tells_splits_apart(saved: Path, files: Path, source: Open) -> None:
    [train], [test] = source(saved).fingerprint(), source(saved, split="test").fingerprint()
    assert train != test
    assert source(saved).fingerprint() == [train]
    json.dumps(train)
    json.dumps(source(files, streaming=True).fingerprint())


def test_values_become_json_values_and_what_cannot_spoils_only_its_own_row() -> None:
    data = datasets.Dataset.from_list([{"d": datetime.date(2024, 1, 2), "f": float("nan"), "x": [{"b": b"hi"}]}])
    row = next(DatasetSource(data, "d").rows())
    assert row.data == {"d": "2024-01-02", "f": None, "x": [{"b": "hi"}]}


def test_values_of_several_types_keep_them(tmp_path: Path, source: Open) -> None:
    rows = [{"v": 1}, {"v": "a"}, {"v": {"b": [1, "2"]}}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row.data for row in source(tmp_path).rows()] == rows


def test_columns_of_media_are_refused_by_name() -> None:
    features = datasets.Features({"text": datasets.Value("string"), "page": datasets.List(datasets.Audio())})
    data = datasets.Dataset.from_dict({"text": [], "page": []}, features=features)
    with pytest.raises(SourceError, match=r"the column 'page' holds media .* input\.columns=\[\"text\"\]"):
        DatasetSource(data, "d")
    DatasetSource(data, "d", columns=("text",))


def test_columns_of_images_are_read_as_bytes_or_paths(tmp_path: Path) -> None:
    features = datasets.Features({"page": datasets.Image(), "more": datasets.List(datasets.Image())})
    coded = {"bytes": b"\x89PNG", "path": None}
    data = datasets.Dataset.from_dict({"page": [coded], "more": [["a.png", coded]]}, features=features)
    for read in (data, data.to_iterable_dataset()):
        (row,) = DatasetSource(read, "d").rows()
        assert row.data["page"] == {"bytes": "iVBORw==", "path": None}
        assert row.data["more"] == [{"bytes": None, "path": "a.png"}, {"bytes": "iVBORw==", "path": None}]


def test_a_hub_that_cannot_be_reached_is_said_so() -> None:
    code = (
        "from llmbatch.sources.base import *; from llmbatch.sources.opening import *\n"
        "for streaming in (False, True):\n"
        "  try: open_source(SourceSettings(path='nobody/nothing', streaming=streaming))\n"
        "  except Exception as error: print(type(error).__name__, error)"
    )
    environment: dict[str, Any] = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == 2
    for line in said:
        assert line.startswith("SourceError nobody/nothing: ")
        assert "no such file here, and the hub cannot be reached" in line


def test_a_folder_with_a_broken_line_says_why_it_is_no_dataset_and_what_to_name(tmp_path: Path, source: Open) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{broken\n')
    with pytest.raises(SourceError, match=r"cannot be loaded as a dataset: .*(?i:json).*\*\*/\*\.jsonl"):
        source(tmp_path)
