"""What is written for a corpus to begin with, and that it runs as it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from llmbatch.cli.main import main
from llmbatch.scaffold import USES

REVIEWS = [
    {
        "review_id": f"r{number}",
        "title": "Lamp",
        "review": f"It broke after {number} days, and nobody answers.",
        "stars": 1 + number % 3,
    }
    for number in range(12)
]


def llmbatch(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in REVIEWS))


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(REVIEWS[0]))
        writer.writeheader()
        writer.writerows(REVIEWS)


def write_parquet(path: Path) -> None:
    pa.parquet.write_table(pa.Table.from_pylist(REVIEWS), path)


def write_folder(path: Path) -> None:
    path.mkdir()
    for row in REVIEWS:
        (path / f"{row['review_id']}.txt").write_text(str(row["review"]))


CORPORA = {
    "reviews.jsonl": write_jsonl,
    "reviews.csv": write_csv,
    "reviews.parquet": write_parquet,
    "texts": write_folder,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("use", [use for use in USES if use != "evaluate"])
@pytest.mark.parametrize("name", CORPORA)
def test_what_is_written_runs_as_it_is_without_a_model(here: Path, name: str, use: str) -> None:
    CORPORA[name](here / name)
    done = llmbatch("init", name, "--for", use)
    assert done.exit_code == 0, done.output
    assert llmbatch("prompts", "check", "prompt.yaml").exit_code == 0
    rendered = llmbatch("render", "job.yaml", "--limit", "1")
    assert "It broke after 0 days" in rendered.stdout
    ran = llmbatch("run", "job.yaml", "--engine", "scripted", "--quiet")
    assert ran.exit_code == 0, ran.output
    found = records(here / "out")
    assert len(found) == len(REVIEWS)
    assert found[0]["id"] == ("r0.txt" if name == "texts" else "r0")


@pytest.mark.parametrize("name", ["reviews.jsonl", "reviews.csv", "reviews.parquet"])
def test_a_task_is_written_that_can_be_scored_as_it_is(here: Path, name: str) -> None:
    CORPORA[name](here / name)
    assert llmbatch("init", name, "--for", "evaluate").exit_code == 0
    scored = llmbatch("eval", "task.yaml", "--model", "demo", "--engine", "scripted", "--output", "out", "--quiet")
    assert scored.exit_code == 0, scored.output
    assert [record["output"] for record in records(here / "out")] == ["1"] * len(REVIEWS)  # the first class that may be
    assert (here / "out" / "scores.json").exists()


def test_without_a_class_a_question_is_asked_and_held_against_the_answer(here: Path) -> None:
    rows = [{"question": f"What is {number} and {number}?", "answer": f"It is {2 * number}."} for number in range(9)]
    (here / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert llmbatch("init", "sums.jsonl", "--for", "evaluate").exit_code == 0
    assert 'references: "answer"' in (here / "task.yaml").read_text()
    scored = llmbatch("eval", "task.yaml", "--model", "demo", "--engine", "scripted", "--output", "out", "--quiet")
    assert scored.exit_code == 0, scored.output
    assert records(here / "out")[3]["output"] == "What is 3 and 3?"


def test_the_job_file_says_what_was_seen_and_what_was_taken_for_what(here: Path) -> None:
    write_csv(here / "reviews.csv")
    said = llmbatch("init", "reviews.csv").stdout
    text = (here / "job.yaml").read_text()
    for line in (
        "review_id  string  100%    12         2 / 2 / 3     <- the id",
        "review     string  100%    12         42 / 42 / 43  <- the text",
        "stars      string  100%    3          1 / 1 / 1     <- the label",
    ):
        assert f"  {line}\n" in said
        assert f"#   {line}\n" in text
    assert "--for classify was taken; others are summarize" in said
    assert 'fields: {"text": "review"}' in text
    assert 'labels: ["1", "2", "3"]' in text
    assert 'id_field: "review_id"' in text
    assert 'keep: ["stars"]' in text


def test_the_files_of_another_folder_name_the_corpus_from_there(here: Path) -> None:
    (here / "data").mkdir()
    write_jsonl(here / "data" / "reviews.jsonl")
    done = llmbatch("init", "data/*.jsonl", "--folder", "jobs/one", "--for", "summarize")
    assert "cd jobs/one && llmbatch run job.yaml" in done.stdout
    assert 'path: "../../data/*.jsonl"' in (here / "jobs" / "one" / "job.yaml").read_text()
    assert llmbatch("run", "jobs/one/job.yaml", "--engine", "scripted", "--quiet").exit_code == 0
    assert len(records(here / "jobs" / "one" / "out")) == len(REVIEWS)


def test_a_url_is_named_as_it_is_wherever_the_files_lie(here: Path) -> None:
    (here / "data").mkdir()
    write_jsonl(here / "data" / "reviews.jsonl")
    url = f"file://{here}/data/*.jsonl"
    assert llmbatch("init", url, "--folder", "jobs", "--for", "summarize").exit_code == 0
    assert f'path: "{url}"' in (here / "jobs" / "job.yaml").read_text()
    assert llmbatch("run", "jobs/job.yaml", "--engine", "scripted", "--quiet").exit_code == 0


def test_nothing_is_written_over_unless_that_is_meant(here: Path) -> None:
    write_jsonl(here / "reviews.jsonl")
    (here / "prompt.yaml").write_text("mine")
    refused = llmbatch("init", "reviews.jsonl")
    assert refused.exit_code == 2
    assert (
        "prompt.yaml: is there already and not written over; --folder DIR writes elsewhere, --force" in refused.stderr
    )
    assert (here / "prompt.yaml").read_text() == "mine"
    assert not (here / "job.yaml").exists()
    assert llmbatch("init", "reviews.jsonl", "--force").exit_code == 0
    assert (here / "prompt.yaml").read_text() != "mine"


def test_a_guess_that_is_wrong_is_put_right(here: Path) -> None:
    write_jsonl(here / "reviews.jsonl")
    assert llmbatch("init", "reviews.jsonl", "--text", "title", "--id", "title", "--label", "review_id").exit_code == 0
    text = (here / "job.yaml").read_text()
    assert 'fields: {"text": "title"}' in text and 'id_field: "title"' in text and '"r0"' in text


@pytest.mark.parametrize(
    ("corpus", "content", "arguments", "said"),
    [
        ("a.jsonl", '{"text": "x"}\n', ["--text", "txet"], "no column 'txet' (did you mean 'text'?); its columns are text"),
        ("a.jsonl", '{"n": 1}\n', [], "no column holds texts; name the one that is meant with --text. Its columns are n (integer)"),
        ("a.jsonl", '{"text": "x"}\n', ["--for", "evaluate"], "needs a column with what would be right; name it with --label"),
        ("a.jsonl", "{\n", [], "none of the first 1 rows could be read: "),
        ("a.jsonl", "", [], "the file is empty"),
        ("a.jsonl", '{"custom_id": "a", "method": "POST", "url": "/v1/x", "body": {}}\n', [], "holds ready-made requests"),
        ("b.jsonl", None, [], "b.jsonl: no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_begun_with_is_said(
    here: Path, corpus: str, content: str | None, arguments: list[str], said: str
) -> None:
    if content is not None:
        (here / corpus).write_text(content)
    refused = llmbatch("init", corpus, *arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert not (here / "job.yaml").exists()


def test_rows_that_cannot_be_read_and_columns_of_any_name_are_no_hindrance(here: Path) -> None:
    rows = [{"the text: #1": "a\n# b " * 4000, "日本": None, "x\x1b[31m": {"a": 1}}, "{broken"]
    (here / "odd name's.jsonl").write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    )
    done = llmbatch("init", "odd name's.jsonl", "--for", "summarize")
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout and "\x1b" not in (here / "job.yaml").read_text()
    assert "1 of these rows cannot be read" in (here / "job.yaml").read_text()
    assert "The longest text has 24,000 characters" in (here / "job.yaml").read_text()
    assert llmbatch("run", "job.yaml", "--engine", "scripted", "--max-tokens", "100000", "--quiet").exit_code == 3
    assert [record["status"] for record in records(here / "out")] == ["ok", "failed"]
