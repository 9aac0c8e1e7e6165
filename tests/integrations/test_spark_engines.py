"""Engines as an executor of Spark keeps them, from one query to the next. No Spark is needed for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbatch.integrations.live_job import LiveJob
from llmbatch.integrations.spark.engines import Engines

JOB = json.dumps(
    {
        "model": "any", "prompt": "{{ text }}", "engine": {"name": "scripted"}, "sampling": {"temperature": 0},
        "input": {"path": "rows", "format": "jsonl"}, "output": "run",
    }
)  # fmt: skip


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    made = Engines(tmp_path, lambda _: None, 1, lambda job: job)
    yield made
    made.close()


def answered(job: LiveJob, text: str) -> Any:
    ((record,), _) = job.records([{"text": text}])
    return record.output


def test_a_job_is_kept_for_whoever_comes_next(engines: Engines) -> None:
    with engines.job(JOB) as first:
        assert answered(first, "a") == "a"
    with engines.job(JOB) as second:
        assert second is first


@pytest.mark.parametrize("place", ["keep", "ask"])
def test_an_error_that_passes_costs_those_who_wait_and_nobody_who_comes_later(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    def ask() -> None:
        with engines.job(JOB) as job:
            if place == "keep":
                monkeypatch.setattr(job._reuse, "keep", fail)
            else:
                monkeypatch.setattr(job._live, "ask", fail)
            answered(job, "a")

    with pytest.raises(RuntimeError, match="can't start new thread"):
        ask()
    with engines.job(JOB) as job:
        assert answered(job, "a") == "a"
