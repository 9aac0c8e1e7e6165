"""Whole evaluations on the scripted engine: scores, resuming, kills, and the end that an interval gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbatch.audit.audit import audit
from llmbatch.core.errors import FolderError, JobError
from llmbatch.evals.evaluate import score_folder
from llmbatch.evals.scores import read_scores
from llmbatch.job.job import job_of

pytestmark = pytest.mark.usefixtures("forked")

WRONG = {"rules": [{"when": {"matches": "[37] [+]"}, "answer": "no idea"}, {"answer": "{index}"}]}
RIGHT_BY_INDEX = {"references": "index", "fields": {"index": "question.split(' ')[0]"}}


def test_a_task_gives_a_run_folder_with_scores_and_examples(sums: Any) -> None:
    done = sums.run(sums.task(category="topic", **RIGHT_BY_INDEX), WRONG)
    assert done.result.exit_code == 0
    assert sums.figure("exact_match") == pytest.approx(32 / 40)
    scores = read_scores(sums.path / "out")
    assert scores.overall.counts.rows == 40
    assert {name: part.counts.rows for name, part in scores.categories.items()} == {"even": 20, "odd": 20}
    assert scores.categories["even"].figures["exact_match"].value == 1
    assert [example["id"] for example in sums.examples()] == [f"q{n}" for n in range(40)]
    assert audit(sums.path / "out").complete
    assert job_of(sums.path / "out").retry.max_attempts == 1


def test_an_answer_that_cannot_be_read_is_counted_and_shown_and_wrong(sums: Any) -> None:
    sums.run(sums.task(read="number", metrics=["number"], **RIGHT_BY_INDEX), WRONG)
    assert sums.figure("number") == pytest.approx(32 / 40)
    assert read_scores(sums.path / "out").overall.counts.unreadable == 8
    unread = [example for example in sums.examples() if example["unread"]]
    assert [(example["id"], example["answers"], example["unread"]) for example in unread[:2]] == [
        ("q3", [None], ["no idea"]), ("q7", [None], ["no idea"]),
    ]  # fmt: skip


def test_a_row_that_failed_is_counted_and_wrong_and_keeps_its_place(tasks: Any) -> None:
    tasks.rows(
        [
            {"question": "a", "answer": "a"},
            "{not json",
            {"question": " ", "answer": "c"},
            {"question": "d", "answer": "d"},
        ]
    )
    done = tasks.run(tasks.task())
    assert done.result.exit_code == 3
    assert [example["error"] for example in tasks.examples()] == [None, "malformed_row", "empty_prompt", None]
    assert tasks.figure("exact_match") == 0.5
    assert read_scores(tasks.path / "out").overall.counts.failed == 2


def test_an_answer_that_was_cut_off_is_what_the_model_had_to_say(sums: Any) -> None:
    script = {"rules": [{"answer": "123456789"}]}
    sums.run(sums.task(references="'12345'", sampling={"max_tokens": 5}), script)
    assert sums.figure("exact_match") == 1


def test_repeats_are_asked_with_seeds_of_their_own_and_count_on_average(sums: Any) -> None:
    script = {"rules": [{"when": {"sample": 1}, "answer": "?"}, {"answer": "yes"}]}
    task = sums.task(repeats=3, references="'yes'", sampling={"temperature": 1, "seed": 5})
    sums.run(task, script)
    assert sums.figure("exact_match") == pytest.approx(2 / 3)
    assert sums.examples()[0]["answers"] == ["yes", "?", "yes"]


def test_an_answer_that_is_a_list_is_one_answer(tasks: Any) -> None:
    tasks.rows([{"question": "x", "answer": [1, 2]}])
    task = tasks.task(
        read="json", metrics=["json_fields"], answer={"schema": {"type": "array", "items": {"type": "integer"}}}
    )
    tasks.run(task, {"rules": [{"answer": "[1, 2]"}]})
    assert tasks.examples()[0]["answers"] == [[1, 2]]
    assert tasks.figure("json_fields") == 1


def test_some_repeats_that_fail_are_not_dropped(sums: Any) -> None:
    script = {"rules": [{"when": {"sample": 1}, "fail": "no"}, {"answer": "yes"}]}
    sums.run(sums.task(repeats=2, references="'yes'", sampling={"temperature": 1}), script)
    assert sums.figure("exact_match") == 0.5
    assert sums.examples()[0]["answers"] == ["yes", None]


def test_repeats_that_were_cut_off_are_what_the_model_had_to_say_each_by_itself(sums: Any) -> None:
    script = {"rules": [{"when": {"sample": 1}, "answer": "no idea"}, {"answer": "123456789"}]}
    sums.run(sums.task(repeats=3, references="'12345'", sampling={"temperature": 1, "max_tokens": 5}), script)
    assert sums.examples()[0]["answers"] == ["12345", "no id", "12345"]
    assert sums.figure("exact_match") == pytest.approx(2 / 3)


def test_settings_cannot_make_the_repeats_of_a_task_copies(sums: Any) -> None:
    task = sums.task(repeats=2, references="'yes'", sampling={"temperature": 1})
    with pytest.raises(JobError, match="all would be the same"):
        sums.run(task, settings={"sampling": {"temperature": 0}})
    with pytest.raises(JobError, match="is the task's to say, as repeats"):
        sums.run(task, settings={"sampling": {"n": 2}})


def test_multiple_choice_is_scored_by_likelihood_after_its_examples(sums: Any) -> None:
    task = sums.task(
        prompt=None,
        text="{{ question }} =",
        ask="likelihood",
        choices="[answer, answer ~ '0', 'none']",
        metrics=["choice_accuracy", {"kind": "choice_accuracy", "name": "by_length", "normalize": "length"}],
        few_shot={"number": 2, "dataset": "./rows.jsonl"},
    )
    # the scripted engine finds likely what it would say
    says_ten = {"when": {"matches": "(?s)= .*= .*\\n\\n9 [+] 1 =$"}, "answer": " 10"}
    sums.run(task, {"rules": [says_ten, {"answer": " none"}]})
    assert [example["id"] for example in sums.examples() if example["values"]["choice_accuracy"]] == ["q9"]
    assert sums.examples()[9]["answers"] == ["10"]
    assert sums.examples()[8]["answers"] == ["none"]


def test_perplexity_is_of_each_text_by_its_bytes(sums: Any) -> None:
    task = sums.task(
        prompt=None, text="{{ question }}", ask="perplexity", references=None,
        metrics=[{"kind": "perplexity", "name": "bits", "unit": "bits_per_byte"}],
    )  # fmt: skip
    sums.run(task)
    assert sums.figure("bits") > 0
    assert sums.examples()[0]["error"] is None


def test_limit_takes_the_first_rows_and_more_of_them_later(sums: Any) -> None:
    task = sums.task(**RIGHT_BY_INDEX)
    sums.run(task, WRONG, limit=10)
    assert len(sums.examples()) == 10
    sums.run(task, WRONG, limit=25)
    assert len(sums.examples()) == 25
    sums.run(task, WRONG, "whole", limit=25)
    assert sums.scores() == sums.scores("whole")


def test_shuffled_rows_are_the_same_ones_in_another_order(sums: Any) -> None:
    task = sums.task(**RIGHT_BY_INDEX)
    sums.run(task, shuffle_seed=3)
    assert [example["id"] for example in sums.examples()] != [f"q{n}" for n in range(40)]
    plain, mixed = (json.loads(sums.scores(name)) for name in ("out", "out"))
    assert plain["dataset"] == mixed["dataset"]
    with pytest.raises(JobError, match="holds a run on other rows"):
        sums.run(task, shuffle_seed=4)


def test_scores_are_made_again_of_the_records_alone(sums: Any) -> None:
    sums.run(sums.task(**RIGHT_BY_INDEX), WRONG)
    before = sums.scores(), sums.examples()
    (sums.path / "rows.jsonl").unlink()
    for name in ("scores.json", "examples.jsonl"):
        (sums.path / "out" / name).unlink()
    score_folder(sums.path / "out")
    assert (sums.scores(), sums.examples()) == before


def test_a_run_goes_on_where_its_data_set_cannot_be_had_any_more(sums: Any) -> None:
    task = sums.task(**RIGHT_BY_INDEX)
    sums.run(task, WRONG, limit=10)
    (sums.path / "rows.jsonl").unlink()
    sums.run(task, WRONG, limit=20)
    assert len(sums.examples()) == 20


def test_another_metric_is_no_other_run_but_another_prompt_is(sums: Any) -> None:
    sums.run(sums.task(**RIGHT_BY_INDEX), WRONG)
    records = (sums.path / "out" / "results.jsonl").stat().st_mtime_ns
    sums.run(sums.task(**{**RIGHT_BY_INDEX, "metrics": ["contains", "exact_match"]}), WRONG)
    assert sums.figure("contains") == pytest.approx(32 / 40)
    assert (sums.path / "out" / "results.jsonl").stat().st_mtime_ns == records
    with pytest.raises(FolderError, match="prompt"):
        sums.run(sums.task(prompt="{{ question }}?", **RIGHT_BY_INDEX), WRONG)
    text = sums.task(prompt=None, text="{{ question }}", **RIGHT_BY_INDEX)
    with pytest.raises((JobError, FolderError)):
        sums.run(text, WRONG)


def test_a_task_may_be_corrected_as_long_as_no_run_has_begun(sums: Any) -> None:
    broken = {"engine": {"name": "scripted", "script": str(sums.path / "nowhere.yaml")}}
    with pytest.raises(JobError, match="nowhere"):
        sums.run(sums.task(), settings=broken)
    sums.rows([{"id": "a", "question": "x", "answer": "x"}])
    sums.run(sums.task())
    assert [example["id"] for example in sums.examples()] == ["a"]


def test_scores_are_copied_with_the_results(sums: Any) -> None:
    copied = sums.path / "copied"
    for limit in (5, 10):
        sums.run(sums.task(**RIGHT_BY_INDEX), WRONG, limit=limit, settings={"sinks": {"to": str(copied)}})
        for name in ("results.jsonl", "scores.json", "examples.jsonl", "report.json"):
            assert (copied / name).read_bytes() == (sums.path / "out" / name).read_bytes()


def test_a_section_that_the_task_decides_cannot_be_set(sums: Any) -> None:
    with pytest.raises(JobError, match="the task says that"):
        sums.run(sums.task(), settings={"prompt": {"path": "x {{ y }}"}})


def test_a_folder_that_is_no_evaluation_is_said(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"no task\.yaml"):
        score_folder(tmp_path)


# kills


def command(tasks: Any, script: dict[str, Any], output: str, *arguments: str, fault: str = "") -> subprocess.Popen[str]:
    engine = tasks.path / "script.yaml"
    engine.write_text(yaml.safe_dump(script))
    return subprocess.Popen(
        [
            sys.executable, "-m", "llmbatch.cli", "eval", str(tasks.path / "task.yaml"), "--model", "any", "--engine", "scripted",
            "--set", f"engine.script={engine}", "--output", str(tasks.path / output), "--quiet", *arguments,
        ],
        env={**os.environ, "LLMBATCH_FAULT": fault}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    ["journal-append:1", "journal-torn:2", "part-sealed:2", "renamed/results.jsonl:1", "renamed/examples.jsonl:1"],
)
def test_a_run_that_is_killed_comes_to_the_same_scores(sums: Any, fault: str) -> None:
    sums.file(category="topic", **RIGHT_BY_INDEX)
    slow = {**WRONG, "latency": 0.05, "jitter": 0.9, "concurrency": 4}
    window = ("--set", "run.window=8")
    assert command(sums, slow, "out", *window, fault=fault).wait(60) == -signal.SIGKILL
    again = command(sums, slow, "out", *window)
    assert again.wait(60) == 0, again.communicate()[1]
    whole = command(sums, WRONG, "whole", *window)
    assert whole.wait(60) == 0
    assert sums.scores() == sums.scores("whole")
    assert sums.examples() == sums.examples("whole")


# the end that an interval gives

HALF = {"rules": [{"when": {"matches": "[02468] [+]"}, "answer": "{index}!"}, {"answer": "right"}]}


@pytest.fixture
def many(tasks: Any) -> Any:
    """Rows of which nearly all are answered rightly, so that a short interval comes soon."""
    tasks.rows([{"id": f"q{n}", "question": f"{n} + 1", "answer": "no" if n % 30 == 0 else "yes"} for n in range(6000)])
    return tasks


YES = {"rules": [{"answer": "yes"}], "concurrency": 8}


def test_a_run_ends_once_the_interval_is_narrow_enough(many: Any) -> None:
    done = many.run(many.task(), YES, until=0.05, settings={"engine": {**many.engine(YES), "in_flight": 16}})
    scores = done.scores
    figure = scores.overall.figures["exact_match"]
    assert figure.high - figure.low <= 0.1
    assert figure.method == "betting confidence sequence"
    assert figure.low < 29 / 30 < figure.high
    records = sum(1 for _ in (many.path / "out" / "results.jsonl").open())
    assert figure.rows <= records < 3000
    assert len(many.examples()) == figure.rows
    assert json.loads(many.scores())["overall"]["figures"]["exact_match"]["method"] == figure.method
    assert audit(many.path / "out").complete


def test_what_counts_depends_neither_on_windows_nor_on_what_was_in_flight(many: Any) -> None:
    task = many.task()
    many.run(task, YES, until=0.05)
    slow = {**YES, "latency": 0.002, "jitter": 0.9}
    engine = {**many.engine(slow), "in_flight": 5}
    many.run(task, slow, "other", until=0.05, settings={"engine": engine, "run": {"window": 7}})
    assert many.scores() == many.scores("other")
    assert many.examples() == many.examples("other")


@pytest.mark.parametrize("fault", ["journal-append:2", "part-sealed:1"])
def test_a_run_that_is_killed_ends_at_the_same_row(many: Any, fault: str) -> None:
    many.file()
    slow = {**YES, "latency": 0.05, "jitter": 0.9}  # a window takes some flushes of its journal
    options = ("--until-interval", "0.05", "--set", "run.window=100")
    assert command(many, slow, "out", *options, fault=fault).wait(60) == -signal.SIGKILL
    again = command(many, slow, "out", *options)
    assert again.wait(60) == 0, again.communicate()[1]
    many.run(many.task(), YES, "whole", until=0.05)
    assert many.scores() == many.scores("whole")


def test_a_narrower_interval_may_be_asked_for_later_and_then_all_rows(many: Any) -> None:
    task = many.task()
    first = many.run(task, YES, until=0.1).scores.overall.counts.rows
    second = many.run(task, YES, until=0.05).scores.overall.counts.rows
    assert first < second < 6000
    again = many.run(task, YES, until=0.1)
    assert again.scores.overall.counts.rows == first
    whole = many.run(task, YES, shuffle_seed=0)
    assert whole.scores.overall.counts.rows == 6000
    assert many.figure("exact_match") == pytest.approx(29 / 30)


def test_where_the_rows_end_before_the_interval_is_narrow_all_count(sums: Any) -> None:
    done = sums.run(sums.task(**RIGHT_BY_INDEX), WRONG, until=0.01)
    assert done.scores.overall.counts.rows == 40
    assert done.scores.overall.figures["exact_match"].method == "betting confidence sequence"


def test_rows_of_a_cluster_count_together(many: Any) -> None:
    task = many.task(cluster="id[-2:]", dataset={"path": "./rows.jsonl"})
    done = many.run(task, YES, until=0.2)
    clusters = [example["cluster"] for example in many.examples()]
    assert len(clusters) < 6000
    last = clusters[-1]
    total = sum(line["example"]["cluster"] == last for line in many.input())
    assert clusters.count(last) == total
    assert done.scores.overall.counts.clusters == len(set(clusters))


def test_a_metric_without_bounds_cannot_end_a_run(many: Any) -> None:
    with pytest.raises(JobError, match="a mean between known bounds"):
        many.run(many.task(metrics=["bleu", "exact_match"]), YES, until=0.1)
    assert not (many.path / "out").exists()


def test_a_task_can_be_evaluated_from_python(sums: Any) -> None:
    import llmbatch

    data = {
        "name": "sums",
        "dataset": str(sums.path / "rows.jsonl"),
        "prompt": "{{ question }}",
        "references": "answer",
    }
    done = llmbatch.evaluate(
        {**data, "metrics": ["exact_match"]}, model="any", output=sums.path / "out", limit=5, engine=sums.engine({})
    )
    assert done.scores is not None
    assert done.scores.overall.counts.rows == 5
    with pytest.raises(llmbatch.UsageError, match="a group of tasks"):
        llmbatch.evaluate("arc", model="any", output=sums.path / "group")
