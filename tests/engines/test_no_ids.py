"""Whole runs on an engine as an HTTP server is one: it takes prompts, gives text, and tells neither ids nor its context length."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

SERVER = {"no_ids": True, "no_context_length": True}
WRONG = {"when": {"attempt": 1, "matches": "[05]$"}, "answer": "neither"}
CHOICE = {"choice": ["yes", "no"], "constrained": False}


def rows_of(jobs: Any, count: int = 40, distinct: int | None = None) -> Path:
    rows = [{"id": f"r{i}", "text": f"yes or no, {i % (distinct or count)}"} for i in range(count)]
    return Path(jobs.rows(rows))


def script_of(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"rules": [*rules, WRONG, {"answer": "yes"}], "concurrency": 6, **SERVER, **more}


def statuses(jobs: Any, folder: str = "out") -> list[str]:
    return [record["status"] for record in jobs.records(folder)]


def plain(jobs: Any, rows: Path, script: dict[str, Any], **sections: Any) -> bytes:
    jobs.run(jobs.job(rows, script, output=str(jobs.path / "plain"), **sections))
    return bytes(jobs.results("plain"))


def test_every_row_is_answered_and_what_follows_an_answer_goes_to_the_engine_too(jobs: Any) -> None:
    result = jobs.run(jobs.job(rows_of(jobs), script_of(), answer=CHOICE))
    assert statuses(jobs) == ["ok"] * 40
    assert [record["attempts"] for record in jobs.records()] == [2 if i % 5 == 0 else 1 for i in range(40)]
    assert result.report["engine"]["context_length"] is None
    assert result.report["engine"]["can"] == ["cancel", "constraint", "images", "lora", "stream"]


def test_equal_prompts_are_asked_once(jobs: Any) -> None:
    result = jobs.run(jobs.job(rows_of(jobs, 40, distinct=8), script_of()))
    assert result.report["sessions"][0]["tokens"]["completion_tokens"] == 6 * len("yes") + 2 * len("neither")
    assert {record["output"] for record in jobs.records()} == {"yes", "neither"}


def test_an_answer_of_an_earlier_run_is_found_in_the_cache(jobs: Any) -> None:
    cache = {"cache": str(jobs.path / "cache")}
    rows = rows_of(jobs)
    first = plain(jobs, rows, SERVER, reuse=cache)
    again = jobs.run(jobs.job(rows, SERVER, reuse=cache))
    assert again.report["engine"] is None, "no engine was needed"
    assert jobs.results() == first


def test_what_the_server_finds_too_long_is_its_refusal_and_a_record(jobs: Any) -> None:
    rows = jobs.rows([{"id": 0, "text": "short"}, {"id": 1, "text": "long" * 50}, {"id": 2, "text": "short"}])
    jobs.run(jobs.job(rows, {**SERVER, "context_length": 100}))
    assert statuses(jobs) == ["ok", "failed", "ok"]
    assert jobs.records()[1]["error"]["kind"] == "too_long"


def test_an_answer_that_is_cut_off_is_asked_again_with_a_larger_budget(jobs: Any) -> None:
    rows = jobs.rows([{"id": i, "text": "0123456789"} for i in range(3)])
    jobs.run(jobs.job(rows, SERVER, sampling={"max_tokens": 6}))
    assert [record["output"] for record in jobs.records()] == ["0123456789"] * 3
    assert {record["attempts"] for record in jobs.records()} == {2}


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_results_are_the_same_with_deaths(jobs: Any, replicas: int) -> None:
    rows, deadly = rows_of(jobs), {"when": {"index": 33}, "die": True}
    others = (
        [4, 20] if replicas == 1 else []
    )  # of two, another death could come as a suspect runs alone: it would be blamed
    jobs.run(jobs.job(rows, script_of(deadly, die_after=others), answer=CHOICE, engine={"replicas": replicas}))
    expected = plain(jobs, rows, script_of(), answer=CHOICE).splitlines()
    assert [line for i, line in enumerate(jobs.results().splitlines()) if i != 33] == expected[:33] + expected[34:]
    assert jobs.records()[33]["error"]["kind"] == "engine_died"


def test_a_killed_run_goes_on_with_the_same_bytes(jobs: Any) -> None:
    rows, crash = rows_of(jobs), {"when": {"index": 27, "attempt": 1}, "crash": True}
    data = jobs.data(rows, script_of(crash, latency=0.002), answer=CHOICE, run={"window": 10, "commit_seconds": 0.01})
    code, _, said = jobs.finish(data)
    assert code == -signal.SIGKILL, said
    job = jobs.job(
        rows, script_of(crash, latency=0.002), answer=CHOICE, run={"window": 10}, engine={"in_process": False}
    )
    jobs.run(job)
    expected = plain(jobs, rows, script_of(), answer=CHOICE, run={"window": 10}).splitlines()
    assert [line for i, line in enumerate(jobs.results().splitlines()) if i != 27] == expected[:27] + expected[28:]


@pytest.mark.parametrize("unknown", ["no_ids", "no_context_length"])
def test_each_of_the_two_alone(jobs: Any, unknown: str) -> None:
    script = {key: value for key, value in script_of().items() if key == unknown or key not in SERVER}
    jobs.run(jobs.job(rows_of(jobs), script, answer=CHOICE, run={"autotune": True}))
    assert statuses(jobs) == ["ok"] * 40
