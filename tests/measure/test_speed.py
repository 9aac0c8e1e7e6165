from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.settings import EngineSettings
from llmbatch.measure.speed import Measured, Rates, Sample, Slice, measure, run_for, stratified
from llmbatch.model.tokenizer import ChatSettings

SAMPLING = Sampling((("max_tokens", 1000),))


def scripted(**args: Any) -> Any:
    engine = make_engine("any", EngineSettings(name="scripted", args=args), ChatSettings(), Path("engine.log"))
    engine.start()
    return engine


def requests(lengths: list[int], sampling: Sampling = SAMPLING) -> list[Request]:
    return [Request(RequestKey(i), Prompt(text="x" * n), sampling, token_ids=[1] * n) for i, n in enumerate(lengths)]


def test_every_answer_is_measured() -> None:
    measured = run_for(scripted(latency=0.002, concurrency=4), requests([5] * 40), 60)
    assert (measured.sent, measured.unfinished) == (40, 0)
    assert measured.lengths == (5,) * 40
    assert measured.tokens_per_second > 0


@pytest.mark.usefixtures("clock")
def test_answers_that_take_too_long_are_given_up_and_counted() -> None:
    measured = run_for(scripted(latency=600, concurrency=4), requests([5] * 40), 0.2)
    assert (measured.sent, measured.unfinished, measured.lengths) == (4, 4, ())
    assert measured.tokens_per_second == 0
    assert measured.noise == float("inf")


@pytest.mark.usefixtures("clock")
def test_twice_as_many_at_a_time_are_faster() -> None:
    sample = requests([5] * 200)
    slow, fast = (run_for(scripted(latency=0.05, concurrency=n), sample, 60) for n in (4, 16))
    assert fast.tokens_per_second > slow.tokens_per_second


def test_an_engine_without_latency_can_be_measured() -> None:
    rates = measure(scripted(), requests([5] * 300), 60)
    assert rates.answer_tokens == 5
    assert rates.seconds(1500, 300).expected >= 0


@pytest.mark.usefixtures("clock")
def test_a_measurement_gives_time_within_bounds() -> None:
    rates = measure(scripted(latency=0.01, jitter=0.5, concurrency=8), requests(list(range(1, 201))), 60)
    found = rates.seconds(100_000, 2_000)
    assert 0 < found.low <= found.expected <= found.high
    assert rates.full.sent + rates.prefill.sent == 200


def test_least_answers_that_a_request_asks_for_are_respected() -> None:
    least = Sampling((("max_tokens", 1000), ("min_tokens", 3)))
    rates = measure(scripted(), requests([5] * 100, least), 60)
    assert rates.prefill.sent == 0
    assert rates.full.sent == 100


def test_the_two_costs_of_a_token_are_told_apart() -> None:
    full = [Slice(0.001 * p + 0.01 * c, p, p, c) for p, c in [(100, 50), (120, 40), (90, 60)]]
    prefill = [Slice(0.001 * p + 0.01 * 4, p, p, 4) for p in (400, 500)]
    rates = Rates(Measured(tuple(full), (5, 5, 5), 3), Measured(tuple(prefill), (1,), 1))
    assert rates.per_token() == pytest.approx((0.001, 0.01))
    assert rates.seconds(1000, 10).expected == pytest.approx(1 + 0.5)


counts = st.integers(0, 10_000)


@given(st.lists(st.builds(Slice, st.floats(0, 100), counts, counts, counts), max_size=8))
def test_no_token_ever_gives_time_back(slices: list[Slice]) -> None:
    rates = Rates(Measured(tuple(slices), (3,), 1), Measured((), (), 0))
    prompt, answer = rates.per_token()
    assert prompt >= 0
    assert answer >= 0


@given(st.lists(st.integers(1, 50), max_size=70))
def test_a_stratified_order_has_every_request_once(lengths: list[int]) -> None:
    given = requests(lengths)
    assert sorted(r.key for r in stratified(given)) == [r.key for r in given]


def test_every_beginning_of_a_stratified_order_has_all_lengths_in_their_shares() -> None:
    lengths = [len(r.token_ids or ()) for r in stratified(requests(list(range(1, 257))))]
    for size in (16, 32, 64, 128):
        assert sum(lengths[:size]) / size == pytest.approx(128.5, rel=0.1)


def test_a_sample_is_bounded_even_and_repeatable() -> None:
    offered = requests([1] * 5000)
    samples = [Sample(100), Sample(100)]
    for sample in samples:
        for start in range(0, 5000, 500):
            sample.offer(iter(offered[start : start + 500]))
    keys = [request.key.index for request in samples[0].requests]
    assert keys == [request.key.index for request in samples[1].requests]
    assert len(set(keys)) == 100
    assert sum(keys) / 100 == pytest.approx(2500, rel=0.2)
