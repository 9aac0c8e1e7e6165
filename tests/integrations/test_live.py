"""Requests that come one by one, and one engine that answers all that are there."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import EngineError
from llmbatch.core.events import Event, Note
from llmbatch.core.types import Completion, FailureKind, Outcome, Prompt, Refusal, Request, RequestKey, Sampling
from llmbatch.engines.settings import EngineSettings
from llmbatch.integrations.live import LiveEngine
from llmbatch.model.tokenizer import ChatSettings

PLAIN = Sampling()
PATIENCE_SECONDS = 60


def make(tell: Any = lambda _: None, **settings: Any) -> LiveEngine:
    args = settings.pop("args", {})
    return LiveEngine("any", EngineSettings(name="scripted", args=args, **settings), ChatSettings(), tell)


def requests(*texts: str) -> list[Request]:
    return [Request(RequestKey(0), Prompt(text=text), PLAIN) for text in texts]


def texts(futures: list[Future[Outcome]]) -> list[str]:
    outcomes = [future.result(PATIENCE_SECONDS) for future in futures]
    return [outcome.text for outcome in outcomes if isinstance(outcome, Completion)]


def test_each_future_has_the_outcome_of_its_request() -> None:
    live = make()
    assert texts(live.ask(requests("a", "b")) + live.ask(requests("c"))) == ["a", "b", "c"]
    live.close()


def test_all_that_are_there_are_in_the_engine_at_a_time() -> None:
    live = make(args={"rules": [{"hang": True}]})
    for number in range(50):
        live.ask(requests(f"text {number}"))
    end = time.monotonic() + PATIENCE_SECONDS
    while len(live._feed.in_flight) < 50 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(live._feed.in_flight) == 50
    live.close()


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_death_of_an_engine_costs_no_request(tmp_path: Path, replicas: int) -> None:
    told: list[Event] = []
    script = tmp_path / "script.yaml"  # a script of its own, as deaths are counted by script
    script.write_text("{die_after: [3], latency: 0.01}")
    live = make(told.append, script=str(script), replicas=replicas)
    assert texts(live.ask(requests(*map(str, range(20))))) == list(map(str, range(20)))
    assert any(isinstance(event, Note) and "died" in event.message for event in told)
    live.close()


def test_engines_in_processes_of_their_own_answer_together() -> None:
    live = make(replicas=2, hosted=True, args={"latency": 0.01})
    assert texts(live.ask(requests(*map(str, range(40))))) == list(map(str, range(40)))
    assert live.info is not None and os.getpid() not in live.info.pids
    live.close()


def test_a_request_that_kills_the_engine_is_refused_and_the_others_are_answered() -> None:
    live = make(args={"rules": [{"when": {"contains": "poison"}, "die": True}]})
    futures = live.ask(requests("a", "poison", "b"))
    assert texts(futures) == ["a", "b"]
    outcome = futures[1].result(PATIENCE_SECONDS)
    assert isinstance(outcome, Refusal) and outcome.failure.kind is FailureKind.ENGINE_DIED
    live.close()


def test_an_engine_that_cannot_be_kept_alive_fails_those_that_wait_and_those_that_come() -> None:
    live = make(args={"rules": [{"die": True}]}, restarts=0)
    with pytest.raises(EngineError, match="died"):
        live.ask(requests("a"))[0].result(PATIENCE_SECONDS)
    with pytest.raises(EngineError, match="died"):
        live.ask(requests("b"))[0].result(PATIENCE_SECONDS)
    live.close()


def test_what_is_not_answered_when_it_is_closed_never_is() -> None:
    live = make(args={"rules": [{"hang": True}]})
    (future,) = live.ask(requests("a"))
    live.close()
    with pytest.raises(EngineError, match="closed"):
        future.result(PATIENCE_SECONDS)
    live.close()


def test_nobody_needs_to_wait_for_an_answer() -> None:
    live = make(args={"latency": 0.05})
    futures = live.ask(requests("a", "b"))
    futures[0].cancel()
    assert texts(futures[1:]) == ["b"]
    live.close()


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_nobody_wants_any_more_is_taken_back_in_flight_or_not(replicas: int) -> None:
    rules = [{"when": {"contains": "slow"}, "hang": True}]
    live = make(args={"rules": rules, "concurrency": 2}, replicas=replicas)
    slow = live.ask(requests(*(f"slow {number}" for number in range(6))))
    end = time.monotonic() + PATIENCE_SECONDS
    while live.info is None and time.monotonic() < end:
        time.sleep(0.01)
    wanted = live.ask(requests("a"))
    live.give_up(slow)
    assert texts(wanted) == ["a"], "there is room in the engine again"
    outcomes = [future.result(PATIENCE_SECONDS) for future in slow]
    assert {outcome.finish_reason for outcome in outcomes if isinstance(outcome, Completion)} == {"abort"}
    live.give_up(slow)
    assert texts(live.ask(requests("b"))) == ["b"]
    live.close()
