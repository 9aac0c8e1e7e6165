"""Several scripted engines for one run: whole runs in which they die, are killed, are stopped and go on as another number."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import EngineError
from llmbatch.core.events import EngineReady, Event, Snapshot
from llmbatch.core.types import Outcome, Prompt, Request, RequestKey, Sampling
from llmbatch.engines.base import Driver
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.replicas import Replicas, drive
from llmbatch.engines.scripted.engine import ScriptedEngine
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.supervised import Cancelled, Supervised
from llmbatch.job.job import Job
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.runs.session import run_job

RETRIED = {"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}


def text_rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "text": f"text {i % 90}"} for i in range(count)]


def plain(jobs: Any, rows: Path, **sections: Any) -> bytes:
    """The results of one engine that does not die."""
    jobs.run(jobs.job(rows, {"rules": [RETRIED]}, output=str(jobs.path / "plain"), **sections))
    return bytes(jobs.results("plain"))


def statuses(jobs: Any) -> list[str]:
    return [record["status"] for record in jobs.records()]


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("window", [7, 1000])
def test_the_results_are_the_same_with_one_two_and_three_replicas(jobs: Any, replicas: int, window: int) -> None:
    rows = jobs.rows(text_rows(120))
    script = {"rules": [RETRIED], "concurrency": 8, "latency": 0.03, "jitter": 1.0}  # none is done before all are up
    result = jobs.run(jobs.job(rows, script, engine={"replicas": replicas}, run={"window": window}))
    assert result.report["sessions"][0]["engine_restarts"] == 0
    assert jobs.results() == plain(jobs, rows, run={"window": window})
    assert sum(isinstance(event, EngineReady) for event in jobs.events) == replicas + 1


@pytest.mark.parametrize("replicas", [2, 3])
def test_the_results_are_the_same_with_replicas_that_die(jobs: Any, replicas: int) -> None:
    """However their threads come to run, no row is there at three deaths of which it may be the reason."""
    rows = jobs.rows(text_rows(120))
    lost = {"when": {"index": [21, 51, 81]}, "die": "lost", "times": 3}
    script = {"rules": [lost, RETRIED], "die_after": [9, 60], "concurrency": 8, "latency": 0.001}
    result = jobs.run(jobs.job(rows, script, engine={"replicas": replicas}))
    assert result.report["sessions"][0]["engine_restarts"] == 5
    assert jobs.results() == plain(jobs, rows)


def test_a_death_costs_the_requests_of_one_replica(jobs: Any) -> None:
    script = {"die_after": [10], "concurrency": 4, "latency": 0.002}
    jobs.run(jobs.job(jobs.rows(text_rows(80)), script, engine={"replicas": 3}, plan={"fold": False}))
    (said,) = [note for note in jobs.notes() if "were in flight and go again" in note]
    assert int(said.rpartition(" requests were in flight")[0].rpartition(" ")[2]) <= 4


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_row_that_kills_whichever_has_it_is_found_and_all_others_finish(jobs: Any, replicas: int) -> None:
    script = {"rules": [{"when": {"index": 31}, "die": True}], "concurrency": 16, "latency": 0.001}
    jobs.run(jobs.job(jobs.rows(text_rows(60)), script, engine={"replicas": replicas}))
    assert statuses(jobs) == ["ok"] * 31 + ["failed"] + ["ok"] * 28
    assert jobs.records()[31]["error"]["kind"] == "engine_died"


def test_a_replica_that_cannot_come_back_is_left_out_and_the_others_finish(jobs: Any) -> None:
    rows = jobs.rows(text_rows(80))
    script = {"rules": [RETRIED], "die_after": [10], "starts": 3, "concurrency": 4, "latency": 0.002}
    result = jobs.run(jobs.job(rows, script, engine={"replicas": 3, "restarts": 0}))
    assert result.exit_code == 0
    assert any("is left out, and 2 replicas go on without it" in note for note in jobs.notes())
    assert jobs.results() == plain(jobs, rows)


def test_the_run_ends_when_no_replica_is_left_and_goes_on_with_the_same_command(jobs: Any) -> None:
    rows = jobs.rows(text_rows(80))
    script = {"rules": [RETRIED], "concurrency": 4, "latency": 0.002}
    dying = {"replicas": 2, "restarts": 0, "args": {"die_after": [10, 20], "starts": 2}}
    with pytest.raises(EngineError, match="died 1 times without an answer between"):
        jobs.run(jobs.job(rows, script, engine=dying))
    assert jobs.report()["rows"]["by_status"]["failed"] == 0
    assert jobs.run(jobs.job(rows, script, engine={"replicas": 2})).outcome == "finished"
    assert jobs.results() == plain(jobs, rows)


def test_no_replica_that_starts_ends_the_run_with_the_reason(jobs: Any) -> None:
    job = jobs.job(jobs.rows(text_rows(4)), {"out_of_memory_above": 0}, engine={"replicas": 2})
    with pytest.raises(EngineError, match="no memory"):
        jobs.run(job)


def test_whatever_breaks_in_a_replicas_thread_reaches_the_caller() -> None:
    class Broken:
        """An engine with a mistake in it."""

        def __getattr__(self, name: str) -> Any:
            raise ZeroDivisionError(name)

    broken: Any = Broken()
    driver = Replicas(lambda *_: broken, EngineSettings(name="scripted", replicas=2), lambda _: None)
    driver.need()
    with pytest.raises(ZeroDivisionError):
        list(driver.stream(Feed()))


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (2, 3)])
def test_a_killed_run_goes_on_with_another_number_of_replicas(jobs: Any, before: int, after: int) -> None:
    rows = jobs.rows(text_rows(120))
    script = {"rules": [RETRIED, {"when": {"index": 70}, "crash": True}], "concurrency": 4, "latency": 0.002}
    data = jobs.data(rows, script, engine={"replicas": before}, run={"window": 20, "commit_seconds": 0.01})
    code, _, said = jobs.finish(data)
    assert code == -signal.SIGKILL, said
    job = jobs.job(rows, script, engine={"replicas": after, "in_process": False}, run={"window": 20})
    assert jobs.run(job).outcome == "finished"
    assert [i for i, status in enumerate(statuses(jobs)) if status == "failed"] == [70]
    whole = plain(jobs, rows, run={"window": 20}).splitlines()
    assert [line for i, line in enumerate(jobs.results().splitlines()) if i != 70] == whole[:70] + whole[71:]


def test_a_run_that_is_stopped_gives_what_is_in_flight_up_and_goes_on_later(jobs: Any) -> None:
    rows = jobs.rows(text_rows(60))
    slow = {"when": {"index": 41}, "hang": True, "times": 1}
    script = {"rules": [slow, RETRIED], "concurrency": 4, "latency": 0.001}
    job = jobs.job(rows, script, engine={"replicas": 2}, run={"window": 10, "grace": 0.2}, plan={"fold": False})

    def stop(event: Event) -> None:
        if isinstance(event, Snapshot) and event.rows >= 50:
            signal.raise_signal(signal.SIGINT)

    assert jobs.run(job, stop).outcome == "stopped"
    assert jobs.run(job).outcome == "finished"
    assert jobs.results() == plain(jobs, rows, plan={"fold": False}, run={"window": 10})


def test_no_thread_is_left_after_a_run(jobs: Any) -> None:
    jobs.run(jobs.job(jobs.rows(text_rows(10)), engine={"replicas": 3}))
    assert not [thread for thread in threading.enumerate() if "replica" in thread.name]


def test_tuning_is_done_once_for_all_replicas(jobs: Any) -> None:
    slow = {"concurrency": 4, "latency": 0.002}
    result = jobs.run(jobs.job(jobs.rows(text_rows(20)), slow, engine={"replicas": 3}, run={"autotune": True}))
    assert result.report["engine"]["engines"] == 3
    assert sum(note.startswith("autotune: trying") for note in jobs.notes()) == 1


def test_the_tokens_of_all_replicas_together_are_those_of_the_run(jobs: Any) -> None:
    script = {"rules": [RETRIED], "die_after": [9, 60], "concurrency": 8, "latency": 0.001}
    (session,) = jobs.run(jobs.job(jobs.rows(text_rows(120)), script, engine={"replicas": 3})).report["sessions"]
    each = session["replicas"]
    assert len(each) == 3
    for name in ("prompt_tokens", "completion_tokens"):
        assert 0 < sum(replica["tokens"][name] for replica in each) == session["tokens"][name]
    assert sum(replica["deaths"] for replica in each) == session["engine_restarts"] == 2


# with engines that take a request by turns: who takes what depends on nothing else


class Turns:
    """Three engines' turns: it begins when all are up. ``took`` is (engine, index of the row) of each request."""

    def __init__(self) -> None:
        self.took: list[tuple[int, int]] = []
        self._here = [0, 1, 2]
        self._all_up = threading.Barrier(3)
        self._changed = threading.Condition()

    def begin(self) -> None:
        self._all_up.wait(60)

    def take(self, engine: int, take: Callable[[], list[Request]]) -> list[Request]:
        with self._changed:
            assert self._changed.wait_for(lambda: self._here[0] == engine, 60)
            taken = take()
            self.took += [(engine, request.key.index) for request in taken]
            self._here.append(self._here.pop(0))
            self._changed.notify_all()
        return taken

    def leave(self, engine: int) -> None:
        with self._changed:
            self._here.remove(engine)
            self._changed.notify_all()


def by_turns(jobs: Any, job: Job) -> list[tuple[int, int]]:
    """Who took what in a run of the job with three engines, each with one request at a time, in the order taken."""
    turns = Turns()

    class InTurn(ScriptedEngine):
        def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
            number, take = int(self._log.stem.removeprefix("engine-")), feed.take
            feed.take = lambda *room: turns.take(number, lambda: take(*room))  # type: ignore[method-assign]
            turns.begin()
            yield from super().stream(feed)
            turns.leave(number)

        def __init__(self, model: str, settings: EngineSettings, chat: ChatSettings, log: Path) -> None:
            super().__init__(model, settings, chat, log)
            self._log = log

    run_job(job, [jobs.events.append], make=InTurn)
    return turns.took


def test_rows_that_share_a_prefix_stay_with_one_replica_over_all_windows(jobs: Any) -> None:
    """A window has each of 24 documents four times, in each round of them by one place later."""
    documents = [(number + turn) % 24 for turn in range(12) for number in range(24)]
    rows = jobs.rows({"text": f"document {document} " * 9 + f"question {n}"} for n, document in enumerate(documents))
    shape = {"run": {"window": 96}, "plan": {"order": "input"}, "engine": {"replicas": 3}}
    took = by_turns(jobs, jobs.job(rows, {"concurrency": 1}, **shape))
    assert sorted(index for _, index in took) == list(range(288))
    homes = {document: {engine for engine, index in took if documents[index] == document} for document in documents}
    assert [len(engines) for engines in homes.values()] == [1] * 24
    assert [sum(engines == {n} for engines in homes.values()) for n in range(3)] == [8, 8, 8]


def test_the_longest_work_goes_first_whichever_replica_takes_it(jobs: Any) -> None:
    most = [20 * n for n in range(1, 16)]  # tokens of an answer: the longest are the last of the input
    rows = jobs.rows({"text": f"text {n}", "most": length} for n, length in enumerate(most))
    sampling = {"temperature": 0, "max_tokens": {"field": "most"}}
    took = by_turns(jobs, jobs.job(rows, {"concurrency": 1}, sampling=sampling, engine={"replicas": 3}))
    assert [most[index] for _, index in took] == sorted(most, reverse=True)
    assert Counter(engine for engine, _ in took) == {0: 5, 1: 5, 2: 5}


# without a run


def driver_of(tmp_path: Path, replicas: int, **args: Any) -> Driver:
    settings = EngineSettings(name="scripted", args=args, replicas=replicas)
    return drive(lambda s, _: make_engine("m", s, ChatSettings(), tmp_path / "log"), settings, lambda _: None)


def ask(index: int) -> Request:
    return Request(RequestKey(index), Prompt(text="x"), Sampling(), token_ids=[1])


def test_one_engine_needs_no_threads(tmp_path: Path) -> None:
    assert isinstance(driver_of(tmp_path, 1), Supervised)
    assert isinstance(driver_of(tmp_path, 2), Replicas)


@pytest.mark.parametrize("replicas", [1, 2])
def test_who_waits_for_an_engine_that_never_comes_is_told(tmp_path: Path, replicas: int) -> None:
    driver = driver_of(tmp_path, replicas)
    threading.Timer(0.05, driver.stop).start()
    with pytest.raises(Cancelled):
        driver.wait_ready()


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_what_follows_from_an_answer_is_answered_too(tmp_path: Path, replicas: int) -> None:
    """A replica may find the feed empty while the one who settles has an answer from which more follows."""
    driver, feed = driver_of(tmp_path, replicas), Feed()
    driver.need()
    feed.push([ask(0)])
    feed.close()
    seen: list[int] = []
    for outcomes in driver.stream(feed):
        for outcome in outcomes:
            seen.append(outcome.key.index)
            if outcome.key.index < 20:
                feed.push([ask(outcome.key.index + 1)], first=True)
    driver.stop()
    assert seen == list(range(21))
    assert driver.counts().completion_tokens == 21


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_stream_that_came_to_its_end_can_be_gone_on_with(tmp_path: Path, replicas: int) -> None:
    driver, feed = driver_of(tmp_path, replicas), Feed()
    driver.need()
    feed.close()
    for index in range(3):
        feed.push([ask(index)])
        assert [outcome.key.index for outcomes in driver.stream(feed) for outcome in outcomes] == [index]
    assert driver.deaths == 0
    driver.stop()


def test_a_request_is_answered_once_by_one_of_them(tmp_path: Path) -> None:
    driver, feed = driver_of(tmp_path, 3, concurrency=2), Feed()
    driver.need()
    feed.push(map(ask, range(500)))
    feed.close()

    def answers() -> Iterator[Outcome]:
        for outcomes in driver.stream(feed):
            yield from outcomes

    assert sorted(outcome.key.index for outcome in answers()) == list(range(500))
    assert not feed.in_flight
    assert feed.finished
    driver.stop()
