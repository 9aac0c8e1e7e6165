"""Who of several engines gets which request: groups stay together, the planned order holds, the idle take waiting work over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.feed import Feed

MANY = 1 << 40


def ask(index: int, attempt: int = 1) -> Request:
    return Request(RequestKey(index, attempt=attempt), Prompt(text="x"), Sampling(), token_ids=[0])


def forked(groups: list[int | None], forks: int = 2) -> tuple[Feed, list[Feed]]:
    """A feed with requests 0, 1, ... of these groups (None: of none), and its forks."""
    feed = Feed()
    made = [feed.fork() for _ in range(forks)]
    push(feed, 0, groups)
    return feed, made


def push(feed: Feed, first: int, groups: list[int | None]) -> None:
    requests = [ask(first + place) for place in range(len(groups))]
    feed.push(requests, {r.key: g for r, g in zip(requests, groups, strict=True) if g is not None})


def took(feed: Feed, slots: int) -> list[int]:
    return [request.key.index for request in feed.take(slots, MANY)]


def test_the_requests_of_a_group_go_to_the_engine_that_took_the_first_of_them() -> None:
    _, (one, other) = forked([7, 8, 7, 8, 7, 8])
    assert took(one, 1) == [0]
    assert took(other, 3) == [1, 3, 5]
    assert took(one, 9) == [2, 4]


def test_a_group_keeps_its_engine_over_later_windows() -> None:
    feed, (one, other) = forked([7, 8])
    assert took(one, 1) == [0]
    assert took(other, 1) == [1]
    push(feed, 2, [8, 7, 8, 7])
    assert took(one, 2) == [3, 5]
    assert took(other, 2) == [2, 4]


def test_each_engine_has_the_planned_order() -> None:
    _, (one, other) = forked([None, 7, None, 7, None, 7])
    assert took(one, 2) == [0, 1]
    assert took(other, 2) == [2, 4]
    assert took(one, 9) == [3, 5]


def test_an_engine_with_nothing_left_takes_over_whole_groups_that_would_come_last() -> None:
    _, (one, other) = forked([1, 2, 3, 4, 1, 2, 3, 4])
    assert took(one, 4) == [0, 1, 2, 3], "all groups are its own"
    assert took(other, 2) == [6, 7], "half of what waits: the groups 3 and 4"
    assert took(other, 1) == [5]
    assert took(one, 9) == [4]


def test_of_one_group_alone_an_idle_engine_takes_the_later_half() -> None:
    _, (one, other) = forked([7] * 9)
    assert took(one, 1) == [0]
    assert took(other, 4) == [5, 6, 7, 8]
    assert took(one, 9) == [1, 2, 3, 4]


def test_what_follows_in_a_row_goes_where_its_prefix_is_and_before_all_that_waits() -> None:
    feed, (one, other) = forked([None, None, None, None])
    assert took(one, 1) == [0]
    assert took(other, 1) == [1]
    one.done(RequestKey(0))
    other.done(RequestKey(1))
    feed.push([ask(1, attempt=2), ask(0, attempt=2)], first=True)
    assert took(one, 1) == [0]
    assert took(other, 1) == [1]


def test_what_follows_in_a_row_is_taken_by_an_idle_engine_where_the_other_is_busy() -> None:
    feed, (one, other) = forked([None])
    assert took(one, 1) == [0]
    one.done(RequestKey(0))
    feed.push([ask(0, attempt=2)], first=True)
    assert took(other, 1) == [0]


def test_what_waits_for_an_engine_that_died_is_anybodys() -> None:
    feed, (one, other) = forked([7, 7, 7, 8])
    assert took(one, 1) == [0]
    one.push(one.recall(), first=True)
    assert took(other, 9) == [0, 1, 2, 3]
    push(feed, 4, [7])
    assert took(one, 0) == []
    assert took(other, 9) == [4], "it has the prefix now"


def test_a_group_that_was_halved_is_whole_again_when_one_of_its_engines_dies() -> None:
    _, (one, other) = forked([7] * 9)
    assert took(one, 1) == [0]
    assert took(other, 1) == [5], "the later half is its own now"
    one.push(one.recall(), first=True)
    assert took(other, 9) == [0, 1, 2, 3, 4, 6, 7, 8]


def test_what_waits_for_an_engine_that_leaves_is_not_lost() -> None:
    _, (one, other) = forked([7, 7, 8, 8])
    assert took(one, 1) == [0]
    one.leave()
    assert took(other, 9) == [0, 1, 2, 3]


GROUPS = st.one_of(st.none(), st.integers(0, 3))
STEP = st.one_of(
    st.tuples(st.just("push"), st.lists(GROUPS, max_size=6)),
    st.tuples(st.sampled_from(["take", "done", "follow", "recall", "leave"]), st.integers(0, 2)),
)


@given(st.lists(STEP, max_size=60))
def test_no_request_is_lost_or_given_twice_whatever_is_done(steps: list[tuple[str, list[int | None] | int]]) -> None:
    feed, forks = forked([], 3)
    made, answered = 0, list[tuple[int, int]]()
    for step, value in steps:
        if isinstance(value, list):
            push(feed, made, value)
            made += len(value)
            continue
        fork = forks[value % len(forks)]
        if step == "take":
            fork.take(2, MANY)
        elif step in ("done", "follow") and fork.in_flight:
            key = next(iter(fork.in_flight))
            fork.done(key)
            answered.append((key.index, key.attempt))
            if step == "follow":
                feed.push([ask(key.index, key.attempt + 1)], first=True)
            feed.settled(1)
        elif step == "recall":
            fork.push(fork.recall(), first=True)
        elif step == "leave" and len(forks) > 1:
            forks.remove(fork)
            fork.leave()
    waiting, seen = feed.waiting, len(feed.in_flight)
    forks[-1].take(10_000, MANY)
    assert feed.waiting == 0, "an idle engine takes all that waits"
    assert len(feed.in_flight) == seen + waiting
    keys = [(key.index, key.attempt) for key in feed.in_flight] + answered
    assert len(keys) == len(set(keys))
    assert {index for index, _ in keys} == set(range(made))
