from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.errors import TooManyFailures
from llmbatch.core.events import Event, Note
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Failure, FailureKind, Record, Status, Usage
from llmbatch.job.run_settings import RunSettings
from llmbatch.runs.brakes import Brakes, Stop
from llmbatch.runs.budget import Budget, Gpus, Spent


def brakes(
    stop: Stop | None = None, told: list[Event] | None = None, before: Spent | None = None, **settings: Any
) -> Brakes:
    run = RunSettings(**settings)
    return Brakes(run, Budget(run, Gpus(1), before or Spent()), stop or Stop(), ([] if told is None else told).append)


def failing(rows: int, bad: int) -> Ledger:
    ledger = Ledger()
    for index in range(rows):
        failure = Failure(FailureKind.PROMPT, "no text") if index < bad else None
        ledger.add(Record(index, index, Status.FAILED if failure else Status.OK, failure=failure))
    return ledger


def test_too_many_failures_end_the_run_with_the_most_frequent_one_as_an_example() -> None:
    brakes(max_failures=2).look(failing(10, 2))
    with pytest.raises(TooManyFailures, match=r"3 of 10 rows failed.*prompt, as at row 0: no text"):
        brakes(max_failures=2).look(failing(10, 3))


def test_a_budget_that_is_used_up_asks_for_a_stop() -> None:
    stop = Stop()
    looked = brakes(stop, before=Spent(0, 60, 30), max_total_tokens=100)
    looked.spend(Usage(5, 4))
    assert looked.reason is None
    looked.spend(Usage(5, 5))
    assert stop.reason is not None
    assert stop.reason.startswith("max_total_tokens of 100 is spent")


def test_the_first_reason_to_stop_is_the_one_that_is_told() -> None:
    stop = Stop()
    stop.ask("first")
    stop.ask("second")
    assert (stop.reason, stop.asked) == ("first", False)


def test_what_is_in_flight_gets_its_grace_once_and_is_then_given_up() -> None:
    told: list[Event] = []
    calls: list[str] = []
    stop = Stop()
    stop.ask("enough")
    looked = brakes(stop, told, grace=0)
    assert not looked.halted
    for in_flight in (3, 3, 0):
        looked.wind_down(in_flight, lambda: calls.append("halt"), lambda: calls.append("give up"))
    assert calls == ["halt", "give up"]
    assert looked.halted
    assert told == [Note("info", "stopping (enough): 3 requests in flight get 0 s")]
