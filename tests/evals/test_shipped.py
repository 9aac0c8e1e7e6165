"""The shipped tasks on three made-up rows each, with the columns of the hub, and the demo's own on their data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.evals.rows import Rows
from llmbatch.evals.task import Task, load_task, shipped_tasks

SAMPLES = Path(__file__).parent / "samples"
SAMPLE_OF = {"mmlu-chat": "mmlu", "gsm8k-chat": "gsm8k", "wmt16-de-en": "wmt16-en-de"}
TASKS = [name for name in shipped_tasks() if isinstance(load_task(name), Task)]
PUBLIC = [name for name in TASKS if not name.startswith("demo-")]


def sample(name: str) -> Path:
    return SAMPLES / SAMPLE_OF.get(name, name)


def task_of(name: str) -> Task:
    task = load_task(name)
    assert isinstance(task, Task)
    return task


@pytest.mark.parametrize("name", PUBLIC)
def test_a_task_is_run_and_scored_on_its_sample(tasks: Any, name: str) -> None:
    task = task_of(name)
    done = tasks.run(task, {"rules": [{"answer": "Yes."}]}, data=sample(name))
    assert done.result.exit_code == 0
    assert done.scores is not None
    counts = done.scores.overall.counts
    assert (counts.rows, counts.failed) == (3, 0)
    assert all(figure.value is not None for figure in done.scores.overall.figures.values())


RIGHT = {
    "gsm8k": ["It is 7.", "1200", "So 8"],
    "gsm8k-chat": ["#### 7", "#### 1,200", "#### 8"],
    "mmlu-chat": ["The answer is (C).", "C", "D. 6"],
    "ifeval": ["A pond is small and wet.", "the rose is red", '"blue"'],
    "wmt16-en-de": ["Der Zug kommt um acht Uhr.", "Heute regnet es in Bonn.", "Das Museum ist geschlossen."],
    "wmt16-de-en": ["The train comes at eight.", "It rains in Bonn today.", "The museum is closed."],
    "xsum": ["A new bridge was opened in Made Up.", "A fox has visited a library.", "Ida Test is baker of the year."],
    "cnn-dailymail": [
        "A comet passed on Friday .\nThousands watched .",
        "The club won its first match in ten years .", "The lake is clean again .",
    ],
    "arc-easy": [" an iron nail", " light", " water"],
    "arc-challenge": [" an iron nail", " light", " water"],
    "mmlu": [" C", " C", " D"],
    "hellaswag": [" puts it on the stove.", " She turns at the fence and comes back.", " pour it slowly."],
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "wikitext"])
def test_right_answers_have_the_best_figures(tasks: Any, name: str) -> None:
    rules = [{"when": {"index": at}, "answer": answer} for at, answer in enumerate(RIGHT[name])]
    scores = tasks.run(task_of(name), {"rules": rules}, data=sample(name)).scores
    metric = scores.metrics[0]
    bounds = metric.kind.bounds(metric.settings)
    best = 1 if bounds is None else bounds[1]
    assert scores.overall.figures[metric.name].value == pytest.approx(best)


def test_prompts_are_those_of_the_harness(tasks: Any) -> None:
    def first(name: str) -> str:
        tasks.run(task_of(name), data=sample(name), output=name, settings={"sinks": {"keep": "all"}})
        from llmbatch.runs.shown import find_records, shown_of

        ids = str(json.loads((tasks.path / name / "results.jsonl").read_text().splitlines()[0])["id"])
        (shown,) = shown_of(tasks.path / name, find_records(tasks.path / name, ids))
        assert shown.prompt is not None
        return shown.prompt.text or ""

    assert first("arc-easy") == "Question: Which of these can a magnet pull?\nAnswer:"
    assert first("hellaswag") == "Making tea: A man fills a kettle with water. He"
    assert first("mmlu").startswith("Made-up question 0 of abstract_algebra?\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer: A\n\n")
    assert first("mmlu").endswith("What is 3 + 4 modulo 5?\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer:")


def test_mmlu_shows_the_five_examples_of_the_subject() -> None:
    lines = [json.loads(line) for line in Rows(task_of("mmlu"), sample("mmlu")).lines()]
    for line in lines:
        shots = line["example"]["shots"]
        assert [shot["row"]["question"] for shot in shots] == [
            f"Made-up question {n} of {line['subject']}?" for n in range(5)
        ]
        assert [shot["answer"] for shot in shots] == ["A", "B", "C", "D", "A"]


def test_gsm8k_shows_how_examples_are_worked_out() -> None:
    line = json.loads(next(iter(Rows(task_of("gsm8k"), sample("gsm8k")).lines())))
    assert len(line["example"]["shots"]) == 5
    assert all("\n#### " in shot["answer"] for shot in line["example"]["shots"])
    assert line["example"]["references"] == [7]


def test_hellaswag_is_cleaned() -> None:
    lines = [json.loads(line) for line in Rows(task_of("hellaswag"), sample("hellaswag")).lines()]
    assert lines[0]["endings"][2] == "throws it out of the window."
    assert lines[2]["query"] == "Home and Garden: How to water a fern. Fill a can. Then"


@pytest.mark.parametrize("name", [name for name in TASKS if name.startswith("demo-")])
def test_the_demo_tasks_have_rows_with_answers(name: str) -> None:
    lines = [json.loads(line) for line in Rows(task_of(name)).lines()]
    assert len(lines) >= 100
    if name == "demo-choice":
        assert all(len(set(line["choices"])) == 4 and line["answer"] in line["choices"] for line in lines)
        assert len({line["choices"].index(line["answer"]) for line in lines}) == 4
