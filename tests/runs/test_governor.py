from __future__ import annotations

import heapq
import random
import threading
from typing import Any

import pytest

from llmbatch.accept.base import AcceptSettings, Fell, details_of_fall
from llmbatch.core.errors import TooFewAccepted
from llmbatch.core.types import Record, Status
from llmbatch.engines.supervised import Cancelled
from llmbatch.job.run_settings import RunSettings
from llmbatch.runs.governor import Governor

FALLEN = details_of_fall(Fell("no"))


def governor(rows: int, slots: int | None = 512, run: RunSettings | None = None, **settings: Any) -> Governor:
    return Governor(AcceptSettings(rows=rows, **settings), run or RunSettings(), lambda: slots)


def record(index: int, good: bool) -> Record:
    return Record(index, index, Status.OK, details=None if good else FALLEN)


def simulated(rows: int, share: float, seed: int, **settings: Any) -> tuple[float, float]:
    """(the excess of candidates, seconds that the run took beyond what the needed candidates take).

    On an engine that works on 256 at a time, whose answers take one second give or take four fifths.
    """
    concurrency, draw, times = 256, random.Random(seed), random.Random(-seed - 1)
    ours = governor(rows, 2 * concurrency, **settings)
    good: list[bool] = []
    waiting: list[int] = []
    running: list[tuple[float, int]] = []
    now = 0.0
    while True:
        while ours.decided.accepted < rows and (room := ours._room()) > 0:
            begun = range(len(good), len(good) + room)
            ours.begun(begun)
            good += [draw.random() < share for _ in begun]
            waiting = [*reversed(begun), *waiting]
        while len(running) < concurrency and waiting:
            heapq.heappush(running, (now + times.uniform(0.2, 1.8), waiting.pop()))
        if not running:
            break
        now, index = heapq.heappop(running)
        ours.finished(record(index, good[index]))
    decided = ours.decided
    assert decided.accepted == rows
    return decided.surplus / decided.candidates, now - decided.candidates / concurrency


def test_of_ten_thousand_from_a_source_that_passes_37_percent_less_than_one_percent_is_asked_in_vain() -> None:
    excess, tail = simulated(10_000, 0.37, seed=1)
    assert excess < 0.01
    assert tail < 5


@pytest.mark.parametrize(("rows", "share"), [(1, 0.5), (30, 0.9), (300, 0.37), (300, 0.05), (20, 0.01)])
def test_no_more_is_asked_in_vain_than_the_engine_has_in_hand(rows: int, share: float) -> None:
    for seed in range(5):
        excess, _ = simulated(rows, share, seed, give_up=None)
        assert excess * rows / share < 512


def test_with_less_confidence_less_is_asked_in_vain() -> None:
    excess = {c: sum(simulated(500, 0.37, seed, confidence=c)[0] for seed in range(5)) for c in (0.5, 0.9, 0.999)}
    assert excess[0.5] < excess[0.9] < excess[0.999]


def test_before_an_answer_came_no_more_rows_are_begun_than_are_needed_at_least() -> None:
    ours = governor(300)
    assert ours.room() == 300
    ours.begun(range(300))
    assert ours._room() == 0


def test_as_long_as_none_is_accepted_no_more_rows_are_begun_than_it_takes_to_give_up() -> None:
    ours = governor(10_000, give_up=50)
    assert ours.room() == 50
    ours.begun(range(50))
    for index in range(50):
        ours.finished(record(index, False))
    assert ours._room() == 0
    with pytest.raises(TooFewAccepted, match=r"none of 50 candidates .* 50 by no, as row 0"):
        ours.look()


def test_a_source_that_runs_dry_is_given_up_and_one_that_is_poor_all_along_is_not() -> None:
    dry, poor = governor(1000, give_up=100), governor(1000, give_up=100)
    for index in range(5000):
        for each, good in ((dry, index < 500), (poor, index % 90 == 0)):
            each.begun([index])
            each.finished(record(index, good))
            if index < 600 - 1 or each is poor:
                each.look()
    with pytest.raises(TooFewAccepted, match="none of the last 4,500 candidates"):
        dry.look()


def test_behind_a_row_that_takes_long_memory_is_bounded() -> None:
    ours = governor(100_000, run=RunSettings(window=10, windows_open=3))
    begun = 0
    while (room := ours._room()) > 0:
        ours.begun(range(begun, begun + room))
        for index in range(max(begun, 1), begun + room):
            ours.finished(record(index, True))
        begun += room
    assert begun <= 40
    ours.finished(record(0, True))
    assert ours._room() > 0


def test_rows_may_finish_in_any_order_and_are_decided_in_theirs() -> None:
    ours = governor(2)
    ours.begun(range(4))
    for index in (3, 2, 1):
        ours.finished(record(index, True))
    assert ours.decided.accepted == 0
    ours.finished(record(0, False))
    assert (ours.decided.accepted, ours.decided.candidates, ours.decided.surplus) == (2, 3, 1)
    assert ours.room() == 0


def test_a_reader_that_waits_is_woken_by_the_last_row_and_let_go_by_a_stop() -> None:
    ours = governor(5)
    ours.begun(range(5))
    found: list[Any] = []

    def wait() -> None:
        try:
            found.append(ours.room())
        except Cancelled:
            found.append("stopped")

    reader = threading.Thread(target=wait)
    reader.start()
    for index in range(5):
        ours.finished(record(index, index < 3))
    reader.join(timeout=60)
    assert found[0] > 0
    ours.begun(range(5, 7))
    reader = threading.Thread(target=wait)
    reader.start()
    ours.stop()
    reader.join(timeout=60)
    assert found[1:] == ["stopped"]
