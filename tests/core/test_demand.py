from __future__ import annotations

from llmbatch.core.demand import Demand, Demands
from llmbatch.core.types import Prompt, Request, RequestKey, Sampling


def demand(values: dict[str, object], **own: int) -> Demand:
    return Demands().of(Request(RequestKey(0), Prompt(text=""), Sampling().replace(**values), **own))  # type: ignore[arg-type]


def test_the_limits_of_the_answer_are_read_from_the_sampling() -> None:
    assert demand({"max_tokens": 9, "min_tokens": 3}) == Demand(3, 9, False)


def test_a_request_s_own_limit_overrides_the_shared_one() -> None:
    assert demand({"max_tokens": 9, "min_tokens": 3}, max_tokens=2) == Demand(2, 2, False)


def test_ignoring_the_end_of_text_makes_the_limit_the_length() -> None:
    assert demand({"max_tokens": 9, "ignore_eos": True}) == Demand(9, 9, False)
    assert demand({"max_tokens": 9, "ignore_eos": True}, max_tokens=20) == Demand(20, 20, False)


def test_greedy_and_seeded_requests_repeat() -> None:
    assert demand({"temperature": 0.0}).repeats
    assert demand({"temperature": 1.0, "seed": 0}).repeats
    assert demand({"temperature": 1.0}, seed=0).repeats


def test_a_seed_of_minus_one_is_none() -> None:
    assert not demand({"temperature": 1.0, "seed": -1}).repeats
    assert demand({"temperature": 0.0, "seed": -1}).repeats


def test_a_temperature_that_is_not_given_is_the_model_s_own() -> None:
    assert not demand({}).repeats
