"""Deployments of Azure ML without a scoring script: a run of ours, and the output file of ``append_row``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas
import pytest
from click.testing import CliRunner

from llmbatch.cli.main import main
from llmbatch.core.errors import JobError
from llmbatch.systems.base import Assets, read_job_document

EXAMPLE = Path(__file__).parents[1] / "examples" / "azure" / "ml"
LAYOUT = {"name": "azure_ml"}


@pytest.mark.parametrize("answer", ["plain", "two words", 'say "hi"', "two\nlines", "", "ä 😀", "tab\there", " lead"])
def test_a_row_is_as_pandas_writes_it(jobs: Any, answer: str) -> None:
    rows = jobs.rows([{"text": answer or "x"}, {"text": "other"}])
    script = {"rules": [{"when": {"contains": "other"}, "answer": "other"}, {"answer": answer}]}
    result = jobs.run(jobs.job(rows, script, sinks={"layout": LAYOUT}, answer={"allow_empty": True}))
    written = (result.folder / "output" / "predictions.csv").read_text()
    expected = io.StringIO()
    frame = pandas.DataFrame([["rows.jsonl", 0, answer], ["rows.jsonl", 1, "other"]])
    frame.to_csv(expected, sep=" ", header=False, index=False)
    assert written == expected.getvalue()
    assert pandas.read_csv(io.StringIO(written), header=None, sep=" ", keep_default_na=False)[2].tolist() == [
        answer,
        "other",
    ]


def test_a_row_that_failed_is_in_the_log_and_the_others_keep_their_index(jobs: Any) -> None:
    rows = jobs.rows([{"text": "one"}, "{not json", {"text": "three"}])
    result = jobs.run(jobs.job(rows, sinks={"layout": LAYOUT}))
    output = result.folder / "output"
    assert [line.split(" ")[:2] for line in (output / "predictions.csv").read_text().splitlines()] == [
        ["rows.jsonl", "0"],
        ["rows.jsonl", "2"],
    ]
    assert (output / "logs" / "user" / "error.txt").read_text().startswith("rows.jsonl 1: malformed_row: ")


def test_the_index_begins_anew_in_each_file(jobs: Any) -> None:
    for name in ("a", "b"):
        jobs.rows([{"text": "x"}, {"text": "y"}], f"{name}.part.jsonl")
    result = jobs.run(jobs.job(jobs.path / "*.part.jsonl", sinks={"layout": LAYOUT}))
    rows = [line.split(" ")[:2] for line in (result.folder / "output" / "predictions.csv").read_text().splitlines()]
    assert rows == [["a.part.jsonl", "0"], ["a.part.jsonl", "1"], ["b.part.jsonl", "0"], ["b.part.jsonl", "1"]]


@pytest.mark.parametrize(
    ("settings", "lines", "failure"),
    [
        ({"error_threshold": 1}, ["{not json"], None),
        ({"error_threshold": 0}, ["{not json"], "1 rows failed, and error_threshold tolerates 0"),
        ({}, ["{not json"], None),
    ],
)
def test_more_failures_than_are_tolerated_fail_the_job(
    jobs: Any, settings: dict[str, int], lines: list[str], failure: str | None
) -> None:
    result = jobs.run(
        jobs.job(jobs.rows([{"text": "one"}, *lines]), sinks={"layout": {**LAYOUT, "settings": settings}})
    )
    said = result.report["layout"]["failure"]
    assert (said is None) if failure is None else failure in said


def test_where_no_row_is_ok_the_job_failed_in_azures_words(jobs: Any) -> None:
    script = {"rules": [{"answer": "no"}]}
    job = jobs.job(
        jobs.rows([{"text": "x"}]),
        script,
        sinks={"layout": LAYOUT},
        answer={"choice": ["yes"]},
        retry={"max_attempts": 1},
    )
    assert "No succeeded mini batch item returned from run()" in jobs.run(job).report["layout"]["failure"]


def test_summary_only_leaves_no_output_file(jobs: Any) -> None:
    layout = {**LAYOUT, "settings": {"output_file_name": None}}
    result = jobs.run(jobs.job(jobs.rows([{"text": "x"}]), sinks={"layout": layout}))
    assert [path.name for path in (result.folder / "output").rglob("*") if path.is_file()] == ["error.txt"]


def test_a_document_without_a_script_is_run_over_its_files(tmp_path: Path) -> None:
    to = tmp_path / "there"
    arguments = [
        "run", str(EXAMPLE / "legacy.yml"), "--asset", "demo=any", "--engine", "scripted", "--prompt", "{{ text }}",
        "--input", str(EXAMPLE / "input"), "--output", str(tmp_path / "out"), "--to", str(to),
    ]  # fmt: skip
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    table = pandas.read_csv(to / "predictions.csv", header=None, sep=" ")
    assert table[0].tolist() == ["0.txt", "1.txt", "2.txt", "bad.txt"]
    assert table[2].str.strip().tolist() == ["one loaf of rye", "two jars of plum jam", "three wool scarves", "refused"]
    assert (
        "batch deployment legacy in the older form, with its settings at the root, without a scoring script: llmbatch answers "
        "every row of its files" in result.stderr
    )
    assert (
        "compute, resources, mini_batch_size, max_concurrency_per_instance, retry_settings: have no effect here"
        in result.stderr
    )


def test_an_answer_that_was_cut_off_is_a_row(tmp_path: Path) -> None:
    arguments = [
        "run", str(EXAMPLE / "legacy.yml"), "--asset", "demo=any", "--engine", "scripted", "--prompt", "{{ text }}",
        "--max-tokens", "2", "--input", str(EXAMPLE / "input" / "0.txt"), "--format", "documents",
        "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "output" / "predictions.csv").read_text().startswith("0.txt 0 ")


def test_a_document_with_a_script_says_what_runs_it() -> None:
    with pytest.raises(
        JobError, match=r"has a scoring script, score\.py, which is run by llmbatch azureml run .*deployment\.yml"
    ):
        read_job_document(EXAMPLE / "deployment.yml", Assets())
