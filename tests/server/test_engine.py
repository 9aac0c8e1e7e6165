"""The server's engine in a process of its own: killed in the middle of a batch, ended without work, and started again."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from llmbatch.audit.audit import audit


def hosted(**args: Any) -> dict[str, Any]:
    return {"engine": {"name": "scripted", "hosted": True, "args": args}, "run": {"window": 16, "grace": 0.1}}


def engine_of(site: Any) -> Any:
    return site.server.answering.live._shared


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def site(sites, forked: None) -> Any:
    return sites.start(job=hosted(latency=0.1, concurrency=4))


def test_an_engine_that_is_killed_in_the_middle_of_a_batch_costs_no_row(site, lines, begin, ended, until) -> None:
    client = site.openai()
    batch = begin(client, lines.many(120))
    until(lambda: client.batches.retrieve(batch).request_counts.completed, bool)
    (first, *_) = engine_of(site).info.pids
    assert first != os.getpid()
    assert client.batches.retrieve(batch).status == "in_progress"
    os.kill(first, signal.SIGKILL)
    until(lambda: alive(first), lambda lives: not lives)
    over = ended(client, batch)
    assert (over.status, over.request_counts.completed) == ("completed", 120)
    assert lines.ids(lines.of(client, over.output_file_id)) == [f"row-{i}" for i in range(120)]
    assert audit(site.server.store.run_folder(batch)).complete
    (second, *_) = engine_of(site).info.pids
    assert second != first
    answer = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "still here"}])
    assert answer.choices[0].message.content == "still here"


def test_an_engine_without_work_is_ended_and_started_again_by_the_next(
    sites, lines, begin, ended, until, forked
) -> None:
    site = sites.start(job=hosted(), idle=0.2)
    client = site.openai()
    assert engine_of(site).state == "down"  # it starts with the first work
    ended(client, begin(client, lines.many(3)))
    (first, *_) = engine_of(site).info.pids
    until(lambda: engine_of(site).state, lambda state: state == "down")
    assert until(lambda: alive(first), lambda lives: not lives) is False
    over = ended(client, begin(client, lines.many(3)))
    assert over.request_counts.completed == 3
    (second, *_) = engine_of(site).info.pids
    assert second != first
    site.stop()
    assert until(lambda: alive(second), lambda lives: not lives) is False
