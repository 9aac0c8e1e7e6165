"""Scripted engines in processes of their own: whole runs in which they or the run are killed; and that nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmbatch.core.errors import EngineDied, EngineError, JobError
from llmbatch.core.events import Event, Snapshot
from llmbatch.core.types import Outcome, Prompt, Request, RequestKey, Sampling
from llmbatch.engines import hosted as module
from llmbatch.engines import making
from llmbatch.engines.base import Engine
from llmbatch.engines.devices import Place
from llmbatch.engines.elsewhere import EngineElsewhere
from llmbatch.engines.feed import Feed
from llmbatch.engines.hosted import Hosting
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.making import Maker
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings

RETRIED = {"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}


def text_rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "text": f"text {i % 90}"} for i in range(count)]


def plain(jobs: Any, rows: Path, **sections: Any) -> bytes:
    """The results of one engine in the run's own process."""
    jobs.run(jobs.job(rows, {"rules": [RETRIED]}, output=str(jobs.path / "plain"), **sections))
    return bytes(jobs.results("plain"))


def gone(pids: list[int]) -> list[int]:
    """Those that are still there after up to two minutes."""
    for _ in range(1200):
        pids = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        if not pids:
            break
        time.sleep(0.1)
    return pids


def hosted(tmp_path: Path, timeout: float = 600.0, place: Place | None = None, **args: Any) -> EngineElsewhere:
    settings = EngineSettings(name="scripted", args=args, timeout=timeout)
    log, chat = tmp_path / "engine.log", ChatSettings()
    return module.hosted(make_engine("m", settings, chat, log), Hosting("m", settings, chat, log, place or Place()))


def feed_of(count: int) -> Feed:
    feed = Feed()
    feed.push(Request(RequestKey(i), Prompt(text=f"t{i}"), Sampling(), token_ids=[1]) for i in range(count))
    feed.close()
    return feed


def answers(engine: EngineElsewhere, feed: Feed) -> list[Outcome]:
    found: list[Outcome] = []
    for outcomes in engine.stream(feed):
        for outcome in outcomes:
            feed.done(outcome.key)
        found += outcomes
    return found


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_the_results_are_those_of_one_engine_in_the_run_itself(jobs: Any, replicas: int) -> None:
    rows = jobs.rows(text_rows(120))
    script = {"rules": [RETRIED], "concurrency": 8, "latency": 0.002}
    result = jobs.run(jobs.job(rows, script, engine={"replicas": replicas, "hosted": True}, run={"window": 40}))
    assert result.report["sessions"][0]["engine_restarts"] == 0
    assert jobs.results() == plain(jobs, rows, run={"window": 40})
    assert result.report["sessions"][0]["tokens"]["completion_tokens"] > 0
    names = [f"engine-{n}.log" for n in range(replicas)] if replicas > 1 else ["engine.log"]
    assert sorted(path.name for path in (jobs.path / "out").glob("engine*.log")) == names


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_a_replica_that_is_killed_costs_its_own_requests_and_the_results_are_the_same(jobs: Any, replicas: int) -> None:
    rows = jobs.rows(text_rows(400))
    killed: list[int] = []

    def kill(event: Event) -> None:
        if isinstance(event, Snapshot) and event.rows >= 20 and not killed:
            killed.append(workers()[-1])
            os.kill(killed[0], signal.SIGKILL)

    script = {"rules": [RETRIED], "concurrency": 4, "latency": 0.06 if replicas == 4 else 0.02 * replicas}
    engine = {"replicas": replicas, "hosted": True}
    result = jobs.run(jobs.job(rows, script, engine=engine, plan={"fold": False}), kill)
    assert killed
    assert result.report["sessions"][0]["engine_restarts"] == 1
    (said,) = [note for note in jobs.notes() if "in flight and go again" in note]
    assert "was killed by SIGKILL" in said
    assert int(said.rpartition(" requests were in flight")[0].rpartition(" ")[2]) <= 4 + 16
    assert jobs.results() == plain(jobs, rows, plan={"fold": False})
    assert gone(workers()) == []


def workers(pid: int | None = None) -> list[int]:
    """The processes of engines below this one, or another."""
    found = []
    for process in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            if "llmbatch.engines.worker" in " ".join(process.cmdline()):
                found.append(process.pid)
    return sorted(found)


def test_a_row_that_crashes_the_process_is_found_and_all_others_finish(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": 31}, "crash": True}], "concurrency": 16, "latency": 0.001}
    jobs.run(jobs.job(jobs.rows(text_rows(60)), script, engine={"replicas": 2, "hosted": True}))
    assert [r["index"] for r in jobs.records() if r["status"] != "ok"] == [31]
    assert jobs.records()[31]["error"]["kind"] == "engine_died"


@pytest.mark.parametrize("before", [1, 3])
def test_a_killed_run_leaves_no_engine_and_goes_on_with_another_number(jobs: Any, before: int) -> None:
    rows = jobs.rows(text_rows(300))
    script, run = {"rules": [RETRIED], "concurrency": 4}, {"window": 50, "commit_seconds": 0.01}
    engine = {"replicas": before, "hosted": True, "args": {"latency": 0.1 * before}}
    data = jobs.data(rows, script, engine=engine, run=run)
    process: subprocess.Popen[str] = jobs.start(data)
    pids: list[int] = []
    for _ in range(6000):
        parts = jobs.path / "out" / "parts"
        if sum(path.read_bytes().count(b"\n") for path in parts.glob("*.journal")) > 10:
            pids = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
            break
        time.sleep(0.01)
    assert len(pids) >= 2 * before, "a worker and a guardian each"
    process.kill()
    process.wait()
    assert gone(pids) == []
    assert jobs.run(jobs.job(rows, script, engine={"replicas": 2, "hosted": True}, run=run)).outcome == "finished"
    assert jobs.results() == plain(jobs, rows, run=run)


def test_a_run_that_is_stopped_gives_what_is_in_flight_up_and_goes_on_later(jobs: Any) -> None:
    rows = jobs.rows(text_rows(60))
    script = {"rules": [RETRIED], "concurrency": 4}
    shape: dict[str, Any] = {"run": {"window": 10, "grace": 0}, "plan": {"fold": False}}
    engine = {"replicas": 2, "hosted": True}

    def stop(event: Event) -> None:
        if isinstance(event, Snapshot) and event.rows >= 8:
            signal.raise_signal(signal.SIGINT)

    slow = {**engine, "args": {"latency": 0.4}}
    assert jobs.run(jobs.job(rows, script, engine=slow, **shape), stop).outcome == "stopped"
    assert jobs.run(jobs.job(rows, script, engine=engine, **shape)).outcome == "finished"
    assert jobs.results() == plain(jobs, rows, **shape)


def test_a_stop_does_not_wait_for_a_model_that_is_being_loaded(jobs: Any) -> None:
    script = {"start_seconds": 600}

    def stop(event: Event) -> None:
        if isinstance(event, Snapshot):
            signal.raise_signal(signal.SIGINT)

    job = jobs.job(jobs.rows(text_rows(10)), script, engine={"replicas": 2, "hosted": True}, run={"max_time": 3})
    began = time.monotonic()
    assert jobs.run(job, stop).outcome == "stopped"
    assert time.monotonic() - began < 300
    assert gone(workers()) == []


def test_why_no_engine_starts_is_said(jobs: Any) -> None:
    job = jobs.job(jobs.rows(text_rows(4)), {"out_of_memory_above": 0}, engine={"replicas": 2, "hosted": True})
    with pytest.raises(EngineError, match="no memory"):
        jobs.run(job)


def test_one_that_does_not_start_is_left_out_and_the_others_finish(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[EngineElsewhere] = []
    start = EngineElsewhere.start

    def fails_for_the_first(engine: EngineElsewhere) -> Any:
        started.append(engine)
        if engine is started[0]:
            raise EngineError("this GPU is broken")
        return start(engine)

    monkeypatch.setattr(EngineElsewhere, "start", fails_for_the_first)
    rows = jobs.rows(text_rows(40))
    result = jobs.run(jobs.job(rows, {"rules": [RETRIED]}, engine={"replicas": 3, "hosted": True, "restarts": 0}))
    assert result.exit_code == 0
    assert any("is left out, and 2 replicas go on without it: this GPU is broken" in note for note in jobs.notes())
    monkeypatch.undo()
    assert jobs.results() == plain(jobs, rows)


def test_an_engine_is_as_the_contract_says(tmp_path: Path) -> None:
    engine = hosted(tmp_path, concurrency=4)
    info = engine.start()
    (pid,) = info.pids
    assert info.max_num_seqs == 4
    assert psutil.Process(pid).ppid() == os.getpid()
    found = answers(engine, feed_of(50))
    assert sorted(outcome.key.index for outcome in found) == list(range(50))
    assert engine.counts().completion_tokens == sum(len(f"t{i}") for i in range(50))
    found = answers(engine, feed_of(3))
    assert len(found) == 3, "the stream may be called again"
    engine.stop()
    engine.stop()
    assert gone([pid]) == []
    with pytest.raises(EngineError, match="not been started, or was stopped"):
        next(engine.stream(feed_of(1)))


def test_the_other_process_finds_what_this_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, ""])
    engine = hosted(tmp_path)
    (pid,) = engine.start().pids
    assert psutil.Process(pid).environ()["PYTHONPATH"].split(os.pathsep) == [
        part or str(Path.cwd()) for part in sys.path
    ]
    engine.stop()


def test_the_other_process_has_the_devices_of_its_place_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    last = max(os.sched_getaffinity(0))
    engine = hosted(tmp_path, place=Place({"CUDA_VISIBLE_DEVICES": "GPU-b"}, (last,)))
    (pid,) = engine.start().pids
    process = psutil.Process(pid)
    assert process.environ()["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    assert process.cpu_affinity() == [last]
    engine.stop()


def test_each_of_several_engines_is_put_on_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0,GPU-ab,1")
    seen: list[Hosting] = []
    monkeypatch.setattr(making, "hosted", lambda here, hosting: (seen.append(hosting), here)[1])
    settings = EngineSettings(name="vllm", replicas="auto", args={"tensor_parallel_size": 2})

    def make(_model: str, _settings: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
        return make_engine("m", EngineSettings(name="scripted"), chat, log)

    maker = Maker("m", settings, ChatSettings(), tmp_path, make=make)
    for number in range(maker.settings.engines):
        maker(maker.settings, number)
    assert [hosting.place.environment for hosting in seen] == [
        {"CUDA_VISIBLE_DEVICES": "2,0"}, {"CUDA_VISIBLE_DEVICES": "GPU-ab,1"}
    ]  # fmt: skip


def test_what_is_given_up_gets_no_answer_and_the_engine_goes_on(tmp_path: Path) -> None:
    engine = hosted(tmp_path, rules=[{"when": {"index": [0, 1]}, "hang": True}])
    engine.start()
    feed = feed_of(2)
    next(engine.stream(feed))
    engine.abort()
    assert [request.key.index for request in feed.recall()] == [0, 1]
    feed = Feed()
    feed.push([Request(RequestKey(5), Prompt(text="x"), Sampling(), token_ids=[1])])
    feed.close()
    assert [outcome.key.index for outcome in answers(engine, feed)] == [5]
    engine.stop()


def test_what_was_answered_before_a_death_is_heard_and_not_asked_again(tmp_path: Path) -> None:
    engine = hosted(tmp_path, concurrency=8, rules=[{"when": {"index": 5}, "die": True}])
    engine.start()
    feed, seen = feed_of(20), list[int]()

    def listen() -> None:
        for outcomes in engine.stream(feed):
            time.sleep(0.2)  # so that the last answers and the death are there together
            seen.extend(feed.done(outcome.key).key.index for outcome in outcomes)

    with pytest.raises(EngineDied, match="died of row 5"):
        listen()
    assert seen == [0, 1, 2, 3, 4]
    assert len(feed.in_flight) + feed.waiting == 15
    engine.stop()


def test_an_engine_that_is_killed_while_idle_is_seen_to_be_dead(tmp_path: Path) -> None:
    engine = hosted(tmp_path)
    (pid,) = engine.start().pids
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineDied, match="was killed by SIGKILL"):
        answers(engine, feed_of(3))
    engine.stop()


def test_an_engine_that_stands_still_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.engines.elsewhere._LATE_SECONDS", 0.0)
    engine = hosted(tmp_path, timeout=2.0, latency=600)
    (pid,) = engine.start().pids
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EngineDied, match="no sign of life"):
        answers(engine, feed_of(1))
    engine.stop()
    assert gone([pid]) == []


def test_another_version_on_the_other_side_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.engines.hosted.__version__", "9.9")
    engine = hosted(tmp_path)
    with pytest.raises(JobError, match=r"the driver is llmbatch 9\.9, this engine's machine has"):
        engine.start()


def test_an_engine_that_is_kept_for_the_next_run_cannot_be_elsewhere(tmp_path: Path) -> None:
    settings = EngineSettings(name="scripted", hosted=True)
    with EngineKeeper() as keeper, pytest.raises(JobError, match="in this process"):
        keeper.make("m", settings, ChatSettings(), tmp_path / "log")


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_whatever_is_killed_whenever_the_results_are_the_same(jobs: Any, replicas: int) -> None:
    """Engines and the run itself, at moments that a seed gives: after so many more finished rows."""
    rng = random.Random(replicas)
    rows = jobs.rows(text_rows(260))
    script, run = {"rules": [RETRIED], "concurrency": 4}, {"window": 60, "commit_seconds": 0.01}
    for sessions in range(50):
        args = {"latency": 0.03 * replicas}
        job = jobs.data(
            rows, script, engine={"replicas": rng.choice([1, 2, replicas]), "hosted": True, "args": args}, run=run
        )
        process: subprocess.Popen[str] = jobs.start(job)
        for kill_run in (False, True):
            target = done(jobs) + rng.randrange(40, 70)  # what was in flight at one kill is answered before the next
            while process.poll() is None and done(jobs) < target:
                time.sleep(0.01)
            if process.poll() is None:
                kill(process.pid if kill_run else rng.choice(workers(process.pid) or [process.pid]))
        if process.wait() == 0:
            break
        assert sessions < 40, process.communicate()
    assert jobs.results() == plain(jobs, rows, run=run)
    assert sessions > 0


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def done(jobs: Any) -> int:
    """Rows with a record on disk."""
    parts = jobs.path / "out" / "parts"
    count = 0
    for path in [*parts.glob("*.journal"), *parts.glob("*.jsonl")] if parts.exists() else []:
        with contextlib.suppress(FileNotFoundError):  # sealed just now
            count += path.read_bytes().count(b'"index"')
    return count
