"""The level that is found for a server: growth, push-backs, and what does not move it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import pytest

from llmbatch.engines.http.limit import Limit


def drive(limit: Limit, seconds_for: Callable[[int], float], answers: int, most: int | None = None) -> list[int]:
    """A server that takes a request so many seconds, by how many it has; above ``most`` it pushes back. The levels, over time."""
    now, levels, number = 0.0, [], itertools.count()
    running: list[tuple[float, int, float, bool]] = []
    while len(levels) < answers:
        while len(running) < limit.now:
            refused = most is not None and len(running) >= most
            seconds = 0.01 if refused else seconds_for(len(running) + 1)
            heapq.heappush(running, (now + seconds, next(number), now, refused))
        now, _, sent_at, refused = heapq.heappop(running)
        if refused:
            limit.pushed_back(sent_at, now)
        else:
            limit.answered(sent_at, now)
        levels.append(limit.now)
    return levels


def slots(count: int) -> Callable[[int], float]:
    """A server that works on so many at a time, a second each; the others wait."""
    return lambda in_flight: max(1.0, in_flight / count)


@pytest.mark.parametrize("count", [8, 100, 300, 1000])
def test_it_grows_until_the_server_gets_no_faster(count: int) -> None:
    levels = drive(Limit(), slots(count), 40_000)
    assert count <= levels[-1] <= max(80, 3 * count)


def test_of_more_than_is_of_use_it_tries_no_more_than_twice_as_many() -> None:
    assert max(drive(Limit(), slots(100), 40_000)) <= 256


def test_it_is_there_after_a_few_rounds() -> None:
    levels = drive(Limit(), slots(256), 2000)
    assert next(i for i, level in enumerate(levels) if level >= 256) < 400


def test_a_server_that_gets_slower_with_too_many_is_given_fewer() -> None:
    levels = drive(Limit(), lambda n: max(1.0, n / 100) * (1 + max(0, n - 200) / 200), 40_000)
    assert 64 <= levels[-1] <= 200


@pytest.mark.parametrize("most", [3, 40, 200])
def test_it_stays_near_where_the_server_pushes_back(most: int) -> None:
    levels = drive(Limit(), lambda _: 1.0, 30_000, most)
    tail = levels[10_000:]
    assert 0.75 * most <= sum(tail) / len(tail) <= 1.3 * most + 1


def test_of_all_that_was_sent_before_a_push_back_only_the_first_counts() -> None:
    limit = Limit(start=100)
    for at in (1.0, 1.1, 1.2):
        limit.pushed_back(0.5, at)
    assert limit.now == 70
    limit.pushed_back(1.05, 2.0)
    assert limit.now == 49


def test_after_an_outage_it_comes_back_within_a_few_rounds() -> None:
    limit = Limit(start=256)
    for second in range(1, 40):
        limit.pushed_back(float(second), second + 0.5)
    assert limit.now == 1
    levels = drive(limit, lambda _: 1.0, 1000)
    assert next(i for i, level in enumerate(levels) if level >= 170) < 400


def test_an_answer_while_fewer_are_in_flight_than_may_be_moves_nothing() -> None:
    limit = Limit(start=10)
    for second in range(1, 200):
        limit.answered(second - 1.0, float(second), full=False)
    assert limit.now == 10


def test_a_fixed_level_stays() -> None:
    limit = Limit(7)
    limit.pushed_back(1.0, 2.0)
    assert {*drive(limit, slots(100), 500), limit.now} == {7}


def test_one_that_asks_stays_until_it_is_permitted_and_goes_back_where_that_is_no_faster() -> None:
    limit = Limit(start=10, asks=True)
    drive(limit, slots(100), 50)
    assert (limit.now, limit.wanted) == (10, 20)
    limit.permit(True)
    assert (limit.now, limit.wanted) == (20, None)
    drive(limit, slots(10), 100)
    assert limit.now == 10


def test_one_that_is_not_permitted_asks_again_only_after_a_while_and_for_a_little_more() -> None:
    limit = Limit(start=40, asks=True)
    drive(limit, slots(40), 50)
    limit.permit(False)
    assert limit.now == 40
    levels = drive(limit, slots(40), 200)
    assert {*levels, limit.wanted} == {40, None}
    drive(limit, slots(40), 400)
    assert (limit.now, limit.wanted) == (40, 50)


def test_a_push_back_ends_the_wish_for_more() -> None:
    limit = Limit(start=10, asks=True)
    drive(limit, slots(100), 50)
    limit.pushed_back(50.0, 51.0)
    limit.permit(True)
    assert (limit.now, limit.wanted) == (7, None)
