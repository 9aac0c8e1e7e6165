"""A server that says how many requests wait in it: it is not given more than it has use for."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch.engines.openai.queue import waits
from llmbatch.job.job import job_from


def gauges(*each: tuple[float, float]) -> str:
    """The metrics of a server with engines that run and wait so many."""
    lines = [
        f'vllm:num_requests_{name}{{engine="{number}",model_name="m"}} {value}'
        for number, (running, waiting) in enumerate(each)
        for name, value in (("running", running), ("waiting", waiting))
    ]
    return "\n".join(["# HELP vllm:num_requests_waiting Number of requests waiting.", *lines, ""])


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ("", False),
        ("process_open_fds 9.0", False),
        (gauges((256.0, 0.0)), False),
        (gauges((256.0, 100.0)), False),
        (gauges((256.0, 128.0)), True),
        (gauges((0.0, 0.0)), False),
        (gauges((0.0, 3.0)), True),
        (gauges((10.0, 10.0), (10.0, 0.0)), True),
        (gauges((10.0, 4.0), (10.0, 0.0)), False),
        (gauges((1.0, 0.0)) + 'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0', False),
    ],
)
def test_requests_wait_where_half_as_many_do_as_run(metrics: str, said: bool) -> None:
    assert waits(metrics) is said


def test_where_requests_wait_no_more_are_sent_at_a_time(jobs: Any, server: Any, online: Any) -> None:
    server.owner, server.version, server.metrics = "vllm", "0.32.0", gauges((40, 216))
    rows = jobs.rows([{"id": f"r{number}", "text": f"text {number}"} for number in range(1500)])
    jobs.run(job_from(online(rows)))
    assert len(server.answered) == 1500
    assert "requests at a time, at the end: 256 to" in (jobs.path / "out" / "engine.log").read_text()
