"""A server that fails every tenth request in one of six ways and is killed twice, beneath a run that is killed too."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

ROWS = 400
IN_FLIGHT = 8


def answered(log: Path) -> list[str]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def until(holds: Callable[[], bool], process: Any) -> None:
    while not holds():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_nothing_is_lost_and_nothing_asked_again_that_was_answered(
    jobs: Any, server: Any, server_process: Any, online: Any
) -> None:
    rows = jobs.rows([{"id": f"r{i}", "text": f"text {i}"} for i in range(ROWS)])
    data = online(rows, run={"window": 64, "commit_seconds": 0.01}, engine={"in_flight": IN_FLIGHT})
    run_job(job_from({**data, "output": str(jobs.path / "plain")}))  # a server without faults

    log = jobs.path / "answered"
    failing = ["--fail-every", "10", "--seconds", "0.01", "--log", str(log)]
    process, url = server_process(*failing)
    port = url.rsplit(":", 1)[1].removesuffix("/v1")
    data["engine"]["urls"] = [url]
    run = jobs.start(data)
    for enough in (ROWS // 5, 2 * ROWS // 5):
        until(lambda enough=enough: len(answered(log)) >= enough, run)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process, _ = server_process("--port", port, *failing)
    until(lambda: len(answered(log)) >= 3 * ROWS // 5, run)
    run.send_signal(signal.SIGKILL)
    run.wait()
    jobs.run(job_from(data))

    assert jobs.results() == jobs.results("plain")
    counts = Counter(answered(log))
    assert len(set(answered(log.with_name("answered.sending")))) == ROWS
    assert max(counts.values()) <= 2, "only what the run did not come to write down before it was killed"


def test_what_was_answered_before_a_server_was_killed_is_not_asked_again(
    jobs: Any, server_process: Any, online: Any
) -> None:
    rows = jobs.rows([{"id": f"r{i}", "text": f"text {i}"} for i in range(ROWS)])
    log = jobs.path / "answered"
    failing = ["--fail-every", "10", "--seconds", "0.01", "--log", str(log)]
    process, url = server_process(*failing)
    port = url.rsplit(":", 1)[1].removesuffix("/v1")
    run = jobs.start(online(rows, engine={"in_flight": IN_FLIGHT, "urls": [url]}))
    for enough in (ROWS // 3, 2 * ROWS // 3):
        until(lambda enough=enough: len(answered(log)) >= enough, run)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process, _ = server_process("--port", port, *failing)
    assert run.wait() == 0, run.communicate()
    assert [record["output"] for record in jobs.records()] == [f"text {i}" for i in range(ROWS)]
    counts = Counter(answered(log))
    assert len(set(answered(log.with_name("answered.sending")))) == ROWS
    # an answer that was in the connection's buffers when its server was killed may not have arrived
    assert sum(counts.values()) - ROWS <= 2 * IN_FLIGHT
