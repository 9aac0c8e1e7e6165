"""Datasets of Hugging Face on the scripted engine: same rows, same order, typed columns of answers beside theirs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import datasets
import pytest
from pydantic import BaseModel

import llmbatch.huggingface
from llmbatch.core.errors import JobError
from llmbatch.core.events import EngineReady, Event

JOB: dict[str, Any] = {
    "model": "any",
    "engine": {"name": "scripted"},
    "sampling": {"temperature": 0},
    "prompt": "{{ text }}",
}
RULES = [{"when": {"contains": "bad"}, "fail": "no such luck"}]
SOME_FAIL = {**JOB, "engine": {"name": "scripted", "args": {"rules": RULES}}}
TEXTS = ["c", "bad", "a", "c"]


class City(BaseModel):
    name: str
    tags: list[str]


CITIES = {
    **JOB,
    "schema": City,
    "engine": {"name": "scripted", "args": {"rules": [*RULES, {"answer": '{"name": "{text}", "tags": ["x"]}'}]}},
}
CITY = {"name": datasets.Value("string"), "tags": datasets.List(datasets.Value("string"))}


@pytest.fixture
def data() -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": TEXTS, "n": [1, 2, 3, 4]}, split=datasets.NamedSplit("dev"))


@pytest.fixture
def starts_once(tmp_path: Path) -> dict[str, Any]:
    """An engine that cannot be started a second time."""
    (tmp_path / "script.yaml").write_text("starts: 1\n")
    return {"name": "scripted", "script": str(tmp_path / "script.yaml")}


def test_the_dataset_comes_back_with_its_columns_and_order_and_the_answers(data: datasets.Dataset) -> None:
    found = llmbatch.huggingface.run(data, **SOME_FAIL)
    assert isinstance(found, datasets.Dataset)
    assert found.column_names == ["text", "n", "output", "error"]
    assert found["text"][:] == TEXTS
    assert found["output"][:] == ["c", None, "a", "c"]
    assert [error is None for error in found["error"]] == [True, False, True, True]
    assert found.split == data.split
    assert data.column_names == ["text", "n"]


def test_answers_by_a_schema_are_a_typed_struct(data: datasets.Dataset) -> None:
    found = llmbatch.huggingface.run(data, **CITIES)
    assert found.features["output"] == CITY
    assert found[0]["output"] == {"name": "c", "tags": ["x"]}
    assert found[1]["output"] is None
    wide = llmbatch.huggingface.run(data, **CITIES, expand=True)
    assert wide.column_names == ["text", "n", "name", "tags", "error"]
    assert wide["name"][:] == ["c", None, "a", "c"]


def test_it_can_be_saved_and_read_again(data: datasets.Dataset, tmp_path: Path) -> None:
    found = llmbatch.huggingface.run(data, **CITIES)
    found.save_to_disk(tmp_path / "saved")
    assert datasets.load_from_disk(tmp_path / "saved").to_list() == found.to_list()


def test_rows_that_were_selected_and_mixed_keep_their_place(data: datasets.Dataset) -> None:
    mixed = data.select([3, 1, 0]).sort("n", reverse=True)
    found = llmbatch.huggingface.run(mixed, **SOME_FAIL)
    assert found["n"][:] == [4, 2, 1]
    assert found["output"][:] == ["c", None, "c"]


def test_the_format_of_a_dataset_stays(data: datasets.Dataset) -> None:
    found = llmbatch.huggingface.run(data.with_format("numpy"), **JOB)
    assert found.format["type"] == "numpy"
    assert llmbatch.huggingface.run(data, **JOB).format["type"] is None


def test_each_split_has_its_answers_from_one_engine(data: datasets.Dataset, starts_once: dict[str, Any]) -> None:
    both = datasets.DatasetDict({"train": data, "test": data.select([0])})
    found = llmbatch.huggingface.run(both, **{**JOB, "engine": starts_once})
    assert isinstance(found, datasets.DatasetDict)
    assert {name: split["output"][:] for name, split in found.items()} == {"train": TEXTS, "test": ["c"]}


def test_with_output_each_split_is_a_run_folder_that_the_same_call_finds_finished(
    data: datasets.Dataset, tmp_path: Path
) -> None:
    both = datasets.DatasetDict({"train": data, "test": data.select([0])})
    first = llmbatch.huggingface.run(both, output=tmp_path / "out", **JOB)
    assert (tmp_path / "out" / "train" / "results.jsonl").exists()
    assert (tmp_path / "out" / "test" / "results.jsonl").exists()
    events: list[Event] = []
    again = llmbatch.huggingface.run(both, output=tmp_path / "out", watchers=[events.append], **JOB)
    assert again["train"].to_list() == first["train"].to_list()
    assert not any(isinstance(event, EngineReady) for event in events)


def test_as_a_function_of_map_it_gives_the_same_whatever_the_batches(data: datasets.Dataset) -> None:
    ask = llmbatch.huggingface.Map(**CITIES)
    whole = llmbatch.huggingface.run(data, **CITIES).to_list()
    for size in (1, 3, 100):
        found = data.map(ask, batched=True, batch_size=size, features=ask.features(data.features))
        assert found.to_list() == whole
    ask.close()


def test_one_engine_serves_all_batches(data: datasets.Dataset, starts_once: dict[str, Any]) -> None:
    ask = llmbatch.huggingface.Map(**{**JOB, "engine": starts_once})
    assert data.map(ask, batched=True, batch_size=1)["output"][:] == TEXTS


def test_what_is_kept_of_a_map_goes_by_the_job_and_the_prompts_content(tmp_path: Path) -> None:
    from datasets.fingerprint import Hasher

    prompt = tmp_path / "prompt.yaml"
    job = {**JOB, "prompt": str(prompt)}

    def hashed(text: str) -> str:
        prompt.write_text(
            f"name: p\nmessages:\n  - {{role: user, content: '{text} {{{{ text }}}}'}}\nvariables: {{text: {{}}}}\n"
        )
        return str(Hasher.hash(llmbatch.huggingface.Map(**job)))

    assert hashed("Say") == hashed("Say") != hashed("Tell")
    again = copy.copy(llmbatch.huggingface.Map(**JOB))  # by what is pickled of it
    assert again({"text": ["a"]}) == {"output": ["a"], "error": [None]}


def test_a_streamed_dataset_is_asked_as_it_is_read(data: datasets.Dataset) -> None:
    read: list[int] = []

    def rows() -> Any:
        for i in range(10):
            read.append(i)
            yield {"text": f"text {i}"}

    stream = datasets.IterableDataset.from_generator(
        rows, features=datasets.Features({"text": datasets.Value("string")})
    )
    found = llmbatch.huggingface.run(stream, batch_size=2, **JOB)
    assert isinstance(found, datasets.IterableDataset)
    assert read == []
    assert [row["output"] for row in found.take(3)] == ["text 0", "text 1", "text 2"]
    assert len(read) < 10
    assert [row["output"] for row in found] == [f"text {i}" for i in range(10)]
    assert found.features["output"] == datasets.Value("string")


def test_the_splits_of_a_streamed_dataset_are_too(data: datasets.Dataset) -> None:
    streams = datasets.IterableDatasetDict({"a": data.to_iterable_dataset(), "b": data.to_iterable_dataset()})
    found = llmbatch.huggingface.run(streams, **SOME_FAIL)
    assert [row["output"] for row in found["b"]] == ["c", None, "a", "c"]


def test_a_dataset_without_rows_has_the_columns(data: datasets.Dataset) -> None:
    found = llmbatch.huggingface.run(data.select([]), **CITIES)
    assert found.features["output"] == CITY
    assert len(found) == 0


def test_pictures_that_no_prompt_names_are_left_alone(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    data = datasets.Dataset.from_dict({"text": ["a"], "picture": [str(tmp_path / "a.png")]}).cast_column(
        "picture", datasets.Image()
    )
    found = llmbatch.huggingface.run(data, **JOB)
    assert found["output"][:] == ["a"]
    assert found[0]["picture"].size == (2, 2)


@pytest.mark.parametrize(
    ("make", "more", "said"),
    [
        (lambda data: data.to_iterable_dataset(), {"output": "out"}, "asked as it is read"),
        (lambda data: data.to_list(), {}, "a list is no dataset"),
        (lambda data: data.rename_column("n", "error"), {}, "columns error already"),
    ],
    ids=["stream", "list", "there"],
)
def test_what_cannot_be_done_is_said(data: datasets.Dataset, make: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        llmbatch.huggingface.run(make(data), **JOB, **more)


def test_rows_of_a_dataset_are_rows_for_generate(data: datasets.Dataset) -> None:
    from llmbatch import generate

    assert [record.output for record in generate(data, **JOB)] == TEXTS
