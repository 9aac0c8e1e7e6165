"""Outages and odd answers of a server: no row is blamed for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbatch.job.job import job_from


def rows_of(jobs: Any, count: int = 40) -> Path:
    return Path(jobs.rows([{"id": f"r{i}", "text": f"text {i}"} for i in range(count)]))


def statuses(jobs: Any) -> list[str]:
    return [record["status"] for record in jobs.records()]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waits between tries and between restarts."""
    monkeypatch.setattr("llmbatch.engines.http.sender.back_off", lambda *_: 0.0)
    monkeypatch.setattr("llmbatch.engines.http.pool.back_off", lambda *_: 0.0)
    monkeypatch.setattr("llmbatch.engines.supervised._BACKOFF_SECONDS", (0.0,))


def test_a_row_at_which_the_server_always_hangs_is_one_failed_row(
    jobs: Any, server: Any, online: Any, at_once: None
) -> None:
    server.behave = lambda _, body: "hang" if body["messages"][-1]["content"] == "text 1" else None
    jobs.run(job_from(online(rows_of(jobs, 4), engine={"timeout": 0.5})))
    assert statuses(jobs) == ["ok", "failed", "ok", "ok"]


@pytest.mark.parametrize("way", [500, "html", "drop"])
def test_no_row_is_blamed_for_an_outage(jobs: Any, server: Any, online: Any, at_once: None, way: Any) -> None:
    server.behave = lambda number, _: way if number <= 40 else None
    jobs.run(job_from(online(rows_of(jobs, 4))))
    assert statuses(jobs) == ["ok"] * 4


def test_a_server_that_fails_at_all_takes_no_rows_from_the_others(
    jobs: Any, server: Any, servers: Any, online: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.http.sender.back_off", lambda *_: 0.0)
    bad = servers(lambda *_: 500).start()
    server.seconds = 0.05
    jobs.run(job_from(online(rows_of(jobs, 30), engine={"urls": [server.url, bad.url], "in_flight": 4})))
    assert statuses(jobs) == ["ok"] * 30


@pytest.mark.parametrize(
    "odd",
    [
        {"logprobs": {"content": [{"tok": 1}]}},
        {"logprobs": {"tokens": ["a"], "token_logprobs": [-1], "top_logprobs": [["a", -1]]}},
    ],
)
def test_an_odd_answer_is_its_row_alone(jobs: Any, server: Any, online: Any, at_once: None, odd: Any) -> None:
    server.answer = lambda body: odd if body["messages"][-1]["content"] == "text 1" else None
    jobs.run(job_from(online(rows_of(jobs, 4))))
    assert statuses(jobs) == ["ok", "failed", "ok", "ok"]


def test_a_model_that_is_still_away_after_a_restart_fails_no_row(
    jobs: Any, server: Any, online: Any, stand_in: Any, at_once: None
) -> None:
    server.behave = lambda number, _: (
        stand_in.Say(404, message="The model does not exist") if 10 < number <= 20 else None
    )
    jobs.run(job_from(online(rows_of(jobs, 40), engine={"in_flight": 1})))
    assert statuses(jobs) == ["ok"] * 40


def test_a_model_that_goes_away_fails_no_row(jobs: Any, server: Any, online: Any, stand_in: Any, at_once: None) -> None:
    server.behave = lambda number, _: (
        stand_in.Say(404, message="The model does not exist") if 10 < number <= 14 else None
    )
    jobs.run(job_from(online(rows_of(jobs, 40), engine={"in_flight": 2})))
    assert statuses(jobs) == ["ok"] * 40
