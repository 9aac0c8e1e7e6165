from __future__ import annotations

import pytest

from llmbatch.core.demand import Demand
from llmbatch.core.types import FailureKind
from llmbatch.plan.fit import may_be_cut, misfit


@pytest.mark.parametrize(("tokens", "fits"), [(1, True), (99, True), (100, False), (101, False)])
def test_a_prompt_must_leave_room_for_one_token(tokens: int, fits: bool) -> None:
    assert (misfit(tokens, Demand(0, 50, True), 100) is None) is fits


@pytest.mark.parametrize(("tokens", "fits"), [(90, True), (91, False)])
def test_min_tokens_must_have_room(tokens: int, fits: bool) -> None:
    assert (misfit(tokens, Demand(10, 50, True), 100) is None) is fits


def test_max_tokens_beyond_the_context_is_no_misfit_but_told() -> None:
    demand = Demand(0, 50, True)
    assert misfit(60, demand, 100) is None
    assert may_be_cut(60, demand, 100)
    assert not may_be_cut(50, demand, 100)


@pytest.mark.parametrize(("tokens", "fits"), [(50, True), (51, False)])
def test_where_rows_are_made_to_fit_all_of_an_answer_must(tokens: int, fits: bool) -> None:
    assert (misfit(tokens, Demand(0, 50, True), 100, 10) is None) is fits
    failure = misfit(51, Demand(0, 50, True), 100, 10)
    assert failure is not None and "max_tokens = 50 tokens of answer" in failure.message


@pytest.mark.parametrize(("tokens", "fits"), [(90, True), (91, False)])
def test_of_an_answer_without_a_limit_so_much_must_fit_as_is_asked(tokens: int, fits: bool) -> None:
    assert (misfit(tokens, Demand(0, None, True), 100, 10) is None) is fits


@pytest.mark.parametrize("least", [None, 10])
def test_a_continuation_that_is_given_needs_no_room_for_an_answer(least: int | None) -> None:
    assert misfit(100, Demand(0, 0, True), 100, least) is None


def test_an_answer_without_end_of_text_may_be_cut_by_the_context() -> None:
    assert misfit(90, Demand(50, 50, True), 100) is None


def test_the_message_names_both_lengths() -> None:
    failure = misfit(5120, Demand(0, None, True), 4096)
    assert failure is not None
    assert failure.kind is FailureKind.TOO_LONG
    assert "5,120" in failure.message
    assert "4,096" in failure.message
