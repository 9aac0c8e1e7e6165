"""The end by interval: the same rows count, in whatever order their records come and however the run was cut into sessions."""

from __future__ import annotations

import random

import pytest

from llmbatch.core.types import Record, Status
from llmbatch.engines.supervised import Cancelled
from llmbatch.evals.base import Example, make_metrics
from llmbatch.evals.sequential import sequence_for
from llmbatch.evals.until import Until, UntilNarrow, decided
from llmbatch.job.run_settings import RunSettings

(METRIC,) = make_metrics(["exact_match"])


def until(half: float = 0.1, largest: int = 1) -> Until:
    return Until(METRIC, sequence_for(METRIC, half, largest_cluster=largest))


def example(index: int, cluster: bool = False) -> Example:
    right = random.Random(index).random() < 0.8
    return Example(index, {}, ["yes"], ["yes" if right else "no"], cluster=str(index // 3) if cluster else None)


def paced(one: Until, slots: int, window: int = 64) -> UntilNarrow:
    return UntilNarrow(one, lambda record: example(record.index), RunSettings(window=window), lambda: slots)


def run(pacing: UntilNarrow, order: random.Random, start: int = 0) -> int:
    """Rows are begun as there is room for them, and finish in a random order; returns how many were begun."""
    begun, open_rows = start, []
    while (room := 0 if pacing._until.narrow else pacing._room()) or open_rows:
        pacing.begun(range(begun, begun + room))
        open_rows += range(begun, begun + room)
        begun += room
        order.shuffle(open_rows)
        for _ in range(order.randint(1, len(open_rows))):
            pacing.finished(Record(open_rows.pop(), "r", Status.OK))
    return begun


def test_the_same_rows_count_in_whatever_order_they_finish() -> None:
    whole = until()
    counted = len(list(decided(whole, map(example, range(10_000)))))
    assert whole.narrow and 50 < counted < 2000
    for seed in range(6):
        one = until()
        begun = run(paced(one, slots=1 + 13 * seed), random.Random(seed))
        assert (one.rows, one.sequence.interval) == (counted, whole.sequence.interval)
        assert counted <= begun <= counted + 10 * (1 + 13 * seed)


def test_what_earlier_sessions_left_counts_first() -> None:
    counted = len(list(decided(until(), map(example, range(10_000)))))
    one = until()
    pacing = paced(one, slots=8)
    pacing.sealed(Record(index, "r", Status.OK) for index in range(40))
    run(pacing, random.Random(1), start=40)
    assert one.rows == counted


def test_rows_of_a_cluster_count_as_a_whole() -> None:
    one = until(0.2, largest=3)
    counted = [each.id for each in decided(one, (example(index, cluster=True) for index in range(9000)))]
    assert one.narrow
    assert counted == list(range(len(counted)))
    assert len(counted) % 3 == 0 and one.rows == len(counted)


def test_without_a_narrow_interval_all_rows_count() -> None:
    one = until(0.01)
    assert len(list(decided(one, (example(index, cluster=False) for index in range(30))))) == 30
    assert (one.narrow, one.rows) == (False, 30)


def test_no_more_is_begun_than_keeps_the_engine_busy_and_none_once_it_is_narrow_or_stopped() -> None:
    one = until()
    pacing = paced(one, slots=10)
    assert pacing.room() == 20
    pacing.begun(range(20))
    assert pacing._room() == 0
    for index in range(10):
        pacing.finished(Record(index, "r", Status.OK))
    assert pacing.room() == 10
    pacing.stop()
    with pytest.raises(Cancelled):
        pacing.room()
    done = until(0.4)
    for index in range(300):
        done.take(example(index))
    assert paced(done, slots=10).room() == 0
