from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from llmbatch.runs.brakes import Stop
from llmbatch.runs.process import calm_collector, stopped_by_signals

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def engine(starting: bool = False) -> Any:
    return SimpleNamespace(starting=starting)


@pytest.mark.usefixtures("thresholds")
@pytest.mark.parametrize("before", [(700, 10, 10), (0, 10, 10)])
def test_the_collector_is_calm_meanwhile_and_as_before_afterwards(before: tuple[int, int, int]) -> None:
    gc.set_threshold(*before)
    with calm_collector():
        assert gc.get_threshold()[0] == (2_000_000 if before[0] else 0), "one that is off stays off"
    assert gc.get_threshold() == before


@pytest.mark.usefixtures("thresholds")
def test_the_collector_is_calm_until_the_last_of_several_runs_ends() -> None:
    gc.set_threshold(700, 10, 10)
    first, second = calm_collector(), calm_collector()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] == 2_000_000
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_asks_to_stop_and_a_second_one_ends_at_once(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in BOTH]
    stop = Stop()
    with stopped_by_signals(stop, engine()):
        signal.raise_signal(number)
        assert (stop.asked, stop.reason) == (True, number.name)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(each) for each in BOTH] == before


def test_a_signal_while_the_engine_starts_ends_at_once() -> None:
    stop = Stop()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stopped_by_signals(stop, engine(starting=True)):
        signal.raise_signal(signal.SIGTERM)
    assert stop.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before, "the error goes through"


def test_a_thread_that_is_not_the_main_one_leaves_the_handlers_alone() -> None:
    before, seen = [signal.getsignal(each) for each in BOTH], []

    def look() -> None:
        with stopped_by_signals(Stop(), engine()):
            seen.extend(signal.getsignal(each) for each in BOTH)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == before
