from __future__ import annotations

import pytest

from llmbatch.core.types import Completion, Prompt, Request, RequestKey, Sampling, Usage
from llmbatch.engines.fair import Fair, Party, as_own
from llmbatch.engines.feed import Feed

GREEDY = Sampling((("temperature", 0),))
MANY = 1 << 40


def feed_of(count: int, tokens: int = 1) -> Feed:
    feed = Feed()
    feed.push(Request(RequestKey(i), Prompt(text="x"), GREEDY, token_ids=[0] * tokens) for i in range(count))
    return feed


def fair_of(*parties: Party) -> Fair:
    fair = Fair()
    for party in parties:
        fair.add(party)
    return fair


def shares(requests: list[Request]) -> list[int]:
    return [request.key.share for request in requests]


def answer(fair: Fair, request: Request, tokens: int) -> None:
    fair.settle(Completion(request.key, "a", "stop", Usage(1, tokens)))


def serve(fair: Fair, steps: int, tokens: dict[int, int], slots: int = 4) -> list[int]:
    """Whose requests an engine took that answers its first request at every step, with so many tokens for each share."""
    in_flight: list[Request] = []
    took: list[int] = []
    for _ in range(steps):
        taken = fair.take(0, slots - len(in_flight), MANY)
        took += shares(taken)
        in_flight += taken
        if in_flight:
            done = in_flight.pop(0)
            answer(fair, done, tokens[done.key.share])
    return took


def test_a_run_that_is_alone_gets_all_of_it_in_its_own_order() -> None:
    fair = fair_of(Party(1, feed_of(5)))
    assert [request.key for request in fair.take(0, 3, MANY)] == [RequestKey(i, share=1) for i in range(3)]


def test_runs_take_turns() -> None:
    fair = fair_of(Party(1, feed_of(50)), Party(2, feed_of(50)))
    assert sorted(shares(fair.take(0, 10, MANY))) == [1] * 5 + [2] * 5


def test_a_small_run_beside_a_large_one_is_done_after_about_as_many_of_its_requests() -> None:
    fair = fair_of(Party(1, feed_of(1000)))
    serve(fair, 200, {1: 10})
    fair.add(Party(2, feed_of(10)))
    took = serve(fair, 40, {1: 10, 2: 10})
    assert took.count(2) == 10
    assert took.index(2) <= 1
    assert len(took) - took[::-1].index(2) <= 25


def test_shares_are_of_tokens_and_not_of_requests() -> None:
    fair = fair_of(Party(1, feed_of(1000, tokens=100)), Party(2, feed_of(1000, tokens=100)))
    took = serve(fair, 300, {1: 900, 2: 100})
    assert 4 <= took.count(2) / took.count(1) <= 6  # 200 tokens a request against 1,000


@pytest.mark.parametrize("weight", [2.0, 3.0])
def test_a_weight_is_so_much_of_the_share(weight: float) -> None:
    fair = fair_of(Party(1, feed_of(1000)), Party(2, feed_of(1000), weight=weight))
    took = serve(fair, 400, {1: 50, 2: 50})
    assert took.count(2) / took.count(1) == pytest.approx(weight, rel=0.15)


def test_a_run_that_had_nothing_to_ask_has_no_claim_to_the_time_before() -> None:
    late = Feed()
    fair = fair_of(Party(1, feed_of(1000)), Party(2, late))
    serve(fair, 300, {1: 50})
    late.push(Request(RequestKey(i), Prompt(text="x"), GREEDY, token_ids=[0]) for i in range(300))
    took = serve(fair, 100, {1: 50, 2: 50})
    assert 40 <= took.count(1) <= 60


def test_a_higher_priority_goes_before_a_lower_one() -> None:
    fair = fair_of(Party(1, feed_of(9)), Party(2, feed_of(3), priority=1))
    assert shares(fair.take(0, 5, MANY)) == [2, 2, 2, 1, 1]


def test_what_is_urgent_is_taken_where_there_is_no_slot() -> None:
    fair = fair_of(Party(1, feed_of(9)), Party(2, feed_of(2), urgent=True))
    assert fair.has_urgent
    taken = fair.take(0, -3, 0)
    assert shares(taken) == [2, 2]
    assert all(request.urgent for request in taken)
    assert not fair.has_urgent
    assert fair.take(0, 0, MANY) == []


def test_of_what_is_urgent_the_engine_has_no_more_than_so_many_at_a_time() -> None:
    fair = fair_of(Party(1, feed_of(1000), urgent=True))
    first = fair.take(0, 0, MANY)
    assert len(first) < 1000
    assert not fair.has_urgent
    answer(fair, first[0], 1)
    assert len(fair.take(0, 0, MANY)) == 1


def test_no_more_tokens_are_taken_than_there_is_room_for_but_for_the_last_request() -> None:
    fair = fair_of(Party(1, feed_of(9, tokens=10)), Party(2, feed_of(9, tokens=10)))
    assert len(fair.take(0, 9, 25)) == 3


def test_what_a_dead_engine_had_comes_first_and_the_urgent_before_it() -> None:
    fair = fair_of(Party(1, feed_of(4)), Party(2, feed_of(1), urgent=True))
    lost = fair.take(0, 3, MANY)
    fair.push_first(lost[::-1], follow=False)
    assert shares(fair.take(0, 9, MANY)) == [2, 1, 1, 1, 1]


def test_of_a_run_that_is_gone_nothing_is_taken_nor_settled() -> None:
    fair = fair_of(Party(1, feed_of(4)), Party(2, feed_of(4)))
    taken = fair.take(0, 4, MANY)
    fair.push_first(taken, follow=False)
    fair.remove(1)
    assert set(shares(fair.take(0, 9, MANY))) == {2}
    assert not fair.settle(Completion(taken[0].key, "a", "stop", Usage()))


def test_of_a_run_that_is_halted_nothing_waits() -> None:
    feed = feed_of(3)
    fair = fair_of(Party(1, feed))
    feed.halt()
    assert len(fair) == 0
    assert fair.take(0, 9, MANY) == []


def test_an_outcome_comes_back_under_the_runs_own_key() -> None:
    outcome = Completion(RequestKey(3, 1, 2, 4, 7), "a", "stop", Usage(1, 2), (5,), "r", "s", None, "row")
    own = as_own(outcome)
    assert own.key == RequestKey(3, 1, 2, 4)
    assert own == Completion(RequestKey(3, 1, 2, 4), "a", "stop", Usage(1, 2), (5,), "r", "s", None, "row")


def test_what_shares_a_prefix_stays_with_one_of_several_engines() -> None:
    feed = Feed()
    fair = fair_of(Party(1, feed))
    fair.join(1)
    fair.join(2)
    requests = [Request(RequestKey(i), Prompt(text="x"), GREEDY, token_ids=[0]) for i in range(40)]
    feed.push(requests, {request.key: request.key.index // 20 for request in requests})
    homes: dict[int, set[int]] = {0: set(), 1: set()}
    for _ in range(8):
        for engine in (1, 2):
            for request in fair.take(engine, 2, MANY):
                homes[request.key.index // 20].add(engine)
    assert sorted(map(sorted, homes.values())) == [[1], [2]]
