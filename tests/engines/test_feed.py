from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.feed import Feed

GREEDY = Sampling((("temperature", 0),))
MANY = 1 << 40


def ask(index: int, tokens: int = 1, partial: int = 0) -> Request:
    return Request(RequestKey(index), Prompt(text="x"), GREEDY, token_ids=[0] * tokens, partial=(0,) * partial)


def indexes(requests: list[Request]) -> list[int]:
    return [request.key.index for request in requests]


def filled(*requests: Request) -> Feed:
    feed = Feed()
    feed.push(requests)
    return feed


def test_requests_come_in_the_order_pushed_and_retries_before_them() -> None:
    feed = filled(ask(0), ask(1))
    feed.push([ask(2)], first=True)
    assert indexes(feed.take(9, MANY)) == [2, 0, 1]


def test_no_more_are_given_than_slots_and_tokens_allow() -> None:
    feed = filled(*(ask(i, tokens=10) for i in range(5)))
    assert indexes(feed.take(2, MANY)) == [0, 1]
    assert indexes(feed.take(9, 25)) == [2, 3]


def test_the_first_is_given_whatever_its_length() -> None:
    assert indexes(filled(ask(0, tokens=100), ask(1)).take(9, 5)) == [0]


def test_a_partial_answer_counts_as_tokens_too() -> None:
    assert indexes(filled(ask(0), ask(1, partial=10)).take(9, 5)) == [0]


def test_nothing_is_given_without_a_slot() -> None:
    assert filled(ask(0)).take(0, MANY) == []


def test_what_was_taken_is_in_flight_until_it_is_done() -> None:
    feed = filled(ask(0), ask(1))
    feed.take(2, MANY)
    feed.done(RequestKey(0))
    assert list(feed.in_flight) == [RequestKey(1)]
    with pytest.raises(KeyError):
        feed.done(RequestKey(0))


def test_what_is_in_flight_can_be_taken_back_in_the_order_taken() -> None:
    feed = filled(ask(3), ask(1), ask(2))
    feed.take(3, MANY)
    assert indexes(feed.recall()) == [3, 1, 2]
    assert not feed.in_flight


def test_a_group_runs_whole_and_with_nothing_else_in_flight() -> None:
    feed = filled(ask(0), ask(9))
    feed.take(1, MANY)
    feed.push_alone([ask(1), ask(2), ask(3)])
    assert feed.take(2, MANY) == []
    feed.done(RequestKey(0))
    assert indexes(feed.take(2, 1)) == [1, 2, 3]
    assert feed.take(9, MANY) == [], "the group is still in flight"
    feed.recall()
    assert indexes(feed.take(9, MANY)) == [9]


def test_the_last_group_pushed_comes_first() -> None:
    feed = Feed()
    feed.push_alone([ask(1)])
    feed.push_alone([ask(2)])
    assert indexes(feed.take(1, MANY)) == [2]


def test_it_is_finished_when_it_is_closed_and_all_is_answered() -> None:
    feed = filled(ask(0))
    feed.close()
    assert not feed.finished
    feed.take(1, MANY)
    assert not feed.finished
    feed.done(RequestKey(0))
    assert feed.finished


def test_groups_that_wait_keep_it_from_being_finished() -> None:
    feed = Feed()
    feed.push_alone([ask(0)])
    feed.close()
    assert not feed.finished


def test_a_halted_feed_gives_nothing_more_and_is_finished_when_nothing_is_in_flight() -> None:
    feed = filled(ask(0), ask(1))
    feed.take(1, MANY)
    feed.push_alone([ask(2)])
    feed.halt()
    assert feed.take(9, MANY) == []
    assert not feed.finished
    feed.done(RequestKey(0))
    assert feed.finished
    assert feed.halted


@pytest.mark.parametrize("end", ["push", "push_alone", "close", "halt"])
def test_whatever_there_is_to_do_ends_the_wait(end: str) -> None:
    feed = Feed()
    actions: dict[str, Any] = {
        "push": lambda: feed.push([ask(0)]),
        "push_alone": lambda: feed.push_alone([ask(0)]),
        "close": feed.close,
        "halt": feed.halt,
    }
    timer = threading.Timer(0.05, actions[end])
    began = time.monotonic()
    timer.start()
    feed.wait(600)
    assert feed.waiting or feed.finished, "it did not end before there was something to do"
    assert time.monotonic() - began < 300
    timer.join()


def test_who_is_woken_waits_no_longer_and_waits_again_the_next_time() -> None:
    feed = Feed()
    feed.wake()
    began = time.monotonic()
    feed.wait(600)
    assert time.monotonic() - began < 300
    began = time.monotonic()
    feed.wait(0.2)
    assert time.monotonic() - began > 0.1


@given(
    st.lists(st.tuples(st.sampled_from(["push", "first", "take", "done", "recall"]), st.integers(1, 4)), max_size=60)
)
def test_no_request_is_lost_or_given_twice_whatever_is_done(steps: list[tuple[str, int]]) -> None:
    feed, made, answered = Feed(), 0, []
    for step, count in steps:
        if step in {"push", "first"}:
            feed.push([ask(made + i) for i in range(count)], first=step == "first")
            made += count
        elif step == "take":
            feed.take(count, MANY)
        elif step == "done" and feed.in_flight:
            answered.append(feed.done(next(iter(feed.in_flight))).key.index)
        elif step == "recall":
            feed.push(feed.recall(), first=True)
    waiting = indexes(feed.take(10_000, MANY))
    assert sorted(answered + [key.index for key in feed.in_flight]) == list(range(made))
    assert set(waiting) <= {key.index for key in feed.in_flight}
