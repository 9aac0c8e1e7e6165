"""What crosses a border comes out as it went in."""

from __future__ import annotations

import pickle
from array import array
from dataclasses import replace
from typing import Any

import pytest

from llmbatch.core.errors import EngineDied, EngineError, JobError, LlmbatchError, OutOfMemory
from llmbatch.core.types import (
    Completion,
    Constraint,
    Failure,
    FailureKind,
    Outcome,
    Pooling,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Sampling,
    Score,
    Tools,
    Usage,
)
from llmbatch.engines.messages import Asked, answered, ask, death_of, died, error_of, failed, outcomes_of

GREEDY = Sampling((("stop", ("\n",)), ("temperature", 0.0)))
SCHEMA = Constraint("json", '{"type": "object"}')
CHAT = Prompt(messages=({"role": "user", "content": "grüß"},), prefill="{")


def crossed(message: Any) -> Any:
    return pickle.loads(pickle.dumps(message))  # noqa: S301


@pytest.mark.parametrize(
    "request_",
    [
        Request(RequestKey(7, 1, 2, 3), CHAT, GREEDY, SCHEMA, 5, 9, "lora", (1, 2), array("I", [3, 4])),
        Request(RequestKey(0), Prompt(text="x"), Sampling(), token_ids=None),
        Request(RequestKey(0), Prompt(text="x"), Sampling(), token_ids=[1 << 31], target="y", target_ids=[8]),
        Request(RequestKey(0), Prompt(text="x"), Sampling(), token_ids=b"bytes are this engine's ids"),
        Request(
            RequestKey(0),
            Prompt(text="x", pair="y"),
            Sampling(),
            token_ids=[1],
            target_ids=[2],
            pooling=Pooling("pairs", 3),
        ),
        Request(RequestKey(0), Prompt(CHAT.messages, tools=Tools(({"type": "function"},), "named", "f")), Sampling()),
    ],
    ids=["everything", "without ids", "a target", "bytes", "numbers of a pair", "tools"],
)
def test_a_request_comes_out_as_it_went_in(request_: Request) -> None:
    (out,) = Asked().requests(crossed(ask([request_])))
    assert (out.key, out.prompt, out.sampling, out.constraint) == (
        request_.key, request_.prompt, request_.sampling, request_.constraint,
    )  # fmt: skip
    assert (out.seed, out.max_tokens, out.lora, out.partial, out.target) == (
        request_.seed, request_.max_tokens, request_.lora, request_.partial, request_.target,
    )  # fmt: skip
    assert (out.token_ids is None) == (request_.token_ids is None)
    assert list(out.token_ids or ()) == list(request_.token_ids or ())
    assert list(out.target_ids) == list(request_.target_ids)
    assert out.pooling == request_.pooling


@pytest.mark.parametrize(
    "outcome",
    [
        Completion(RequestKey(1, 2), "text", "stop", Usage(5, 3, 1), (7, 8), "thought", 2, [{"token": "a"}]),
        Completion(RequestKey(1), "", "stop", Usage(5, 1), score=Score(-1.5, True, 3)),
        Completion(RequestKey(1), '["a", "b"]', "stop", Usage(5), numbers=array("f", [0.1, float("inf")])),
        Completion(RequestKey(1), "", "stop", Usage(5, 1), tool_calls=[{"type": "function"}]),
        Refusal(RequestKey(4), Failure(FailureKind.TOO_LONG, "it is")),
    ],
    ids=["answer", "score", "numbers", "calls", "refusal"],
)
def test_an_outcome_comes_out_as_it_went_in(outcome: Outcome) -> None:
    (out,) = outcomes_of(crossed(answered([outcome], Usage(), 0.0)))
    if isinstance(outcome, Completion) and isinstance(out, Completion):
        assert tuple(out.token_ids) == tuple(outcome.token_ids)
        out.token_ids = outcome.token_ids  # type: ignore[misc]
    assert out == outcome


@pytest.mark.parametrize(
    "special",
    [
        {"reasoning": "thought"},
        {"stop_reason": ";"},
        {"logprobs": []},
        {"finish_reason": "length"},
        {"key": RequestKey(3, attempt=2)},
        {"key": RequestKey(3, sample=1)},
        {"key": RequestKey(3, 1)},
        {"key": RequestKey(3, share=1)},
    ],
    ids=str,
)
def test_of_a_whole_first_answer_the_token_ids_stay_and_of_any_other_they_come_along(special: dict[str, Any]) -> None:
    plain = Completion(RequestKey(3), "done", "stop", Usage(5, 3, 1), (7, 8))
    other = replace(plain, **special)
    first, second = outcomes_of(crossed(answered([plain, other], Usage(), 0.0)))
    assert first == replace(plain, token_ids=())
    assert isinstance(second, Completion)
    assert replace(second, token_ids=tuple(second.token_ids)) == other


def test_equal_settings_are_one_object_on_the_other_side_whichever_message_they_came_in() -> None:
    asked = Asked()
    requests = [
        request
        for number in range(2)
        for request in asked.requests(
            crossed(ask(Request(RequestKey(number, i), CHAT, GREEDY, SCHEMA, token_ids=[1]) for i in range(2)))
        )
    ]
    assert len({id(request.sampling) for request in requests}) == 1
    assert len({id(request.constraint) for request in requests}) == 1


@pytest.mark.parametrize("kind", [JobError, OutOfMemory, EngineError])
def test_what_kept_an_engine_from_starting_is_the_same_error_here(kind: type[LlmbatchError]) -> None:
    error = error_of(crossed(failed(kind("why"))))
    assert (type(error), str(error)) == (kind, "why")


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("suspect", [True, False])
def test_a_death_says_the_same_here(memory: bool, suspect: bool) -> None:
    death = EngineDied("why", suspect=suspect)
    death.__cause__ = OutOfMemory("full") if memory else None
    out = death_of(crossed(died(death)))
    assert (str(out), out.suspect, isinstance(out.__cause__, OutOfMemory)) == ("why", suspect, memory)
