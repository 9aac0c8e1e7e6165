"""A thinking budget on an engine that cannot keep to one: two requests, which the row knows as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.types import (
    Completion,
    Constraint,
    Failure,
    FailureKind,
    Outcome,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Sampling,
    Usage,
)
from llmbatch.engines.feed import Feed, Requests
from llmbatch.engines.thinking import BUDGET, Marks, in_two_requests
from llmbatch.job.job import job_from
from llmbatch.job.recipe import Recipe

START, END = 1, 2
MARKS = Marks((START,), (END,))
PROMPT_IDS = (10, 11, START)  # as of a template that begins the thinking
KEY = RequestKey(0)


def ask(budget: int | None = 3, limit: int | None = 10, **more: Any) -> Request:
    values = {BUDGET: budget, "max_tokens": limit, "min_tokens": 2}
    sampling = Sampling(tuple(sorted((name, value) for name, value in values.items() if value is not None)))
    return replace(Request(KEY, Prompt(text="?"), sampling, token_ids=PROMPT_IDS), **more)


class Engine:
    """Goes on with ``says`` from wherever it is, and remembers what it was asked; it has room for ``context`` tokens."""

    def __init__(self, *says: int, context: int = 1000) -> None:
        self.says, self.context = says, context
        self.asked: list[Request] = []

    def stream(self, feed: Requests) -> Iterator[list[Outcome]]:
        while not feed.finished:
            yield [self.answer(request) for request in feed.take(8, 1 << 20)]

    def answer(self, request: Request) -> Outcome:
        self.asked.append(request)
        assert request.sampling.get(BUDGET) is None
        prompt = len(request.token_ids or ()) + len(request.partial)
        if prompt >= self.context:
            return Refusal(request.key, Failure(FailureKind.TOO_LONG, "too long"))
        whole = self.whole(request.partial)
        limit = request.max_tokens or request.sampling.get("max_tokens") or 1 << 20
        new = whole[len(request.partial) :][: min(limit, self.context - prompt)]
        ids = (*request.partial, *new)
        return Completion(KEY, "", "stop" if ids == whole else "length", Usage(prompt, len(new), 1), ids)

    def whole(self, partial: tuple[int, ...]) -> tuple[int, ...]:
        if partial == self.says[: len(partial)]:
            return self.says
        rest = self.says[self.says.index(END) + 1 :] if END in self.says else ()
        return partial[: partial.index(END) + 1] + rest


def answered(engine: Engine, request: Request) -> Completion:
    feed = Feed()
    feed.push([request])
    feed.close()
    outcomes = []
    for some in in_two_requests(engine.stream, feed, MARKS):
        for outcome in some:
            feed.done(outcome.key)
            outcomes.append(outcome)
    (outcome,) = outcomes
    assert isinstance(outcome, Completion)
    return outcome


def test_thinking_is_ended_at_the_budget_and_the_usage_is_that_of_both_requests() -> None:
    engine = Engine(20, 21, 22, 23, 24, END, 30, 31)
    answer = answered(engine, ask())
    assert (answer.token_ids, answer.finish_reason) == ((20, 21, 22, END, 30, 31), "stop")
    assert [(request.partial, request.max_tokens) for request in engine.asked] == [((), 3), ((20, 21, 22, END), 6)]
    assert {request.sampling.get("min_tokens") for request in engine.asked} == {None}, "it counts from the start"
    assert answer.usage == Usage(3 + 7, 3 + 2, 2)


def test_an_answer_that_comes_within_the_budget_takes_one_request() -> None:
    engine = Engine(20, END, 30)
    assert answered(engine, ask()).token_ids == (20, END, 30)
    assert len(engine.asked) == 1


@pytest.mark.parametrize("says", [(20, END, 30, 31, 32, 33), (30, 31, 32, 33, 34)])
def test_an_answer_that_has_begun_at_the_budget_goes_on_from_there(says: tuple[int, ...]) -> None:
    """Also one of a model that does not think at all: its prompt does not begin the thinking."""
    prompt = PROMPT_IDS if END in says else (10, 11)
    engine = Engine(*says)
    assert answered(engine, ask(token_ids=prompt)).token_ids == says
    assert engine.asked[1].partial == says[:3]


def test_what_is_held_to_a_grammar_begins_anew_behind_the_thinking() -> None:
    engine = Engine(20, END, 30, 31, 32)
    answer = answered(engine, ask(constraint=Constraint("regex", ".*")))
    assert engine.asked[1].partial == (20, END)
    assert answer.token_ids == (20, END, 30, 31, 32)
    assert answer.usage.completion_tokens == 3 + 3


@pytest.mark.parametrize("request_", [ask(None), ask(-1), ask(10, 10), ask(partial=(20, END, 30))])
def test_without_a_budget_or_room_for_more_than_it_there_is_one_request(request_: Request) -> None:
    engine = Engine(20, END, 30, 31)
    assert answered(engine, request_).token_ids == (20, END, 30, 31)
    assert [request.sampling.get("min_tokens") for request in engine.asked] == [2]


def test_no_thinking_at_all_where_the_prompt_has_begun_it_is_one_request_behind_its_end() -> None:
    engine = Engine(20, END, 30)
    assert answered(engine, ask(0)).token_ids == (END, 30)
    assert [request.partial for request in engine.asked] == [(END,)]


def test_where_there_is_no_room_to_go_on_what_there_is_was_cut_off() -> None:
    engine = Engine(20, 21, 22, 23, 24, END, 30, context=7)
    answer = answered(engine, ask())
    assert (answer.token_ids, answer.finish_reason, answer.usage) == ((20, 21, 22), "length", Usage(3, 3, 1))


THOUGHT = "<think>let me think about this for a long while</think>Paris"


def thinking(jobs: Any, **more: Any) -> dict[str, Any]:
    rows = jobs.rows([{"text": f"row {i}"} for i in range(12)])
    script = {"rules": [{"when": {"index": [1, 4]}, "answer": "<think>hm</think>Bonn"}, {"answer": THOUGHT}], **more}
    data = jobs.data(rows, script, answer={"thinking_budget": 20, "choice": ["Paris", "Bonn"]}, run={"window": 5})
    data["engine"]["reasoning_parser"] = "deepseek_r1"
    data["sampling"] = {"temperature": 0, "max_tokens": 60}
    return data  # type: ignore[no-any-return]


@pytest.mark.parametrize("itself", [True, False])
def test_a_run_has_the_same_answers_whether_the_engine_ends_the_thinking_or_not(jobs: Any, itself: bool) -> None:
    jobs.run(job_from(thinking(jobs, ends_thinking=itself)))
    records = jobs.records()
    assert [record["output"] for record in records] == ["Bonn" if i in (1, 4) else "Paris" for i in range(12)]
    assert {record["attempts"] for record in records} == {1}
    assert records[0]["reasoning"] == ("let me think about t" if itself else "let me think ")
    totals = jobs.report()["tokens"]["total"]
    assert totals["completion_tokens"] == sum(record["usage"]["completion_tokens"] for record in records)
    if not itself:  # 20 tokens of thinking, then the prompt with these and their end
        prompt = len("<user>row 0\n<assistant>")
        assert records[0]["usage"]["prompt_tokens"] == prompt + prompt + 20 + len("</think>")
        assert records[0]["usage"]["completion_tokens"] == 20 + len("Paris")


def test_an_engine_that_dies_between_the_two_requests_changes_no_answer(jobs: Any) -> None:
    jobs.run(job_from({**thinking(jobs, ends_thinking=False), "output": str(jobs.path / "whole")}))
    data = thinking(jobs, ends_thinking=False, die_after=[3, 7, 11], concurrency=2)
    jobs.run(job_from(data))
    assert jobs.results() == jobs.results("whole")


def test_a_budget_needs_to_know_thinking_from_answer_and_room_for_the_answer(jobs: Any, ten: Path) -> None:
    with pytest.raises(JobError, match=r"a thinking budget needs engine\.reasoning_parser"):
        Recipe(jobs.job(ten, answer={"thinking_budget": 20}))
    with pytest.raises(JobError, match=r"2,000 tokens leaves no room for an answer: sampling\.max_tokens is 1,024"):
        Recipe(jobs.job(ten, sampling={BUDGET: 2000}, engine={"reasoning_parser": "qwen3"}))
