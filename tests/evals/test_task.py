"""Task files: what is wrong with one is said before anything is read, with the line or the near name."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.evals.task import Task, TaskGroup, load_task, shipped_tasks, task_from


def test_a_task_is_the_same_once_it_was_written_and_read(sums: Any) -> None:
    task = sums.task(
        few_shot={"number": 2, "split": "train", "same": "topic"},
        choices="[answer, topic]",
        ask="likelihood",
        metrics=[{"kind": "choice_accuracy", "name": "mine", "normalize": "length"}],
        category="topic",
        fields={"more": "question ~ '!'"},
    )
    assert task_from(task.data()).model_dump() == task.model_dump()
    assert task.dataset.path == str(sums.path / "rows.jsonl")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"refrences": "answer"}, "did you mean references"),
        ({"dataset": {"path": "x.jsonl", "splt": "test"}}, "did you mean dataset.split"),
        ({"few_shot": {"number": 2, "split": "train", "sed": 1}}, "did you mean few_shot.seed"),
        ({"few_shot": 3}, "number: 3"),
        ({"few_shot": {"number": 3}}, "one of split, dataset and rows; given are none"),
        ({"dataset": None}, "dataset is missing"),
        ({"prompt": None}, "one of prompt and text"),
        ({"text": "{{ question }}"}, "one of prompt and text"),
        ({"references": None}, "the task has none"),
        ({"references": "answer +"}, "references: the expression"),
        ({"metrics": ["exact_macth"]}, "did you mean 'exact_match'"),
        ({"metrics": ["choice_accuracy"]}, "for answers that are read as likelihood, and this task's are read as text"),
        ({"metrics": ["exact_match"], "ask": "likelihood", "choices": ["a", "b"]}, "are read as likelihood"),
        ({"metrics": ["exact_match", "exact_match"]}, "two metrics have the name"),
        ({"metrics": []}, "metrics"),
        ({"ask": "likelihood", "metrics": ["choice_accuracy"]}, "needs choices"),
        ({"ask": "perplexity", "metrics": ["perplexity"]}, "of a text, without examples"),
        ({"ask": "likelihood", "choices": ["a"], "read": "number"}, "nothing is read"),
        ({"read": "nummer"}, "did you mean 'number'"),
        ({"sampling": {"temperatur": 1}}, "did you mean 'temperature'"),
        ({"sampling": {"n": 3}}, "called repeats"),
        ({"repeats": 3, "sampling": {"temperature": 0}}, "would be the same"),
        ({"name": "a b"}, "name"),
    ],
    ids=str,
)
def test_a_task_that_is_wrong_is_an_error_that_says_how(sums: Any, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError) as error:
        sums.task(**keys)
    assert said in str(error.value)
    assert "task.yaml" in str(error.value) or "metric" in str(error.value) or "read" in str(error.value)


def test_a_key_that_is_given_twice_is_an_error_with_its_line(tasks: Any) -> None:
    path = tasks.path / "t.yaml"
    path.write_text("name: a\nmetrics: [exact_match]\nname: b\n")
    with pytest.raises(JobError, match=r"t\.yaml:3"):
        load_task(str(path))


def test_a_name_near_that_of_a_shipped_task_is_named() -> None:
    with pytest.raises(JobError, match="did you mean 'gsm8k'"):
        load_task("gsm8")


@pytest.mark.parametrize("name", shipped_tasks())
def test_every_shipped_task_can_be_loaded_and_says_what_it_is(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert task.description.endswith(".")


def test_a_group_lists_tasks_each_once(sums: Any) -> None:
    sums.file("one.yaml", name="one")
    group = task_from({"name": "g", "tasks": ["one.yaml", "gsm8k"]}, sums.path)
    assert isinstance(group, TaskGroup)
    assert group.tasks == (str(sums.path / "one.yaml"), "gsm8k")
    assert isinstance(load_task(group.tasks[0]), Task)
    with pytest.raises(JobError, match="twice"):
        task_from({"name": "g", "tasks": ["gsm8k", "gsm8k"]})
