from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.base import EngineInfo
from llmbatch.job.prepare import Prepared, Preparer
from llmbatch.runs.follow_up import FollowUp

INFO = EngineInfo("scripted", "0", "any", context_length=100, max_num_seqs=4)


class Recorded:
    """Stands for a preparer: notes in which thread it is asked, and for how many requests."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, int]] = []
        self.error = error

    def following(self, requests: Sequence[Request], context_length: int | None) -> Prepared:
        self.calls.append((threading.current_thread().name, len(requests)))
        if self.error is not None:
            raise self.error
        return Prepared(list(requests), [])


def request(index: int, characters: int = 10) -> Request:
    return Request(RequestKey(index), Prompt(text="x" * characters), Sampling())


def follow_up(prepare: Recorded, ready: Any = lambda: None) -> FollowUp:
    return FollowUp(prepare, ready)  # type: ignore[arg-type]


def test_what_follows_a_whole_step_is_prepared_together_and_at_once() -> None:
    prepare = Recorded()
    following = follow_up(prepare)
    for index in range(5):
        following.add([request(index)])
    assert following.pending
    prepared = following.prepared(INFO)
    assert prepared is not None
    assert [r.key.index for r in prepared.ready] == [0, 1, 2, 3, 4]
    assert prepare.calls == [(threading.current_thread().name, 5)]
    assert not following.pending
    assert following.prepared(INFO) is None


def test_nothing_is_prepared_before_it_is_known_what_fits() -> None:
    following = follow_up(Recorded())
    following.add([request(0)])
    assert following.prepared(None) is None
    assert following.pending


def test_much_text_is_prepared_in_a_thread_of_its_own_which_says_when_it_is_done() -> None:
    prepare, done = Recorded(), threading.Event()
    following = follow_up(prepare, done.set)
    following.add([request(0, 300_000)])
    assert following.prepared(INFO) is None
    following.add([request(1)])  # what comes meanwhile waits
    assert done.wait(60)
    prepared = following.prepared(INFO)
    assert prepared is not None
    assert [r.key.index for r in prepared.ready] == [0]
    assert prepare.calls[0][0] != threading.current_thread().name
    assert following.pending
    assert following.prepared(INFO) is not None
    following.close()


def test_an_error_of_that_thread_reaches_whoever_takes_from_it() -> None:
    following = follow_up(Recorded(ValueError("broken")))
    following.add([request(0, 300_000)])
    assert following.prepared(INFO) is None
    following.wait()
    with pytest.raises(ValueError, match="broken"):
        following.prepared(INFO)
    following.close()


@pytest.mark.parametrize("nth", [1, 3])
def test_a_kill_while_what_follows_is_tokenized_aside_loses_and_changes_no_row(
    jobs: Any,
    ten: Path,
    nth: int,
    kill_at: Callable[[str, Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmbatch.runs.follow_up._MUCH", 0)
    rules = {"rules": [{"when": {"attempt": [1, 2]}, "answer": ""}], "concurrency": 2}
    calls, following = itertools.count(1), Preparer.following

    def killed(self: Preparer, requests: Sequence[Request], context_length: int | None) -> Prepared:
        assert threading.current_thread().name.startswith("llmbatch-follow-up")
        prepared = following(self, requests, context_length)
        if next(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return prepared

    def run() -> None:
        monkeypatch.setattr(Preparer, "following", killed)
        jobs.run(jobs.job(ten, rules, run={"window": 4}))

    kill_at("", run)
    assert jobs.run(jobs.job(ten, rules, run={"window": 4})).outcome == "finished"
    jobs.run(jobs.job(ten, rules, run={"window": 4}, output=str(jobs.path / "whole")))
    assert jobs.results() == jobs.results("whole")
    assert [record["attempts"] for record in jobs.records()] == [3] * 10
