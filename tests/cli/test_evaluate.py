"""``llmbatch eval``: what it prints, its exit codes, groups, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llmbatch.cli.main import main


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Four rows whose right answer is an echo, but for one."""
    rows = [
        {"id": f"r{n}", "text": str(n), "answer": str(n if n != 2 else 9), "kind": "a" if n < 2 else "b"}
        for n in range(4)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "echo.yaml"
    path.write_text(
        "name: echo\ndataset: rows.jsonl\nprompt: '{{ text }}'\nreferences: answer\ncategory: kind\nmetrics: [exact_match]\n"
    )
    return path


def run(task: Path, *arguments: str | Path, output: str = "out") -> Result:
    return call("eval", task, "--model", "any", "--engine", "scripted", "--output", task.parent / output, *arguments)


def test_scores_are_a_table_with_intervals_categories_and_examples_that_are_wrong(task: Path) -> None:
    result = run(task)
    assert result.exit_code == 0
    assert "echo · any" in result.stdout
    assert "0.7500" in result.stdout and "95% interval" in result.stdout
    assert "r2: wanted 9, answered 2" in result.stdout
    assert [line.split()[0] for line in result.stdout.splitlines()[2:5]] == ["all", "a", "b"]


def test_a_row_that_failed_is_said_and_is_an_exit_code_of_its_own(task: Path) -> None:
    with (task.parent / "rows.jsonl").open("a") as rows:
        rows.write("{no\n")
    result = run(task)
    assert result.exit_code == 3
    assert "1 of 5 rows failed; they count as wrong" in result.stdout


def test_json_tells_the_scores_last(task: Path) -> None:
    result = run(task, "--json")
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["event"] == "scores"
    assert last["scores"]["overall"]["figures"]["exact_match"]["value"] == 0.75
    assert run(task, "--quiet").output == ""


def test_scores_of_a_run_can_be_made_anew(task: Path) -> None:
    run(task)
    (task.parent / "out" / "scores.json").unlink()
    result = call("eval", "--scores", task.parent / "out")
    assert "0.7500" in result.stdout
    assert (task.parent / "out" / "scores.json").exists()


def test_scores_that_are_made_anew_are_on_the_page_too(task: Path) -> None:
    run(task)
    page = task.parent / "out" / "report.html"
    before = page.read_text()
    page.write_text("old")
    call("eval", "--scores", task.parent / "out")
    assert page.read_text() == before


def test_several_tasks_have_a_folder_each_and_a_group_one_figure(task: Path) -> None:
    other = task.with_name("other.yaml")
    other.write_text(
        task.read_text().replace("name: echo", "name: other").replace("references: answer", "references: text")
    )
    group = task.with_name("group.yaml")
    group.write_text("name: both\ntasks: [echo.yaml, other.yaml]\n")
    assert run(task, other, output="two").exit_code == 0
    result = run(group)
    assert result.exit_code == 0
    assert "both · exact_match" in result.stdout
    figure = json.loads((task.parent / "out" / "group.json").read_bytes())["figure"]
    assert figure["value"] == pytest.approx(0.875)
    assert figure["low"] < 0.875 < figure["high"]
    for name in ("echo", "other"):
        assert (task.parent / "out" / name / "scores.json").exists()
        assert (task.parent / "two" / name / "scores.json").exists()
    page = (task.parent / "out" / "report.html").read_text()
    assert "<h1>both: exact_match 0.875 " in page
    assert '<a href="echo/report.html">echo</a>' in page and '<a href="other/report.html">other</a>' in page
    assert '<span class="name">all of both</span>' in page
    assert "<h1>any on 2 tasks</h1>" in (task.parent / "two" / "report.html").read_text()


def test_the_tasks_that_come_along_are_listed_with_what_they_are() -> None:
    listed = call("eval", "--list").stdout
    assert "gsm8k " in listed and "Grade-school word problems" in listed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("eval",), "TASK is missing"),
        (("eval", "gsm8k"), "--model is missing"),
        (("eval", "gsm8k", "--model", "any", "--var", "a=b"), "prompt: the task says that"),
        (("eval", "nothing", "--model", "any"), "no task file and no shipped task"),
        (("eval", "gsm8k", "--model", "any", "--data", "nowhere"), "no such file or folder"),
    ],
    ids=str,
)
def test_wrong_usage_is_said_before_anything_is_started(arguments: Any, said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 2
    assert said in result.stderr
