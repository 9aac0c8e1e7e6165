"""What runs batches of fixed rows, with batches that are played."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from llmbatch.core.errors import EngineDied
from llmbatch.core.types import Prompt, Request, RequestKey, Sampling, Score
from llmbatch.engines.transformers import plain
from llmbatch.engines.transformers.plain import Plain
from llmbatch.engines.transformers.running import Scored


def runner() -> Plain:
    loaded: Any = SimpleNamespace(encoder_decoder=False)
    return Plain(loaded, 4, lambda _error, seen: EngineDied(seen))


def ask(index: int) -> Request:
    return Request(RequestKey(index), Prompt(text="x"), Sampling(), token_ids=[1], target="y", target_ids=[2])


def test_what_comes_after_a_batch_that_was_long_in_giving_up_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_STOP_SECONDS", 0.01)
    running = runner()
    begun, release = threading.Event(), threading.Event()

    def run(batch: Any) -> None:
        if batch[0].key.index == 0:
            begun.set()
            release.wait(60)
        elif not running.giving_up:
            running.tell(Scored(batch[0], Score(0.0, True, 1)))

    monkeypatch.setattr(running, "_run", run)
    running.add([], [ask(0)])
    assert begun.wait(60)
    running.abort()
    release.set()
    running.add([], [ask(1)])
    assert [ended.request.key.index for ended in running.wait(60)] == [1]
    monkeypatch.setattr(plain, "_STOP_SECONDS", 60)
    running.stop()


def test_the_time_of_what_had_nothing_to_do_begins_as_it_gets_something(monkeypatch: pytest.MonkeyPatch) -> None:
    running = runner()
    release = threading.Event()
    monkeypatch.setattr(running, "_next", lambda: release.wait(60) and [])
    monkeypatch.setattr(running, "_run", lambda _batch: running._waiting.clear())
    running.progress_at = 0.0
    running.add([], [ask(0)])
    assert running.progress_at > 0
    release.set()
    running.stop()
