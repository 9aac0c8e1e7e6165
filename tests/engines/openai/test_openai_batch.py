"""Whole runs through a stand-in's Batch API: nothing is lost, and nothing is paid for twice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import EngineError, JobError
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gathered is sent without a long wait for more."""
    monkeypatch.setattr("llmbatch.engines.openai.batch.loop._QUIET_SECONDS", 0.05)


@pytest.fixture
def batched(jobs: Any, online: Any) -> Callable[..., dict[str, Any]]:
    def data(count: int = 30, **sections: Any) -> dict[str, Any]:
        rows = jobs.rows([{"id": f"r{i}", "text": f"text {i}"} for i in range(count)])
        engine = {"mode": "batch", "poll": 0.02, **sections.pop("engine", {})}
        found: dict[str, Any] = online(Path(rows), engine=engine, **sections)
        return found

    return data


def outputs(jobs: Any, folder: str = "out") -> list[Any]:
    return [record["output"] for record in jobs.records(folder)]


def test_rows_are_answered_through_a_batch(jobs: Any, server: Any, batched: Any) -> None:
    jobs.run(job_from(batched()))
    assert outputs(jobs) == [f"text {i}" for i in range(30)]
    assert set(server.answered.values()) == {1}
    assert [batch["endpoint"] for batch in server.batches.made.values()] == ["/v1/chat/completions"]
    assert "batch-1" in (jobs.path / "out/engine.log").read_text()


def test_the_same_bytes_as_one_by_one(jobs: Any, server: Any, batched: Any) -> None:
    jobs.run(job_from(batched()))
    plain = batched(output=str(jobs.path / "plain"), engine={"mode": "online"})
    jobs.run(job_from(plain))
    assert jobs.results() == jobs.results("plain")


def test_a_file_has_so_many_lines_and_bytes_at_most(
    jobs: Any, server: Any, batched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.openai.batch.loop.MOST_LINES", 7)
    jobs.run(job_from(batched(20)))
    sizes = [len(server.batches.files[batch["input_file_id"]].splitlines()) for batch in server.batches.made.values()]
    assert max(sizes) == 7
    assert sum(sizes) == 20
    monkeypatch.setattr("llmbatch.engines.openai.batch.loop._MOST_BYTES", 600)
    jobs.run(job_from(batched(20, output=str(jobs.path / "small"))))
    files = [content for name, content in server.batches.files.items() if name.startswith("file-")][len(sizes) :]
    assert max(map(len, files)) <= 600
    assert outputs(jobs, "small") == [f"text {i}" for i in range(20)]


def test_what_is_refused_in_a_batch_is_its_row_alone(jobs: Any, server: Any, batched: Any, stand_in: Any) -> None:
    refused = stand_in.Say(400, message="not this one")
    server.batches.fails = lambda body: refused if body["messages"][-1]["content"] == "text 3" else None
    jobs.run(job_from(batched(6)))
    assert [record["status"] for record in jobs.records()] == ["ok"] * 3 + ["failed"] + ["ok"] * 2
    assert "not this one" in jobs.records()[3]["error"]["message"]
    assert len(server.batches.made) == 1


def test_what_failed_in_a_batch_is_asked_again_in_another(jobs: Any, server: Any, batched: Any, stand_in: Any) -> None:
    failing = {"text 1", "text 4"}

    def fails(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        if text in failing:
            failing.discard(text)
            return stand_in.Say(500)
        return None

    server.batches.fails = fails
    jobs.run(job_from(batched(6)))
    assert outputs(jobs) == [f"text {i}" for i in range(6)]
    assert len(server.batches.made) == 2
    assert set(server.answered.values()) == {1}


def test_what_an_expired_batch_left_is_asked_again(jobs: Any, server: Any, batched: Any) -> None:
    server.batches.ends = lambda number: "expired" if number <= 2 else "completed"
    jobs.run(job_from(batched(20)))
    assert outputs(jobs) == [f"text {i}" for i in range(20)]
    assert set(server.answered.values()) == {1}


def test_a_batch_that_is_cancelled_is_not_asked_for_again_by_itself(jobs: Any, server: Any, batched: Any) -> None:
    server.batches.ends = lambda number: "cancelled" if number == 1 else "completed"
    job = job_from(batched())
    with pytest.raises(EngineError, match="batch-1 was cancelled at the provider"):
        jobs.run(job)
    assert len(server.batches.made) == 1
    jobs.run(job)
    assert outputs(jobs) == [f"text {i}" for i in range(30)]
    assert set(server.answered.values()) == {1}, "what it had answered is not asked again"


def test_a_provider_that_never_makes_a_batch_ends_the_run(
    jobs: Any, server: Any, batched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.openai.batch.provider.back_off", lambda *_: 0.05)

    def fail() -> None:
        raise RuntimeError("the stand-in was told so")  # status 500

    server.batches.before_create = fail
    with pytest.raises(EngineError, match="/batches gave no answer"):
        jobs.run(job_from(batched(engine={"timeout": 0.5, "restarts": 0})))


def test_a_batch_that_cannot_begin_ends_the_run_with_the_reason_and_is_asked_for_anew(
    jobs: Any, server: Any, batched: Any
) -> None:
    server.batches.ends = lambda number: "failed" if number == 1 else "completed"
    with pytest.raises(EngineError, match="could not begin batch batch-1: the file is not as it must be"):
        jobs.run(job_from(batched()))
    jobs.run(job_from(batched()))
    assert outputs(jobs) == [f"text {i}" for i in range(30)]


def test_an_answer_that_does_not_do_goes_into_a_further_batch(jobs: Any, server: Any, batched: Any) -> None:
    server.answer = lambda body: (
        {"message": {"content": "maybe"}} if len(body["messages"]) == 1 and "text 2" in str(body) else None
    )
    jobs.run(job_from(batched(4, answer={"choice": ["text 0", "text 1", "text 2", "text 3"], "constrained": False})))
    assert jobs.records()[2]["attempts"] > 1
    assert len(server.batches.made) > 1


MOMENTS = ["upload", "create", "look", "bring back"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_at_any_moment_pays_once(jobs: Any, server: Any, batched: Any, moment: str) -> None:
    data = batched()
    plain = {**data, "output": str(jobs.path / "plain"), "engine": {**data["engine"], "mode": "online"}}
    run_job(job_from(plain))
    server.answered.clear()
    batches = server.batches
    processes: list[Any] = []

    def kill(*_: Any) -> None:
        if processes:
            os.kill(processes.pop().pid, signal.SIGKILL)

    if moment == "upload":
        batches.before_create = kill
    elif moment == "create":
        batches.after_create = kill
    else:
        batches.ends = lambda _: kill() or "completed" if moment == "bring back" else "completed"
        batches.looks = 20
    process = jobs.start(data)
    processes.append(process)
    if moment == "look":
        while not any(batches.looked.values()):
            time.sleep(0.01)
            assert process.poll() is None, process.communicate()
        kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL, process.communicate()
    batches.before_create = batches.after_create = lambda: None
    jobs.run(job_from(data))
    assert jobs.results() == jobs.results("plain")
    assert set(server.answered.values()) == {1}, "nothing is paid for twice"
    assert len(batches.made) == 1


def test_what_came_back_before_a_kill_is_read_from_the_disk(jobs: Any, server: Any, batched: Any) -> None:
    """As if the run had been killed before it wrote down what the output says: of it, only what is known of batches is left."""
    data = batched()
    jobs.run(job_from(data))
    expected = jobs.results()
    (jobs.path / "again").mkdir()
    (jobs.path / "out/engine-batches").rename(jobs.path / "again/engine-batches")
    jobs.run(job_from({**data, "output": str(jobs.path / "again")}))
    assert jobs.results("again") == expected
    assert len(server.batches.made) == 1


@pytest.mark.parametrize("gone", ["batch", "output"])
def test_a_batch_that_the_provider_has_no_more_is_said_with_what_to_do_and_can_be_asked_for_anew(
    jobs: Any, server: Any, batched: Any, gone: str
) -> None:
    data = batched(6)
    jobs.run(job_from(data))
    expected = jobs.results()
    (jobs.path / "again").mkdir()
    folder = (jobs.path / "out/engine-batches").rename(jobs.path / "again/engine-batches")
    (told,) = (path for path in folder.glob("*.json") if path.name != "run.json")
    told.write_text(json.dumps({**json.loads(told.read_text()), "ended": False}))  # as if it was killed on the way
    if gone == "batch":
        server.batches.made.clear()
    else:
        server.batches.files.clear()
    again = {**data, "output": str(jobs.path / "again")}
    with pytest.raises(EngineError) as said:
        jobs.run(job_from(again))
    assert "(status 404): no such" in str(said.value)
    assert "It has the answers to 6 requests of this run, which are paid for: see whether the key" in str(said.value)
    assert f"remove {told}, and the same command asks for them again" in str(said.value)
    told.unlink()
    jobs.run(job_from(again))
    assert jobs.results("again") == expected
    assert set(server.answered.values()) == {2}, "asked again, as told"


def test_a_connection_that_breaks_while_a_batch_is_made_makes_no_second_one(
    jobs: Any, server: Any, batched: Any
) -> None:
    def break_off() -> None:
        server.batches.after_create = lambda: None
        raise ConnectionResetError

    server.batches.after_create = break_off
    jobs.run(job_from(batched()))
    assert outputs(jobs) == [f"text {i}" for i in range(30)]
    assert len(server.batches.made) == 1


def test_rows_that_a_batch_has_are_not_asked_for_one_by_one(jobs: Any, server: Any, batched: Any) -> None:
    def fail() -> None:
        raise RuntimeError("the stand-in was told so")  # status 500

    server.batches.before_create = fail
    with pytest.raises(EngineError):
        jobs.run(job_from(batched(engine={"timeout": 0.3, "restarts": 0})))
    with pytest.raises(JobError, match=r"1 batches of this run are on their way.*engine\.mode=batch brings them back"):
        jobs.run(job_from(batched(engine={"mode": "online"})))
    server.batches.before_create = lambda: None
    jobs.run(job_from(batched()))
    assert set(server.answered.values()) == {1}


def test_batches_of_another_run_are_not_taken_for_this_ones(jobs: Any, server: Any, batched: Any) -> None:
    jobs.run(job_from(batched()))
    jobs.run(job_from(batched(output=str(jobs.path / "second"))))
    assert len(server.batches.made) == 2


def test_a_server_without_a_batch_api_is_said(jobs: Any, server: Any, batched: Any) -> None:
    server.batches.routes = lambda app: None
    server.die()
    server.start()
    with pytest.raises(EngineError, match="/files refuses \\(status 404\\)"):
        jobs.run(job_from(batched()))


def test_batches_go_to_one_server(jobs: Any, batched: Any) -> None:
    with pytest.raises(JobError, match="batches go to one server"):
        job_from(batched(engine={"urls": ["http://a/v1", "http://b/v1"]}))
