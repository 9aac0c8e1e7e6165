"""The page that a run leaves: what runs on the scripted engine did, be they killed, gone on with or on several engines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbatch.folder.order import read_order
from llmbatch.folder.timeline import read_timeline
from llmbatch.runs import page as page_module
from llmbatch.runs.session import run_job

HOSTILE = "</script><script>alert(1)</script><b>&amp;\u202e"
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
RULES = [
    {"when": {"contains": "never"}, "answer": '{"age": "old"}'},
    {"when": {"contains": "second", "attempt": 1}, "answer": '{"age": "young"}'},
    {"when": {"contains": "broken"}, "fail": "the engine says no"},
    {"answer": '{"age": 3}'},
]
WORDS = ["first", "second", "never", "broken"]


def page_of(jobs: Any, folder: str = "out") -> str:
    text: str = (jobs.path / folder / "report.html").read_text(encoding="utf-8")
    return text


def records_of(page: str) -> list[dict[str, Any]]:
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    records: list[dict[str, Any]] = json.loads(data)
    return records


@pytest.fixture
def asked(jobs: Any) -> Any:
    """A job of twenty rows of four kinds: ok at once, at the second answer, never, and with an engine that fails."""
    rows = jobs.rows([{"id": f"r{at}", "text": f"{WORDS[at % 4]} {at} {HOSTILE}"} for at in range(20)])

    def job(**sections: Any) -> Any:
        retry = {"max_attempts": 2, "feedback": False}
        return jobs.data(rows, {"rules": RULES}, answer={"schema": SCHEMA}, retry=retry, **sections)

    return job


def test_a_run_leaves_a_page_with_its_failures_retries_and_prompts(jobs: Any, asked: Any) -> None:
    from llmbatch.job.job import job_from

    result = jobs.run(job_from(asked()))
    page = page_of(jobs)
    assert result.exit_code == 3
    assert "<h1>Finished: 10 of 20 rows are not ok</h1>" in page
    assert re.findall(r'class="name \w+">(\w+)<', page) == ["engine", "schema"]
    records = records_of(page)
    assert [record["id"] for record in records] == [f"r{at}" for at in range(20)]
    assert records[1]["prompt"] == [{"role": "user", "text": f"second 1 {HOSTILE}"}]
    [attempt] = records[1]["history"]
    assert (attempt["text"], attempt["kind"]) == ('{"age": "young"}', "schema")
    assert records[2]["raw"] == '{"age": "old"}' and "age" in records[2]["why"]
    assert records[3]["why"] == "the engine says no"
    assert "rows.jsonl:4" in records[3]["place"]
    assert HOSTILE not in page


def test_a_run_that_was_killed_and_gone_on_with_has_both_sessions(jobs: Any, asked: Any) -> None:
    from llmbatch.job.job import job_from

    slow = asked(run={"window": 5}, engine={"args": {"latency": 0.2, "concurrency": 4}})
    jobs.killed(slow, "part-sealed:2")
    assert not (jobs.path / "out" / "report.html").exists()
    run_job(job_from(slow))
    timeline = read_timeline(jobs.path / "out")
    assert timeline is not None
    assert [(each.session, each.outcome) for each in timeline.sessions] == [(1, None), (2, "finished")]
    assert timeline.sessions[1].rows >= 10
    page = page_of(jobs)
    assert "1 earlier session was killed; no row was lost." in page
    assert "session 2 began" in page
    assert len(records_of(page)) == 20


def test_each_of_several_engines_has_a_lane_with_its_death(jobs: Any) -> None:
    rows = jobs.rows([{"id": at, "text": f"text {at}"} for at in range(60)])
    script = {"latency": 0.1, "concurrency": 2, "die_after": [10]}
    result = jobs.run(jobs.job(rows, script, engine={"replicas": 2}))
    assert result.exit_code == 0
    page = page_of(jobs)
    assert "Engines side by side" in page
    assert "replica 0" in page and "replica 1" in page
    assert "an engine died" in page


def test_a_run_that_was_stopped_has_a_page_of_what_it_did(jobs: Any) -> None:
    rows = jobs.rows([{"id": at, "text": f"{at} " * 20} for at in range(100)])
    slow = {"concurrency": 4, "latency": 0.2}
    job = jobs.job(rows, slow, run={"max_total_tokens": 500, "window": 10, "price_per_million": 1.0})
    result = jobs.run(job)
    assert result.outcome == "stopped"
    page = page_of(jobs)
    assert "<h1>Stopped after" in page
    assert "cost so far" in page
    assert 0 < len(records_of(page)) < 100


def test_rows_that_were_tried_again_are_on_the_page_with_all_attempts(jobs: Any, asked: Any) -> None:
    from llmbatch.job.job import job_from
    from llmbatch.runs.retry_failed import retry_failed

    data = asked()
    script = {"rules": [{"answer": '{"age": "old"}', "times": 40}, {"answer": '{"age": 4}'}]}
    (jobs.path / "script.yaml").write_text(yaml.safe_dump(script))
    jobs.run(job_from(data))
    assert "20 of 20 rows are not ok" in page_of(jobs)
    retry_failed(jobs.path / "out", {})
    page = page_of(jobs)
    assert "all 20 rows are ok" in page
    never = records_of(page)[2]
    assert [attempt["text"] for attempt in never["history"]] == ['{"age": "old"}'] * 2
    assert isinstance(json.loads(never["output"])["age"], int)


def test_a_job_may_want_no_page(jobs: Any, ten: Path) -> None:
    jobs.run(jobs.job(ten, run={"page": False}))
    assert not (jobs.path / "out" / "report.html").exists()


def test_a_page_that_cannot_be_made_breaks_no_run_and_the_report_says_why(
    jobs: Any, ten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(page_module, "run_page", fail)
    result = jobs.run(jobs.job(ten))
    assert result.exit_code == 0
    [note] = [note for note in jobs.report()["notes"] if note["level"] == "warning"]
    assert "ZeroDivisionError('a bug')" in note["message"] and "llmbatch report" in note["message"]


def test_the_prompts_of_rows_anywhere_in_the_input_are_found(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = jobs.rows([{"id": at, "text": f"text {at}"} for at in range(3000)])
    monkeypatch.setattr(page_module, "_ROWS", 500)
    jobs.run(jobs.job(rows, run={"window": 100}))
    page = page_of(jobs)
    records = records_of(page)
    assert 100 < len(records) < 400
    found = [record for record in records if "prompt" in record]
    assert found and all(record["prompt"][0]["text"] == f"text {record['index']}" for record in found)
    assert len(found) < len(records)
    assert "were not looked up" in page
    assert f"{len(records)} of 3,000 records are in this file" in page


def test_the_prompts_of_a_run_in_an_order_of_the_corpus_are_those_of_its_rows(jobs: Any) -> None:
    rows = jobs.rows([{"id": at, "text": f"group {at % 7} " + "x" * 80 + f" row {at}"} for at in range(200)])
    jobs.run(jobs.job(rows, run={"window": 20, "order": "corpus"}))
    assert read_order(jobs.path / "out") is not None
    records = records_of(page_of(jobs))
    assert len(records) == 200
    assert all(record["prompt"][0]["text"].endswith(f" row {record['index']}") for record in records)
    assert all(f"rows.jsonl:{record['index'] + 1}" in record["place"] for record in records)
