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


# forks


def test_forks_share_a_queue_and_have_their_own_in_flight() -> None:
    feed = filled(ask(0), ask(1), ask(2))
    one, other = feed.fork(), feed.fork()
    assert indexes(one.take(2, MANY)) == [0, 1]
    assert indexes(other.take(2, MANY)) == [2]
    assert {key.index for key in one.in_flight} == {0, 1}
    assert {key.index for key in feed.in_flight} == {0, 1, 2}, "the feed itself knows of all"
    assert indexes(other.recall()) == [2]
    assert {key.index for key in feed.in_flight} == {0, 1}
    with pytest.raises(KeyError):
        other.done(RequestKey(0))


def test_a_group_is_for_the_fork_that_it_was_given_to_and_the_others_go_on() -> None:
    feed = filled(ask(0), ask(9))
    one, other = feed.fork(), feed.fork()
    one.push_alone([ask(1), ask(2)])
    assert indexes(other.take(1, MANY)) == [0]
    assert indexes(one.take(9, MANY)) == [1, 2]
    assert one.take(9, MANY) == []
    assert indexes(other.take(9, MANY)) == [9]


def test_a_fork_is_finished_only_when_nothing_can_come_back_from_another() -> None:
    feed = filled(ask(0))
    one, other = feed.fork(), feed.fork()
    feed.close()
    one.take(1, MANY)
    assert not other.finished, "the other's engine may die"
    one.done(RequestKey(0))
    assert not other.finished, "more may follow from the answer"
    feed.push([ask(1)], first=True)
    feed.settled(1)
    assert indexes(other.take(1, MANY)) == [1]
    other.done(RequestKey(1))
    feed.settled(1)
    assert one.finished
    assert other.finished
    assert feed.finished


def test_a_fork_waits_while_another_works_and_no_longer() -> None:
    feed = filled(ask(0))
    one, other = feed.fork(), feed.fork()
    feed.close()
    one.take(1, MANY)
    began = time.monotonic()
    other.wait(0.2)
    assert time.monotonic() - began > 0.1
    one.done(RequestKey(0))
    timer = threading.Timer(0.05, lambda: feed.settled(1))
    timer.start()
    other.wait(600)
    assert other.finished
    timer.join()


def test_what_a_fork_that_leaves_had_goes_to_the_others_first() -> None:
    feed = filled(ask(0), ask(1), ask(2))
    one, other = feed.fork(), feed.fork()
    one.take(2, MANY)
    one.push_alone([ask(7)])
    one.leave()
    assert indexes(other.take(9, MANY)) == [0, 1, 7, 2]
    assert {key.index for key in feed.in_flight} == {0, 1, 2, 7}


def test_a_halted_fork_is_finished_when_it_has_nothing_in_flight_itself() -> None:
    feed = filled(ask(0), ask(1))
    one, other = feed.fork(), feed.fork()
    one.take(1, MANY)
    feed.halt()
    assert other.finished
    assert not one.finished
    assert not feed.finished


def test_who_drives_forks_sleeps_until_it_is_woken_whatever_waits() -> None:
    feed = filled(ask(0))
    began = time.monotonic()
    feed.doze(0.2)
    assert time.monotonic() - began > 0.1
    feed.wake()
    began = time.monotonic()
    feed.doze(600)
    assert time.monotonic() - began < 300


@given(
    st.lists(st.tuples(st.sampled_from(["push", "take", "done", "recall", "leave"]), st.integers(0, 2)), max_size=60)
)
def test_no_request_is_lost_or_given_twice_whatever_is_done_with_forks(steps: list[tuple[str, int]]) -> None:
    feed, made, answered = Feed(), 0, []
    forks = [feed.fork() for _ in range(3)]
    for step, number in steps:
        fork = forks[number % len(forks)]
        if step == "push":
            feed.push([ask(made), ask(made + 1)])
            made += 2
        elif step == "take":
            fork.take(2, MANY)
        elif step == "done" and fork.in_flight:
            answered.append(fork.done(next(iter(fork.in_flight))).key.index)
            feed.settled(1)
        elif step == "recall":
            feed.push(fork.recall(), first=True)
        elif step == "leave" and len(forks) > 1:
            forks.remove(fork)
            fork.leave()
    forks[0].take(10_000, MANY)
    assert sorted(answered + [key.index for key in feed.in_flight]) == list(range(made))
