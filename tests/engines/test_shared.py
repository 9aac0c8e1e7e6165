"""Runs that share one scripted engine, side by side: each comes out as if it had the engine for itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import EngineError
from llmbatch.core.events import EngineReady, Event, Note, Sealed
from llmbatch.core.types import Outcome
from llmbatch.engines.feed import Feed
from llmbatch.engines.making import Maker
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.shared import SharedEngine
from llmbatch.job.job import Job
from llmbatch.job.run_settings import RunSettings
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.runs.brakes import Stop
from llmbatch.runs.session import RunResult, run_job

RETRIED = {"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}


def text_rows(count: int, name: str = "text") -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "text": f"{name} {i}"} for i in range(count)]


class Engines:
    """Shared engines of a test, ended with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[SharedEngine] = []
        self.events: list[Event] = []

    def of(self, settings: EngineSettings, idle: float | None = None) -> SharedEngine:
        make = Maker("any", settings, ChatSettings(), self._folder)
        self._made.append(SharedEngine(make, make.settings, self.events.append, idle))
        return self._made[-1]

    def close(self) -> None:
        for engine in self._made:
            engine.close()


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    made = Engines(tmp_path)
    yield made
    made.close()


def until(seen: Callable[[], bool]) -> None:
    for _ in range(6000):
        if seen():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that in a minute")


def side_by_side(shared: SharedEngine, jobs: Sequence[Job]) -> list[RunResult]:
    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(lambda job: run_job(job, driver=shared.share(job.output.name)), jobs))


def several(jobs: Any, script: Mapping[str, Any] | None, count: int, rows: int = 60, **sections: Any) -> list[Job]:
    """Jobs with an input and a folder of their own, on the same engine."""
    inputs = [jobs.rows(text_rows(rows, f"number {n}"), f"rows-{n}.jsonl") for n in range(count)]
    return [jobs.job(path, script, output=str(jobs.path / f"shared-{n}"), **sections) for n, path in enumerate(inputs)]


def alone(jobs: Any, job: Job, script: Mapping[str, Any] | None = None) -> bytes:
    """What the job comes to on an engine of its own, which has another script where one is given."""
    update: dict[str, Any] = {"output": job.output.with_name(f"{job.output.name}-alone")}
    if script is not None:
        update["engine"] = jobs.job(jobs.path / "rows-0.jsonl", script).engine
    run_job(job.model_copy(update=update))
    return bytes((job.output.with_name(f"{job.output.name}-alone") / "results.jsonl").read_bytes())


def results(job: Job) -> bytes:
    return (job.output / "results.jsonl").read_bytes()


@pytest.mark.parametrize("replicas", [1, 3])
def test_runs_side_by_side_come_to_the_same_bytes_as_alone(jobs: Any, engines: Engines, replicas: int) -> None:
    script = {"rules": [RETRIED], "latency": 0.002, "concurrency": 8}
    run = {"window": 16, "windows_open": 2}
    mine = several(jobs, script, 3, run=run, sampling={"n": 2, "temperature": 1, "seed": 3})
    done = side_by_side(engines.of(mine[0].engine.model_copy(update={"replicas": replicas})), mine)
    assert [result.exit_code for result in done] == [0, 0, 0]
    assert [results(job) for job in mine] == [alone(jobs, job) for job in mine]


def test_runs_on_an_engine_in_a_process_of_its_own_come_to_the_same_bytes(jobs: Any, engines: Engines) -> None:
    mine = several(jobs, {"rules": [RETRIED], "concurrency": 8, "latency": 0.001}, 2)
    side_by_side(engines.of(mine[0].engine.model_copy(update={"hosted": True})), mine)
    assert [results(job) for job in mine] == [alone(jobs, job) for job in mine]


def test_deaths_of_the_engine_cost_no_run_a_row(jobs: Any, engines: Engines) -> None:
    script = {"rules": [RETRIED], "die_after": [20, 50, 51, 90, 120], "latency": 0.002, "concurrency": 8}
    mine = several(jobs, script, 2)
    done = side_by_side(engines.of(mine[0].engine), mine)
    assert max(result.report["sessions"][0]["engine_restarts"] for result in done) == 5
    assert [results(job) for job in mine] == [alone(jobs, job, {"rules": [RETRIED]}) for job in mine]


def test_a_row_that_kills_the_engine_is_found_though_other_runs_have_one_of_the_same_index(
    jobs: Any, engines: Engines
) -> None:
    script = {"rules": [{"when": {"matches": "^number 1 33$"}, "die": True}], "concurrency": 8, "latency": 0.001}
    mine = several(jobs, script, 3)
    done = side_by_side(engines.of(mine[0].engine), mine)
    assert [result.report["rows"]["by_status"]["failed"] for result in done] == [0, 1, 0]
    assert b'"kind":"engine_died"' in results(mine[1]).splitlines()[33].replace(b": ", b":")


def test_a_run_that_is_stopped_costs_only_its_own_requests_and_goes_on_later(jobs: Any, engines: Engines) -> None:
    script = {"latency": 0.01, "concurrency": 4}
    mine = several(jobs, script, 2, rows=80, run={"window": 10, "grace": 0})
    shared, stop = engines.of(mine[0].engine), Stop()

    def watch(event: Event) -> None:
        if isinstance(event, Sealed):
            stop.ask("the test says so")

    with ThreadPoolExecutor(2) as pool:
        stopped = pool.submit(run_job, mine[0], [watch], stop=stop, driver=shared.share("stopped"))
        finished = pool.submit(run_job, mine[1], driver=shared.share("finished"))
    assert (stopped.result().outcome, finished.result().outcome) == ("stopped", "finished")
    assert run_job(mine[0], driver=shared.share("again")).outcome == "finished"
    assert [results(job) for job in mine] == [alone(jobs, job) for job in mine]


def test_what_a_run_had_in_flight_that_is_given_up_leaves_the_engine(jobs: Any, engines: Engines) -> None:
    hangs = {"rules": [{"when": {"contains": "number 0"}, "hang": True}], "concurrency": 4}
    hanging, other = several(jobs, hangs, 2, rows=20, run={"grace": 0})
    shared, stop = engines.of(hanging.engine), Stop()
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(run_job, hanging, stop=stop, driver=shared.share("hangs"))
        until(lambda: shared.in_flight == 4)
        assert shared.waiting == 16  # no more are taken than it has room for
        stop.ask("the test says so")
        assert stopped.result().outcome == "stopped"
    assert run_job(other, driver=shared.share("other")).outcome == "finished"
    assert shared.in_flight == 0


def test_an_idle_engine_is_ended_and_the_next_run_starts_it_again(jobs: Any, engines: Engines) -> None:
    first, second = several(jobs, {}, 2, rows=5)
    shared = engines.of(first.engine, idle=0.05)
    assert shared.state == "down"
    run_job(first, driver=shared.share("first"))
    until(lambda: shared.state == "down")
    run_job(second, driver=shared.share("second"))
    assert sum(isinstance(event, EngineReady) for event in engines.events) == 2
    assert [results(job) for job in (first, second)] == [alone(jobs, job) for job in (first, second)]


def test_a_run_whose_rows_are_all_done_starts_no_engine(jobs: Any, engines: Engines) -> None:
    (job,) = several(jobs, {}, 1, rows=5)
    run_job(job)
    shared = engines.of(job.engine)
    assert run_job(job, driver=shared.share("again")).outcome == "finished"
    assert shared.state == "down"
    assert engines.events == []


def test_where_the_engine_cannot_be_had_every_run_is_told_and_a_later_one_tries_anew(
    jobs: Any, engines: Engines
) -> None:
    script = {"die_after": [10], "starts": 1, "latency": 0.002, "concurrency": 4}
    mine = several(jobs, script, 2, rows=30, engine={"restarts": 0})
    shared = engines.of(mine[0].engine)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run_job, job, driver=shared.share(job.output.name)) for job in mine]
    for run, job in zip(runs, mine, strict=True):
        with pytest.raises(EngineError, match=rf"{job.output.name}: .*(died|starts) 1 times"):
            run.result()
    until(lambda: shared.state == "down")
    with pytest.raises(EngineError, match="starts 1 times and no more"):
        run_job(mine[0], driver=shared.share("later"))


def test_closing_it_ends_the_runs_that_are_there(jobs: Any, engines: Engines) -> None:
    (job,) = several(jobs, {"rules": [{"hang": True}]}, 1)
    shared = engines.of(job.engine)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_job, job, driver=shared.share("run"))
        until(lambda: shared.in_flight > 0)
        shared.close()
        with pytest.raises(EngineError, match="closed"):
            run.result()
    assert shared.state == "down"
    assert not [thread for thread in threading.enumerate() if thread.name == "llmbatch-shared-engine"]


def test_tokens_are_those_of_the_run_alone(jobs: Any, engines: Engines) -> None:
    mine = several(jobs, {"latency": 0.001}, 2, rows=40)
    done = side_by_side(engines.of(mine[0].engine), mine)
    for result in done:
        tokens, session = result.report["tokens"], result.report["sessions"][0]["tokens"]
        for name in ("prompt_tokens", "completion_tokens"):
            assert tokens["useful"][name] + tokens["wasted"][name] == session[name] > 0


def test_a_higher_priority_has_the_engine_first(jobs: Any, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first answer on, while it has more to ask than the engine takes at a time: all of it is asked at once."""
    low, high = several(jobs, {"latency": 0.02, "concurrency": 2}, 2, rows=4000, run={"window": 8})
    high = high.model_copy(update={"input": high.input.model_copy(update={"limit": 40}), "run": RunSettings(window=64)})
    shared, stop, answered = engines.of(low.engine), Stop(), []
    deal = shared._deal

    def seen(outcomes: Sequence[Outcome]) -> None:
        answered.extend(outcome.key.share for outcome in outcomes)
        deal(outcomes)

    monkeypatch.setattr(shared, "_deal", seen)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_job, low, driver=shared.share("low"), stop=stop)
        until(lambda: len(answered) > 2)
        of_low = answered[0]
        run_job(high, driver=shared.share("high", priority=1))
        stop.ask("the test has seen enough")
        assert first.result().outcome == "stopped"
    (of_high,) = {*answered} - {of_low}
    places = [place for place, share in enumerate(answered) if share == of_high]
    assert len(places) == 40
    assert answered[places[0] : places[37]].count(of_low) <= 2


@pytest.mark.parametrize("weight", [0, -1.0])
def test_a_share_has_a_weight_above_0(jobs: Any, engines: Engines, weight: float) -> None:
    (job,) = several(jobs, {}, 1, rows=1)
    with pytest.raises(ValueError, match="above 0"):
        engines.of(job.engine).share("run", weight)


def test_autotune_is_refused_on_a_shared_engine(jobs: Any, engines: Engines) -> None:
    (job,) = several(jobs, {}, 1, rows=1, run={"autotune": True})
    with pytest.raises(Exception, match=r"autotune.*shared"):
        run_job(job, driver=engines.of(job.engine).share("run"))


def test_a_death_is_told_to_whoever_keeps_the_engine(jobs: Any, engines: Engines) -> None:
    (job,) = several(jobs, {"die_after": [3], "concurrency": 2}, 1, rows=10)
    run_job(job, driver=engines.of(job.engine).share("run"))
    assert any("go again" in event.message for event in engines.events if isinstance(event, Note))


def test_a_feed_that_serves_no_engine_is_as_it_was() -> None:
    feed = Feed()
    assert not feed.hurries
    assert not feed.urgent
    assert feed.take_cancelled() == ()
