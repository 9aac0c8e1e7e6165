"""An input of which nothing can be sent: said after its first window, where more of it follows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError

WRONG = [{"id": f"r{at}", "words": "x"} for at in range(120)]
RIGHT = [{"id": "last", "text": "x"}]


def rows(jobs: Any, wrong: Any = WRONG, right: Any = RIGHT) -> Path:
    path: Path = jobs.rows([*wrong, *right])
    return path


def test_a_prompt_that_fits_no_row_is_said_and_a_corrected_job_begins_in_the_folder(jobs: Any) -> None:
    path = rows(jobs)
    with pytest.raises(
        JobError, match=r"^none of the first 100 rows can be sent to a model: row 'r0': the variable"
    ) as e:
        jobs.run(jobs.job(path, run={"window": 100}))
    assert "--set run.check_first=false" in str(e.value)
    assert not list((jobs.path / "out" / "parts").glob("*.jsonl"))
    job = jobs.job(path, prompt={"path": "{{ words or text }}", "variables": {"text": ""}}, run={"window": 100})
    assert jobs.run(job).outcome == "finished"
    assert len(jobs.records()) == 121


def test_lines_that_are_no_rows_are_said_with_how_they_look(jobs: Any) -> None:
    with pytest.raises(JobError, match=re.escape("rows.jsonl:1")):
        jobs.run(jobs.job(rows(jobs, ["not JSON"] * 120), run={"window": 100}))


def test_whoever_wants_a_record_for_each_has_them(jobs: Any) -> None:
    result = jobs.run(jobs.job(rows(jobs), run={"window": 100, "check_first": False}))
    assert result.outcome == "finished"
    assert [record["status"] for record in jobs.records()] == ["failed"] * 120 + ["ok"]


@pytest.mark.parametrize(
    ("wrong", "right", "window"),
    [(WRONG, [], 120), (WRONG[:99], RIGHT, 99), ([*WRONG[:50], *RIGHT, *WRONG[50:]], RIGHT, 100)],
    ids=["nothing follows", "too few", "one can be sent"],
)
def test_else_each_row_has_its_record(jobs: Any, wrong: Any, right: Any, window: int) -> None:
    result = jobs.run(jobs.job(rows(jobs, wrong, right), run={"window": window}))
    assert result.outcome == "finished"
    assert len(jobs.records()) == len(wrong) + len(right)


def test_a_run_that_is_gone_on_with_is_not_looked_at_again(jobs: Any) -> None:
    data = jobs.data(rows(jobs), run={"window": 100, "check_first": False})
    jobs.killed(data, "part-sealed:1")
    result = jobs.run(jobs.job(rows(jobs), run={"window": 100}))
    assert result.outcome == "finished"
    assert len(jobs.records()) == 121
