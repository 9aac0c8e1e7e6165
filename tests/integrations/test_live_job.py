"""Rows of a job that come one by one, on an engine that answers other rows already."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.events import EngineReady, Event
from llmbatch.core.types import Record, Status
from llmbatch.integrations.live import LiveEngine
from llmbatch.integrations.live_job import Gone, Inbox, LiveJob
from llmbatch.job.job import Job, job_from
from llmbatch.job.swept import recipe_of

PATIENCE_SECONDS = 60


def job(**sections: Any) -> Job:
    base = {
        "model": "any", "prompt": "{{ text }}", "engine": {"name": "scripted"}, "sampling": {"temperature": 0},
        "input": {"path": "rows", "format": "jsonl"}, "output": "run",
    }  # fmt: skip
    return job_from({**base, **sections})


def make(given: Job, told: list[Event] | None = None) -> tuple[LiveJob, LiveEngine]:
    live = LiveEngine(given.model_path, given.engine, given.chat, (told if told is not None else []).append)
    return LiveJob(given, recipe_of(given), live), live


def rows(*texts: str) -> list[dict[str, Any]]:
    return [{"text": text} for text in texts]


def outputs(found: tuple[list[Record], int]) -> list[Any]:
    return [record.output for record in found[0]]


def test_records_come_in_the_order_of_their_rows() -> None:
    live_job, live = make(job())
    assert outputs(live_job.records(rows("a", "b", "a"))) == ["a", "b", "a"]
    assert live_job.records([]) == ([], 0)
    live.close()


def test_a_row_that_cannot_be_asked_about_has_its_record_beside_the_others() -> None:
    live_job, live = make(job())
    found, _ = live_job.records([{"text": "a"}, {"other": "b"}, {"text": "c"}])
    assert [record.status for record in found] == [Status.OK, Status.FAILED, Status.OK]
    live.close()


def test_an_answer_that_does_not_pass_is_tried_again_as_in_a_run() -> None:
    rules = [{"when": {"attempt": 1}, "answer": "neither"}, {"answer": "yes"}]
    live_job, live = make(job(engine={"name": "scripted", "args": {"rules": rules}}, answer={"choice": ["yes", "no"]}))
    ((found,), _) = live_job.records(rows("is it?"))
    assert (found.output, found.attempts) == ("yes", 2)
    live.close()


def test_callers_in_several_threads_each_get_their_own_answers() -> None:
    live_job, live = make(job(engine={"name": "scripted", "args": {"latency": 0.001}}))
    found: dict[int, list[Any]] = {}

    def ask(number: int) -> None:
        found[number] = outputs(live_job.records(rows(*(f"{number} {each % 50}" for each in range(200)))))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [f"{number} {each % 50}" for each in range(200)] for number in range(4)}
    live.close()


def test_equal_requests_are_asked_once() -> None:
    live_job, live = make(job())
    live_job.records(rows(*["same"] * 20))
    live_job.records(rows("same"))
    assert live._driver.counts().completion_tokens == len(b"same")
    live.close()


def test_answers_that_the_cache_has_need_no_engine(tmp_path: Path) -> None:
    told: list[Event] = []
    cached = job(reuse={"cache": str(tmp_path / "answers.cache")})
    first, live = make(cached, told)
    assert outputs(first.records(rows("a", "b"))) == ["a", "b"]
    first.close()
    live.close()
    again, live = make(cached, told)
    found = again.records(rows("b", "a"))
    assert (outputs(found), found[1]) == (["b", "a"], 2)
    assert sum(isinstance(event, EngineReady) for event in told) == 1
    assert outputs(again.records(rows("a", "c"))) == ["a", "c"]
    assert sum(isinstance(event, EngineReady) for event in told) == 2
    again.close()
    live.close()


def test_an_engine_that_cannot_start_is_an_error_for_everybody_who_waits(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"  # a script of its own, as deaths are counted by script
    script.write_text('{"rules": [{"die": true}]}')
    live_job, live = make(job(engine={"name": "scripted", "script": str(script), "restarts": 0}))
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            live_job.records(rows("a"))
        except EngineError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    live.close()


def test_an_engine_that_does_not_come_up_ends_the_wait_for_it(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text('{"out_of_memory_above": 0}')
    given = job(engine={"name": "scripted", "script": str(script)})
    live = LiveEngine(given.model_path, given.engine, given.chat, lambda _: None)
    with pytest.raises(EngineError):
        live.ready()
    with pytest.raises(EngineError):
        live.ready()
    live.close()


@pytest.mark.parametrize(
    "section", [{"accept": {"rows": 3}}, {"sweep": {"sampling": {"temperature": [0, 1]}}}], ids=["accept", "sweep"]
)
def test_a_job_whose_rows_have_not_one_record_each_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="one record each"):
        make(job(**section))


def test_a_caller_who_goes_takes_back_what_nobody_else_waits_for() -> None:
    live_job, live = make(job(engine={"name": "scripted", "args": {"rules": [{"hang": True}]}}))
    inboxes: list[Inbox] = [SimpleQueue(), SimpleQueue()]
    gone: dict[int, int] = {}

    def ask(number: int) -> None:
        try:
            live_job.records(rows("both", f"of {number} alone"), inboxes[number])
        except Gone as error:
            gone[number] = error.given_up

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    end = time.monotonic() + PATIENCE_SECONDS
    for number, thread in enumerate(threads):
        thread.start()
        while len(live._feed.in_flight) < 2 + number and time.monotonic() < end:
            time.sleep(0.01)
    for inbox, thread in zip(inboxes, threads, strict=True):
        inbox.put(Gone())
        thread.join(PATIENCE_SECONDS)
    assert gone == {0: 1, 1: 2}, "the first one's request is what the other one waits for too"
    while live._feed.in_flight and time.monotonic() < end:
        time.sleep(0.01)
    assert not live._feed.in_flight and not live_job._inboxes
    live.close()


def test_a_row_that_asks_what_a_row_asked_whose_engine_is_gone_is_refused_as_that_was(tmp_path: Path) -> None:
    cached = job(reuse={"cache": str(tmp_path / "answers.cache")})
    live_job, live = make(cached)
    live_job.records(rows("a"))
    live_job.close()
    live.close()
    live_job, live = make(
        cached
    )  # the cache knows how much the model takes, so that a row is asked before an engine is there
    live.close()
    inbox: Inbox = SimpleQueue()
    inbox.put(Gone())  # what it would come to else, as nothing comes of what it waits for
    for _ in range(2):
        with pytest.raises(EngineError, match="closed"):
            live_job.records(rows("b"), inbox)
    assert outputs(live_job.records([])) == []
    live_job.close()


def test_what_goes_wrong_as_an_answer_is_kept_is_told_to_whoever_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_job, live = make(job(reuse={"cache": str(tmp_path / "answers.cache")}))
    told: list[BaseException] = []

    def fail(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    def ask() -> None:
        try:
            live_job.records(rows("a"))
        except RuntimeError as error:
            told.append(error)

    monkeypatch.setattr(live_job._reuse, "keep", fail)
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert list(map(str, told)) == ["can't start new thread"]
    live_job.close()
    live.close()


def test_an_answer_that_was_taken_back_is_not_taken_for_one_by_whoever_asks_the_same(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text('{"rules": [{"when": {"index": 0}, "hang": true}]}')
    engine = {"name": "scripted", "script": str(script)}
    cached = job(engine=engine, reuse={"cache": str(tmp_path / "answers.cache")})
    live_job, live = make(cached)
    inbox: Inbox = SimpleQueue()
    inbox.put(Gone())
    with pytest.raises(Gone):
        live_job.records(rows("a"), inbox)
    assert outputs(live_job.records(rows("a"))) == ["a"]
    live_job.close()
    live.close()
