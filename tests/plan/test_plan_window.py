from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.plan.lengths import LengthEstimate
from llmbatch.plan.order import Capacity
from llmbatch.plan.window import PlanSettings, WindowPlan, plan_window

GREEDY = Sampling((("max_tokens", 16), ("temperature", 0)))
SMALL = Capacity(context_length=2048, max_num_seqs=4, kv_cache_tokens=256, block_size=16, max_num_batched_tokens=256)
ROOMY = replace(SMALL, kv_cache_tokens=1_000_000)


def window(*prompts: list[int] | None, sampling: Sampling = GREEDY) -> list[Request]:
    return [Request(RequestKey(i), Prompt(text=""), sampling, token_ids=ids) for i, ids in enumerate(prompts)]


def grouped_rows(groups: int, rows: int, prefix: int = 64, tail: int = 8) -> list[list[int]]:
    random = Random(5)
    starts = [[random.randrange(1000) for _ in range(prefix)] for _ in range(groups)]
    return [start + [random.randrange(1000) for _ in range(tail)] for _ in range(rows) for start in starts]


def plan(requests: list[Request], limits: Capacity = SMALL, *, last: bool = True, **settings: object) -> WindowPlan:
    return plan_window(requests, limits, PlanSettings.model_validate(settings), LengthEstimate(), last=last)


def test_rows_that_share_a_prefix_are_sent_together_when_the_cache_is_small() -> None:
    made = plan(window(*grouped_rows(16, 4)))
    assert [position % 16 for position in made.order] == [group for group in range(16) for _ in range(4)]
    assert made.expected.saving > 0.5
    assert any("grouped by shared prefix" in note for note in made.notes)


def test_the_order_is_left_alone_when_the_cache_holds_all() -> None:
    made = plan(window(*grouped_rows(16, 4)), ROOMY)
    assert made.order == list(range(64))
    assert made.expected.saving == 0
    assert made.expected.hit_rate == made.expected.hit_rate_possible > 0.6
    assert made.notes == ()


def test_the_order_is_left_alone_when_only_a_common_start_is_shared() -> None:
    made = plan(window(*grouped_rows(1, 64)))
    assert made.order == list(range(64))


def test_the_order_is_left_alone_when_it_would_save_little() -> None:
    rows = grouped_rows(40, 1) + grouped_rows(40, 1)[:2]
    rows = [[*row, i] for i, row in enumerate(rows)]
    assert plan(window(*rows)).order == list(range(42))
    assert plan(window(*rows), order="prefix").order != list(range(42))


def test_input_order_can_be_asked_for() -> None:
    made = plan(window(*grouped_rows(16, 4)), order="input")
    assert made.order == list(range(64))
    assert made.expected.computed == made.expected.computed_given


def test_long_answers_go_first_where_they_decide_the_end() -> None:
    requests = [
        replace(r, max_tokens=16 if i < 30 else 400) for i, r in enumerate(window(*([i] * 9 for i in range(32))))
    ]
    assert plan(requests, ROOMY).order[:2] == [30, 31]
    assert plan(requests, ROOMY, last=False).order == list(range(32))


def test_long_answers_go_first_for_a_little_too_where_that_costs_nothing() -> None:
    sure = Sampling((*GREEDY.values, ("ignore_eos", True)))

    def lasting(rows: int) -> list[Request]:
        """The last answer takes three times as long as the others."""
        requests = window(*([i, i >> 8] * 5 for i in range(rows)), sampling=sure)
        return [replace(r, max_tokens=120 if r.key.index == rows - 1 else 40) for r in requests]

    assert plan(lasting(300), ROOMY).order[0] == 299, "2.6% of the steps"
    assert plan(lasting(300), ROOMY, last=False).order[0] == 0
    assert plan(lasting(3000), ROOMY).order[0] == 0, "0.3%"
    assert plan(lasting(3000), ROOMY, min_saving=0.001).order[0] == 2999


def test_long_answers_first_that_save_little_may_not_cost_what_grouping_spared() -> None:
    """The groups themselves may change places: that costs nothing."""
    sure = Sampling((*GREEDY.values, ("ignore_eos", True)))
    requests = window(*grouped_rows(20, 15), sampling=sure)
    requests = [replace(r, max_tokens=56 if r.key.index == 299 else 16) for r in requests]
    made, grouped = plan(requests), plan(requests, order="prefix")
    assert made.expected.computed <= 1.01 * grouped.expected.computed < made.expected.computed_given / 4
    assert made.order[0] == 299
    assert [position % 20 for position in made.order[:15]] == [19] * 15


def test_rows_with_many_requests_go_first_and_stay_together() -> None:
    """What follows them waits for the last, so a long document that is begun late is what the run waits for."""
    rows = [0, 1, 1, 2, 3, 3, 3, 4, 4]
    requests = [
        replace(r, key=RequestKey(row, i))
        for i, (row, r) in enumerate(zip(rows, window(*([i] * 9 for i in range(9))), strict=True))
    ]
    for last in (True, False):
        assert [rows[position] for position in plan(requests, ROOMY, last=last).order] == [3, 3, 3, 1, 1, 4, 4, 0, 2]
    assert plan(requests, ROOMY, order="input").order == list(range(9))


def test_among_groups_the_one_with_the_longest_answer_goes_first() -> None:
    requests = window(*grouped_rows(16, 4))
    requests[5] = replace(requests[5], max_tokens=1500)
    made = plan(requests)
    assert made.order[0] == 5
    assert {position % 16 for position in made.order[:4]} == {5}


def test_rows_of_one_adapter_are_sent_together() -> None:
    requests = [replace(r, lora="ab"[i % 2]) for i, r in enumerate(window(*([i] * 9 for i in range(6))))]
    assert plan(requests).order == [0, 2, 4, 1, 3, 5]


def test_duplicates_run_once_and_their_tokens_are_counted() -> None:
    made = plan(window([1, 2, 3], [4], [1, 2, 3]))
    assert made.order == [0, 1]
    assert made.folded == {2: 0}
    assert made.expected.folded_tokens == 3
    assert plan(window([1], [1]), fold=False).folded == {}


def test_prompts_that_do_not_fit_are_set_apart_and_never_lead() -> None:
    made = plan(window([1] * 2048, [1] * 2048, [2]))
    assert set(made.too_long) == {0, 1}
    assert made.order == [2]
    assert made.folded == {}


def test_requests_without_tokens_keep_their_order() -> None:
    made = plan(window(None, [1] * 9, None, [1] * 9))
    assert made.order == [0, 1]
    assert made.folded == {2: 0, 3: 1}, "those without are known by their prompts"


def test_nothing_is_too_long_for_an_engine_whose_context_length_is_not_known() -> None:
    made = plan(window([1] * 5000, [2] * 5000), replace(SMALL, context_length=None))
    assert made.order == [0, 1]
    assert (made.too_long, made.may_be_cut) == ({}, 0)


def test_an_empty_window_has_an_empty_plan() -> None:
    assert plan([]).order == []


def test_answers_that_the_context_may_cut_are_told() -> None:
    made = plan(window([1] * 2040))
    assert made.too_long == {}
    assert any("may be cut" in note for note in made.notes)


ids = st.lists(st.integers(0, 1), min_size=1, max_size=40)
requests_strategy = st.lists(
    st.builds(
        lambda tokens, sampling, most, lora: Request(
            RequestKey(0), Prompt(text=""), sampling, token_ids=tokens, max_tokens=most, lora=lora
        ),
        ids,
        st.sampled_from([GREEDY, Sampling()]),
        st.none() | st.integers(1, 64),
        st.sampled_from([None, None, "a", "b"]),
    ),
    max_size=40,
)
limits_strategy = st.builds(
    Capacity,
    context_length=st.integers(2, 50),
    max_num_seqs=st.integers(1, 6),
    kv_cache_tokens=st.none() | st.integers(1, 400),
    block_size=st.none() | st.sampled_from([1, 4]),
    max_num_batched_tokens=st.none() | st.integers(1, 64),
)


@settings(deadline=None)
@given(requests_strategy, limits_strategy, st.sampled_from(["auto", "input", "prefix", "longest"]), st.booleans())
def test_every_request_is_sent_folded_or_set_apart_exactly_once(
    requests: list[Request], limits: Capacity, order: str, last: bool
) -> None:
    made = plan(requests, limits, order=order, last=last)
    assert sorted([*made.order, *made.folded, *made.too_long]) == list(range(len(requests)))
    assert set(made.folded.values()) <= set(made.order)
    assert all(leader < position for position, leader in made.folded.items())


@settings(deadline=None)
@given(requests_strategy, limits_strategy, st.booleans())
def test_the_planned_order_never_computes_more_than_the_given_one(
    requests: list[Request], limits: Capacity, last: bool
) -> None:
    expected = plan(requests, limits, last=last).expected
    assert expected.computed_least <= expected.computed <= expected.computed_given


@settings(deadline=None)
@given(requests_strategy, limits_strategy)
def test_the_same_window_gets_the_same_plan(requests: list[Request], limits: Capacity) -> None:
    copies = [replace(r, sampling=Sampling(r.sampling.values), token_ids=tuple(r.token_ids or ())) for r in requests]
    assert plan(requests, limits) == plan(copies, limits)


@pytest.mark.parametrize("order", ["fastest", ""])
def test_an_unknown_order_is_refused(order: str) -> None:
    with pytest.raises(ValueError, match="order"):
        PlanSettings.model_validate({"order": order})
