"""What the openai engine sends and reads, held against the classes of vLLM's own server; no engine is started."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llmbatch.core.sampling import LOOPS, Loops
from llmbatch.core.types import Completion, Constraint, Prompt, Request, RequestKey, Sampling
from llmbatch.engines.http.base import Packed, Reply
from llmbatch.engines.openai.dialect import OWNERS, VLLM
from llmbatch.engines.openai.wire import OpenAIWire
from llmbatch.engines.spacing import as_xgrammar

pytestmark = pytest.mark.vllm

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
SAMPLING = {
    "max_tokens": 9, "min_tokens": 1, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "presence_penalty": 0.1,
    "frequency_penalty": 0.1, "repetition_penalty": 1.1, "stop": ("x",), "stop_token_ids": (3,), "include_stop_str_in_output": True,
    "ignore_eos": True, "skip_special_tokens": False, "spaces_between_special_tokens": False, "logprobs": 2,
    "logit_bias": ((5, 1.0),), "allowed_token_ids": (1, 2), "bad_words": ("y",), "thinking_token_budget": 4, "n": 3,
}  # fmt: skip


def sent(request: Request) -> dict[str, Any]:
    packed = OpenAIWire("m", VLLM, {}, {"thinking": False}, lambda _: None).pack(request)
    assert isinstance(packed, Packed)
    body: dict[str, Any] = json.loads(packed.body)
    return body


def asked(prompt: Prompt, constraint: Constraint | None = None, sampling: dict[str, Any] | None = None) -> Request:
    return Request(RequestKey(0), prompt, Sampling(tuple(sorted((sampling or {}).items()))), constraint, seed=7)


def read(answer: Any) -> Completion:
    reply = Reply(200, {}, answer.model_dump_json().encode())
    outcome = OpenAIWire("m", VLLM, {}, {}, lambda _: None).read(asked(Prompt(messages=(USER,))), reply)
    assert isinstance(outcome, Completion)
    return outcome


@pytest.fixture(params=["chat", "completions"])
def request_class(request: pytest.FixtureRequest) -> tuple[type[Any], Prompt]:
    """(vLLM's class of a request, a prompt that is one)."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    if request.param == "chat":
        return ChatCompletionRequest, Prompt(messages=(USER,))
    return CompletionRequest, Prompt(text="hi")


def test_each_sampling_setting_arrives_as_it_was_set(request_class: tuple[type[Any], Prompt]) -> None:
    kind, prompt = request_class
    understood = kind.model_validate(sent(asked(prompt, sampling=SAMPLING)))
    for name, value in SAMPLING.items():
        if name in ("logprobs", "logit_bias", "n"):
            continue
        assert getattr(understood, name) == (list(value) if isinstance(value, tuple) else value), name
    assert understood.logit_bias == {"5": 1.0}
    assert understood.seed == 7
    assert understood.n == 1, "several answers are several requests"
    assert (getattr(understood, "top_logprobs", None) or understood.logprobs) == 2


def test_when_an_answer_runs_in_circles_arrives(request_class: tuple[type[Any], Prompt]) -> None:
    kind, prompt = request_class
    understood = kind.model_validate(sent(asked(prompt, sampling={LOOPS: Loops(4, 2, 30), "max_tokens": 9})))
    told = understood.to_sampling_params(9, {}).repetition_detection
    assert (told.min_count, told.min_pattern_size, told.max_pattern_size) == (4, 2, 30)
    assert LOOPS not in sent(asked(prompt, sampling={LOOPS: Loops(4, 2, 30)}))


@pytest.mark.parametrize(
    ("constraint", "name", "value"),
    [
        (Constraint("choice", '["a", "b"]'), "choice", ["a", "b"]),
        (Constraint("regex", "a+"), "regex", "a+"),
        (Constraint("grammar", 'root ::= "a"'), "grammar", 'root ::= "a"'),
    ],
)
def test_constraints_arrive(
    request_class: tuple[type[Any], Prompt], constraint: Constraint, name: str, value: Any
) -> None:
    kind, prompt = request_class
    understood = kind.model_validate(sent(asked(prompt, constraint)))
    assert getattr(understood.structured_outputs, name) == value


def test_a_schema_arrives(request_class: tuple[type[Any], Prompt]) -> None:
    kind, prompt = request_class
    understood = kind.model_validate(sent(asked(prompt, Constraint("json", json.dumps(SCHEMA)))))
    assert understood.structured_outputs.grammar == as_xgrammar(json.dumps(SCHEMA))
    without = OpenAIWire("m", replace(VLLM, grammars=False), {}, {}, lambda _: None)
    body = without.body(asked(prompt, Constraint("json", json.dumps(SCHEMA))))
    schema = kind.model_validate(body).response_format.json_schema.json_schema
    assert {key: value for key, value in schema.items() if key != "x-guidance"} == SCHEMA


def test_a_prefill_is_understood_as_one() -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    understood = ChatCompletionRequest.model_validate(sent(asked(Prompt(messages=(USER,), prefill="So"))))
    assert (understood.continue_final_message, understood.add_generation_prompt) == (True, False)
    assert understood.chat_template_kwargs == {"thinking": False}


def test_an_answer_of_chat_is_read() -> None:
    from vllm.entrypoints.openai.chat_completion import protocol

    tops = [
        protocol.ChatCompletionLogProb(token="a", logprob=-0.5),
        protocol.ChatCompletionLogProb(token="b", logprob=-0.1),
    ]
    entry = protocol.ChatCompletionLogProbsContent(token="a", logprob=-0.5, top_logprobs=tops)
    choice = protocol.ChatCompletionResponseChoice(
        index=0, message=protocol.ChatMessage(role="assistant", content="a", reasoning="hm"), finish_reason="length",
        logprobs=protocol.ChatCompletionLogProbs(content=[entry]),
    )  # fmt: skip
    usage = protocol.UsageInfo(prompt_tokens=3, completion_tokens=1, total_tokens=4)
    found = read(protocol.ChatCompletionResponse(model="m", choices=[choice], usage=usage))
    assert (found.text, found.reasoning, found.finish_reason) == ("a", "hm", "length")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (3, 1)
    assert found.logprobs is not None
    assert [top["token"] for top in found.logprobs[0]["top"]] == ["b", "a"]


def test_who_owns_its_models_tells_that_it_is_vllm() -> None:
    from vllm.entrypoints.serve.engine.protocol import ModelCard

    card = ModelCard(id="m", max_model_len=512).model_dump()
    assert OWNERS[card["owned_by"]] == "vllm"
    assert card["max_model_len"] == 512
