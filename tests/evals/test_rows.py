"""What a run of a task reads: fields, references, choices, examples; and what is wrong with data is said, with the row."""

from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from llmbatch.core.errors import JobError, SourceError
from llmbatch.evals.rows import Rows, fingerprint


def lines(rows: Rows, seed: int | None = None) -> list[Any]:
    return [json.loads(line) for line in rows.lines(seed)]


def test_a_line_has_the_rows_fields_and_what_the_task_says_of_it(sums: Any) -> None:
    task = sums.task(
        references="[answer, 'x' ~ answer]", category="topic", cluster="question[0]", fields={"more": "question ~ '!'"}
    )
    assert lines(Rows(task))[3] == {
        "id": "q3", "question": "3 + 1", "answer": "4", "topic": "odd", "more": "3 + 1!",
        "example": {"references": ["4", "x4"], "category": "odd", "cluster": "3"},
    }  # fmt: skip


def test_ids_stay_those_of_the_data_set_when_rows_are_shuffled(tasks: Any) -> None:
    tasks.rows([{"question": str(n), "answer": str(n)} for n in range(30)])
    plain, mixed = lines(Rows(tasks.task())), lines(Rows(tasks.task()), 1)
    assert [line["id"] for line in plain] == list(range(30))
    assert mixed != plain
    assert sorted(mixed, key=lambda line: line["id"]) == plain
    assert lines(Rows(tasks.task()), 1) == mixed
    assert lines(Rows(tasks.task()), 2) != mixed
    assert fingerprint(plain) == fingerprint(mixed)
    assert fingerprint(plain) != fingerprint(plain[1:])


def test_rows_of_a_cluster_stay_together_when_they_are_shuffled(sums: Any) -> None:
    rows = Rows(sums.task(cluster="question[0]"))
    clusters = [line["example"]["cluster"] for line in lines(rows, 3)]
    assert len(clusters) == 40
    changes = sum(one != other for one, other in pairwise(clusters))
    assert changes == len(set(clusters)) - 1
    assert rows.largest_cluster == max(Counter(clusters).values())


def test_a_function_may_make_the_fields_of_a_row(sums: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (sums.path / "my_rows.py").write_text("def prepare(row):\n    return {**row, 'answer': row['answer'] * 2}\n")
    monkeypatch.syspath_prepend(str(sums.path))
    assert lines(Rows(sums.task(prepare="my_rows:prepare")))[1]["example"]["references"] == ["22"]


@pytest.mark.parametrize(
    ("keys", "row", "said"),
    [
        ({}, {"question": "x"}, "it cannot be told what would be right"),
        ({}, {"question": "x", "answer": ""}, "it cannot be told what would be right"),
        ({"references": "answer.text"}, {"question": "x"}, "cannot be told"),
        ({}, {"question": "x", "answer": {"a": 1}}, "must be a text"),
        ({"read": "number", "metrics": ["number"]}, {"question": "x", "answer": "many"}, "no number"),
        (
            {"read": "choice", "choices": "options", "metrics": ["accuracy"]},
            {"answer": "Z", "options": ["a"]},
            "the choices are 'a'",
        ),
        ({"metrics": ["exact_match", "number"]}, {"question": "x", "answer": "many"}, "metric number: row 'bad'"),
        ({"read": "json", "metrics": ["json_fields"]}, {"answer": "3"}, "neither an object nor a list"),
        (
            {"ask": "likelihood", "choices": "options", "metrics": ["choice_accuracy"]},
            {"question": "x", "answer": "a", "options": ["a"]},
            "it has 1 choices",
        ),
        ({"choices": "options"}, {"answer": "Z", "options": []}, "must give a list of texts"),
        ({"category": "options"}, {"answer": "Z", "options": []}, "category (options) gives []"),
        ({}, {"question": "x", "answer": "y", "example": 1}, "has a field 'example'"),
    ],
    ids=str,
)
def test_a_row_that_does_not_fit_the_task_is_an_error_that_names_it(
    tasks: Any, keys: dict[str, Any], row: dict[str, Any], said: str
) -> None:
    tasks.rows([{**row, "id": "bad"}])
    with pytest.raises(JobError) as error:
        lines(Rows(tasks.task(**keys)))
    assert said in str(error.value)
    assert "row 'bad'" in str(error.value)
    assert "rows.jsonl:1" in str(error.value) or "metric" in str(error.value)


@pytest.mark.parametrize(
    ("keys", "one", "other"),
    [
        ({}, "1", 2),
        ({"read": "number", "metrics": ["number"]}, "1", 2),
        ({"read": "choice", "choices": ["x", "y"], "metrics": ["accuracy"]}, "A", 1),
        ({"read": "json", "metrics": ["json_fields"]}, '{"a": 1}', "[1]"),
    ],
    ids=str,
)
def test_references_of_several_kinds_are_an_error_that_names_a_row_of_each(
    tasks: Any, keys: dict[str, Any], one: Any, other: Any
) -> None:
    tasks.rows([{"id": "a", "question": "x", "answer": one}, {"id": "b", "question": "x", "answer": other}])
    with pytest.raises(JobError, match=r"of several kinds, .* \(row 'a'\) and .* \(row 'b'\)"):
        lines(Rows(tasks.task(**keys)))


def test_a_library_that_a_metric_needs_is_missed_before_a_run(tasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbatch.evals.metrics import bleu

    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    bleu._metric.cache_clear()
    tasks.rows([{"question": "x", "answer": "y"}])
    with pytest.raises(JobError, match=r"pip install 'llmbatch\[eval\]'"):
        tasks.run(tasks.task(metrics=["exact_match", "bleu"]))
    assert not (tasks.path / "out" / "job.yaml").exists()


def test_a_line_that_is_no_row_keeps_its_place(tasks: Any) -> None:
    tasks.rows([{"question": "x", "answer": "y"}, "{not json", {"question": "x", "answer": "z"}])
    found = lines(Rows(tasks.task()))
    assert [type(line) for line in found] == [dict, str, dict]
    assert "rows.jsonl:2" in found[1]


def test_an_empty_data_set_is_an_error(tasks: Any) -> None:
    tasks.rows([])
    with pytest.raises(SourceError, match="empty"):
        Rows(tasks.task())


# few-shot examples


def shots(task: Any) -> list[list[str]]:
    return [[shot["row"]["id"] for shot in line["example"]["shots"]] for line in lines(Rows(task))]


def test_a_row_is_never_one_of_its_own_examples(sums: Any) -> None:
    for draw in ("first", "once", "each"):
        found = shots(sums.task(few_shot={"number": 39, "dataset": "./rows.jsonl", "draw": draw}))
        assert all(len(set(names)) == 39 and f"q{n}" not in names for n, names in enumerate(found))


def test_examples_are_the_first_or_drawn_once_or_for_each_row(sums: Any) -> None:
    sums.rows([{"id": f"e{n}", "question": str(n), "answer": "x"} for n in range(50)], "examples.jsonl")
    few = {"number": 3, "dataset": "./examples.jsonl"}
    first, once, each = (shots(sums.task(few_shot={**few, "draw": draw})) for draw in ("first", "once", "each"))
    assert {tuple(names) for names in first} == {("e0", "e1", "e2")}
    assert len({tuple(names) for names in once}) == 1
    assert once[0] != first[0]
    assert len({tuple(names) for names in each}) > 30
    assert all(len(set(names)) == 3 for names in each)
    assert shots(sums.task(few_shot={**few, "draw": "each"})) == each
    assert shots(sums.task(few_shot={**few, "draw": "each", "seed": 1})) != each


def test_examples_may_have_to_agree_with_the_row(sums: Any) -> None:
    found = lines(Rows(sums.task(few_shot={"number": 4, "dataset": "./rows.jsonl", "same": "topic"})))
    assert all(shot["row"]["topic"] == line["topic"] for line in found for shot in line["example"]["shots"])
    with pytest.raises(
        JobError, match=r"few_shot.number is 30, and there are 19 examples with the same topic \('even'\)"
    ):
        lines(Rows(sums.task(few_shot={"number": 30, "dataset": "./rows.jsonl", "same": "topic"})))


def test_an_example_is_shown_with_its_reference_or_with_what_the_task_says(sums: Any) -> None:
    few = {"number": 1, "dataset": "./rows.jsonl", "draw": "first"}
    assert lines(Rows(sums.task(few_shot=few)))[5]["example"]["shots"][0]["answer"] == "1"
    explained = sums.task(few_shot={**few, "answer": "question ~ ' is ' ~ answer"})
    assert lines(Rows(explained))[5]["example"]["shots"][0]["answer"] == "0 + 1 is 1"


def test_examples_may_stand_in_the_task(sums: Any) -> None:
    task = sums.task(few_shot={"number": 1, "rows": [{"question": "5 + 5", "answer": "10"}]})
    assert lines(Rows(task))[0]["example"]["shots"] == [{"row": {"question": "5 + 5", "answer": "10"}, "answer": "10"}]


# splits and local copies


def saved(path: Path) -> Path:
    splits = {
        name: Dataset.from_list([{"question": name, "answer": str(n)} for n in range(3)]) for name in ("test", "dev")
    }
    DatasetDict(splits).save_to_disk(str(path))
    return path


def test_examples_come_from_another_split_of_the_data_set(tasks: Any) -> None:
    folder = saved(tasks.path / "saved")
    task = tasks.task(dataset={"path": str(folder), "split": "test"}, few_shot={"number": 2, "split": "dev"})
    (line, *_) = lines(Rows(task))
    assert line["question"] == "test"
    assert [shot["row"]["question"] for shot in line["example"]["shots"]] == ["dev", "dev"]


def test_a_split_that_is_not_there_is_an_error_with_those_that_are(tasks: Any) -> None:
    folder = saved(tasks.path / "saved")
    with pytest.raises(SourceError, match=r"no split 'tset'.*test, dev"):
        Rows(tasks.task(dataset={"path": str(folder), "split": "tset"}))
    tasks.rows([{"question": "x", "answer": "y"}], "test.jsonl")
    with pytest.raises(SourceError, match=r"no split 'tst' \(did you mean 'test'\?\)"):
        Rows(tasks.task(dataset={"path": "some/name", "split": "tst"}), tasks.path)
    tasks.rows([{"question": "x", "answer": "y"}])
    with pytest.raises(SourceError, match="which has no split 'train'"):
        Rows(tasks.task(few_shot={"number": 1, "split": "train"}))


def test_a_local_copy_has_a_file_for_each_split_as_on_the_hub(tasks: Any) -> None:
    task = tasks.task(
        dataset={"path": "some/name", "config": "main", "split": "test"}, few_shot={"number": 1, "split": "train"}
    )
    copy = tasks.path / "copy" / "main"
    copy.mkdir(parents=True)
    for part in range(2):
        rows = Dataset.from_list([{"question": f"q{part}", "answer": "y"}])
        rows.to_parquet(str(copy / f"test-0000{part}-of-00002.parquet"))
    tasks.rows([{"question": "e", "answer": "z"}], "copy/main/train.jsonl")
    found = lines(Rows(task, tasks.path / "copy"))
    assert [line["question"] for line in found] == ["q0", "q1"]
    assert found[0]["example"]["shots"][0]["answer"] == "z"


def test_a_local_copy_may_be_one_file(tasks: Any) -> None:
    file = tasks.rows([{"question": "x", "answer": "y"}], "mine.jsonl")
    assert len(lines(Rows(tasks.task(dataset={"path": "some/name", "split": "test"}), file))) == 1
    with pytest.raises(SourceError, match="no such file or folder"):
        Rows(tasks.task(dataset={"path": "some/name"}), tasks.path / "nowhere")
