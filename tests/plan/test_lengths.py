from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.plan.lengths import ENOUGH, PRIOR_MEAN, LengthEstimate


def test_before_any_answer_longer_limits_mean_longer_answers() -> None:
    lengths = LengthEstimate()
    expected = [lengths.expected(100, most) for most in (1, 16, 256, 4096)]
    assert expected == sorted(set(expected))
    assert expected[-1] <= PRIOR_MEAN


def test_the_mean_of_the_answers_is_learnt() -> None:
    lengths, random = LengthEstimate(), Random(1)
    for _ in range(2000):
        lengths.observe(100, random.randint(20, 60), cut=False)
    assert lengths.expected(100, 1000) == pytest.approx(40, rel=0.03)


def test_answers_that_were_all_cut_say_that_the_limit_is_the_length() -> None:
    lengths = LengthEstimate()
    for length in (10, 50, 200) * 20:
        lengths.observe(100, length, cut=True)
    assert lengths.expected(100, 500) == pytest.approx(500)


def test_cut_answers_do_not_pull_the_mean_down() -> None:
    open_, cut, random = LengthEstimate(), LengthEstimate(), Random(1)
    for _ in range(4000):
        length = int(random.expovariate(1 / 100)) + 1
        open_.observe(100, length, cut=False)
        limit = random.choice([50, 400])
        cut.observe(100, min(length, limit), cut=length > limit)
    assert cut.expected(100, 400) == pytest.approx(open_.expected(100, 400), rel=0.15)


def test_prompts_of_another_length_have_their_own_answers() -> None:
    lengths = LengthEstimate()
    for _ in range(ENOUGH):
        lengths.observe(50, 10, cut=False)
        lengths.observe(5000, 1000, cut=False)
    assert lengths.expected(50, 4000) < 20
    assert lengths.expected(5000, 4000) > 900


def test_a_length_never_seen_takes_the_answers_of_all() -> None:
    lengths = LengthEstimate()
    for _ in range(ENOUGH):
        lengths.observe(50, 10, cut=False)
    assert lengths.expected(5000, 4000) == lengths.expected(50, 4000)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.booleans()), max_size=80), st.integers(1, 9000), st.integers(0, 9000)
)
def test_the_expectation_lies_between_the_limits(seen: list[tuple[int, bool]], most: int, least: int) -> None:
    lengths = LengthEstimate()
    for length, cut in seen:
        lengths.observe(100, length, cut=cut)
    assert min(least, most) <= lengths.expected(100, most, least) <= most + 1e-6


@given(st.lists(st.tuples(st.integers(1, 5000), st.booleans()), max_size=80))
def test_a_higher_limit_never_means_a_shorter_answer(seen: list[tuple[int, bool]]) -> None:
    lengths = LengthEstimate()
    for length, cut in seen:
        lengths.observe(100, length, cut=cut)
    expected = [lengths.expected(100, most) for most in range(1, 6000, 97)]
    assert expected == sorted(expected)


def test_quantiles_are_of_the_answers() -> None:
    lengths = LengthEstimate()
    assert lengths.quantile(0.5) is None
    for length in range(1, 1001):
        lengths.observe(10, length, cut=False)
    median = lengths.quantile(0.5)
    assert median == pytest.approx(500, rel=0.15)
