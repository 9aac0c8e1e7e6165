from __future__ import annotations

import pytest

from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.base import Drafts
from llmbatch.engines.feed import Feed
from llmbatch.engines.speculation import Acceptance, break_even, is_drawn


def counts(*shares: float, tokens: int = 2_000) -> list[Drafts]:
    """What an engine says after each of these stretches."""
    found, total = [], Drafts()
    for share in shares:
        total = total + Drafts(tokens // 4, tokens, round(share * tokens))
        found.append(total)
    return found


def first_fall(acceptance: Acceptance, said: list[Drafts]) -> int | None:
    return next((number for number, drafts in enumerate(said) if acceptance.is_too_low(drafts)), None)


def test_two_low_stretches_in_a_row_are_too_low() -> None:
    assert first_fall(Acceptance(0.2), counts(0.9, 0.9, 0.1, 0.1, 0.1)) == 3


def test_one_low_stretch_between_good_ones_is_not() -> None:
    assert first_fall(Acceptance(0.2), counts(0.9, 0.1, 0.9, 0.1, 0.9)) is None


def test_what_is_right_often_enough_is_never_too_low() -> None:
    assert first_fall(Acceptance(0.2), counts(*[0.2] * 10)) is None
    assert first_fall(Acceptance(0.0), counts(*[0.0] * 10)) is None


def test_few_guesses_are_not_judged() -> None:
    assert first_fall(Acceptance(0.2), counts(*[0.0] * 30, tokens=100)) is None


def test_an_engine_that_is_made_anew_counts_from_nothing() -> None:
    acceptance = Acceptance(0.2)
    assert first_fall(acceptance, counts(0.9, 0.9)) is None
    acceptance.begin()
    assert first_fall(acceptance, counts(0.1)) is None


def request(seed: int | None = None, /, **values: object) -> Request:
    return Request(RequestKey(0), Prompt(text="a"), Sampling(tuple(sorted(values.items()))), seed=seed)


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        (request(temperature=0), False),
        (request(temperature=0, seed=3), False),
        (request(temperature=1), False),
        (request(temperature=1, seed=3), True),
        (request(temperature=1, seed=-1), False),
        (request(3, temperature=1), True),
        (request(3), True),
    ],
    ids=[
        "greedy",
        "greedy with a seed",
        "by chance",
        "seeded",
        "no seed",
        "seeded itself",
        "seeded at the model's temperature",
    ],
)
def test_only_a_seed_that_is_used_makes_answers_depend_on_speculation(asked: Request, drawn: bool) -> None:
    assert is_drawn(asked) is drawn


def test_the_price_of_a_guessed_token_is_the_share_that_must_be_right() -> None:
    # 1,000 tokens; 1,000 guessed of which half are right; as fast as without: half must be right
    assert break_even(1.0, 1_000, Drafts(250, 1_000, 500)) == pytest.approx(0.5)
    # half of the steps in half of the time: a guessed token costs nothing
    assert break_even(2.0, 1_000, Drafts(250, 1_000, 500)) == 0.0
    # 1.25 times as fast: 800 = 500 + 0.3 * 1,000
    assert break_even(1.25, 1_000, Drafts(250, 1_000, 500)) == pytest.approx(0.3)
    assert break_even(1.25, 1_000, Drafts()) is None


def test_a_feed_that_is_paused_gives_nothing_and_is_finished_once_all_is_answered() -> None:
    feed = Feed()
    feed.push([Request(RequestKey(i), Prompt(text="a"), Sampling()) for i in range(3)])
    assert len(feed.take(2, 1_000)) == 2
    feed.pause()
    assert feed.take(2, 1_000) == []
    assert not feed.finished
    feed.done_all([RequestKey(0), RequestKey(1)])
    assert feed.finished
    feed.resume()
    assert not feed.finished
    assert [each.key.index for each in feed.take(2, 1_000)] == [2]


def test_a_fork_that_is_paused_leaves_what_waits_to_the_others() -> None:
    feed = Feed()
    one, other = feed.fork(), feed.fork()
    feed.push([Request(RequestKey(i), Prompt(text="a"), Sampling()) for i in range(2)])
    one.pause()
    assert one.take(2, 1_000) == []
    assert one.finished
    assert len(other.take(2, 1_000)) == 2
