"""The openai engine of one llmbatch at the Batch API of another."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gathered is sent without a long wait for more."""
    monkeypatch.setattr("llmbatch.engines.openai.batch.loop._QUIET_SECONDS", 0.05)


def data_of(jobs: Any, site: Any, count: int = 40, **sections: Any) -> dict[str, Any]:
    rows = [{"id": f"r{i}", "text": f"text {i}"} for i in range(count)]
    rows[7]["text"] = "word " * 300
    there = {"name": "openai", "urls": [f"{site.url}/v1"], "served_name": "demo"}
    engine = {**there, "mode": "batch", "poll": 0.02, **sections.pop("engine", {})}
    found: dict[str, Any] = jobs.data(jobs.rows([*rows, "no json"]), **sections)
    return {**found, "engine": engine}


def test_rows_are_answered_in_a_batch_as_they_are_one_by_one(jobs: Any, sites: Any) -> None:
    site = sites.start({"context_length": 1000})
    jobs.run(job_from(data_of(jobs, site)))
    records = jobs.records()
    assert [record["status"] for record in records] == ["ok"] * 7 + ["failed"] + ["ok"] * 32 + ["failed"]
    assert [record["output"] for record in records if record["status"] == "ok"] == [
        f"text {i}" for i in range(40) if i != 7
    ]
    assert [records[at]["error"]["kind"] for at in (7, 40)] == ["too_long", "malformed_row"]
    (batch,) = site.openai().batches.list().data
    assert (batch.status, batch.request_counts.total, batch.request_counts.failed) == ("completed", 40, 1)
    run_job(job_from(data_of(jobs, site, output=str(jobs.path / "online"), engine={"mode": "online"})))
    assert jobs.results() == jobs.results("online")


def test_a_run_that_is_killed_while_its_batch_is_worked_on_finds_it_again(jobs: Any, sites: Any) -> None:
    site = sites.start({"latency": 1, "concurrency": 2, "context_length": 1000})
    data = data_of(jobs, site)
    client = site.openai()
    process = jobs.start(data)
    while not client.batches.list().data:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert client.batches.list().data[0].status != "completed"
    site.stop()
    site = sites.start({"context_length": 1000})  # the same, but quicker
    jobs.run(job_from({**data, "engine": {**data["engine"], "urls": [f"{site.url}/v1"]}}))
    assert [record["status"] for record in jobs.records()].count("ok") == 39
    assert len(site.openai().batches.list().data) == 1, "nothing is asked twice"
