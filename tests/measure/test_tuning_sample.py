from __future__ import annotations

import itertools

from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.measure.tuning_sample import drawn, lengths

SAMPLING = Sampling()


def requests(sizes: list[int]) -> list[Request]:
    return [Request(RequestKey(i), Prompt(text="x"), SAMPLING, token_ids=[1] * size) for i, size in enumerate(sizes)]


def indexes(sample: list[Request]) -> list[int]:
    return [request.key.index for request in sample]


def test_all_are_taken_where_there_are_few() -> None:
    assert sorted(indexes(drawn(requests([5] * 100), 200))) == list(range(100))


def test_the_sample_is_the_same_every_time() -> None:
    planned = requests(list(range(1, 3001)))
    assert indexes(drawn(planned, 512)) == indexes(drawn(planned, 512))


def test_the_sample_has_all_lengths_in_their_shares() -> None:
    planned = requests(list(range(1, 4097)))
    shortest, median, longest = lengths(drawn(planned, 512))
    assert shortest < 300
    assert 1800 < median < 2300
    assert longest > 3800


def test_every_beginning_of_the_sample_has_short_and_long_ones() -> None:
    planned = requests(list(range(1, 4097)))
    shortest, _, longest = lengths(drawn(planned, 512)[:128])
    assert shortest < 1100
    assert longest > 3000


def test_what_follows_each_other_in_the_plan_does_so_in_the_sample() -> None:
    """They share prefixes, which a sample of single rows would not."""
    sample = indexes(drawn(requests([1 + i % 700 for i in range(4096)]), 512))
    neighbours = sum(later - one == 1 for one, later in itertools.pairwise(sample))
    assert neighbours >= len(sample) * 30 / 32
