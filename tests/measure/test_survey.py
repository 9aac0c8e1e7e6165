from __future__ import annotations

import pytest

from llmbatch.core.types import Failure, FailureKind, Prompt, Request, RequestKey, Sampling
from llmbatch.measure.survey import EXAMPLES, Prices, Survey, costs
from llmbatch.plan.lengths import LengthEstimate
from llmbatch.plan.order import Capacity
from llmbatch.plan.window import PlanSettings, plan_window

LIMITS = Capacity(context_length=200, max_num_seqs=4, kv_cache_tokens=1000, block_size=4)
GREEDY = Sampling((("max_tokens", 20), ("temperature", 0)))


def add(survey: Survey, *prompts: list[int]) -> None:
    requests = [Request(RequestKey(i), Prompt(text=""), GREEDY, token_ids=ids) for i, ids in enumerate(prompts)]
    plan = plan_window(requests, survey.limits, PlanSettings(), LengthEstimate())
    survey.add(requests, plan, [f"row-{i}" for i in range(len(prompts))])


def test_windows_add_up() -> None:
    survey = Survey(LIMITS)
    add(survey, [1] * 9, [2] * 5, [1] * 9)
    add(survey, [1] * 9, [3] * 190)
    assert (survey.requests, survey.duplicates, survey.prompt_tokens, survey.folded_tokens) == (5, 1, 213, 9)
    assert survey.may_be_cut == 1
    assert survey.answer_tokens_most == 3 * 20 + 10


def test_the_histogram_counts_every_prompt() -> None:
    survey = Survey(LIMITS)
    add(survey, [1], [1] * 2, [1] * 19, [1] * 20, [1] * 300)
    assert [(bar.low, bar.high, bar.prompts) for bar in survey.histogram()] == [
        (0, 10, 2), (10, 20, 1), (20, 50, 1), (50, 100, 0), (100, 200, 0), (200, 500, 1),
    ]  # fmt: skip
    assert survey.longest == 300
    assert Survey(LIMITS).histogram() == []


def test_prompts_that_do_not_fit_are_named_by_their_rows() -> None:
    survey = Survey(LIMITS)
    add(survey, [1], [2] * 200)
    assert survey.troubles == {"too_long": 1}
    ((row, message),) = survey.examples["too_long"]
    assert row == "row-1"
    assert "200 tokens" in message


def test_only_the_first_of_each_kind_are_kept() -> None:
    survey = Survey(LIMITS)
    for row in range(1000):
        survey.trouble(row, Failure(FailureKind.PROMPT, "no"))
    assert survey.troubles["prompt"] == 1000
    assert [row for row, _ in survey.examples["prompt"]] == list(range(EXAMPLES))


def test_costs_are_of_what_is_computed_and_answered() -> None:
    survey = Survey(LIMITS, prompt_tokens=9_000_000, computed=3_000_000, answer_tokens=600_000.0)
    found = costs(survey, Prices(tokens_per_second=1000, per_gpu_hour=2.0, gpus=4, per_million=(0.1, 0.5, 0.1)))
    assert found["hours"] == pytest.approx(1.0)
    assert found["cost_gpu"] == pytest.approx(8.0)
    assert found["cost_tokens"] == pytest.approx(0.9 + 0.3)
    assert costs(survey, Prices()) == {}
