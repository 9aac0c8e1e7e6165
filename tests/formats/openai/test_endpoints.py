from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest

from llmbatch.core.types import Failure, Prompt, Rendered
from llmbatch.formats.base import Answered, Asked, wire_format
from llmbatch.formats.openai.format import answer
from llmbatch.formats.outcome import Success

USER = {"role": "user", "content": "hi"}


def read(url: str, **body: Any) -> Rendered | Failure | None:
    return wire_format("openai").read({"custom_id": "a", "method": "POST", "url": url, "body": body}, ("poet",))


def failed(url: str, **body: Any) -> str:
    found = read(url, **body)
    assert isinstance(found, Failure), found
    return found.message


def answered(url: str, output: Any, body: Any = (), **record: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1}
    told = {"id": "a", "index": 7, "status": "ok", "output": output, "finish_reason": "stop", "usage": usage, **record}
    asked = Asked("chat" in url, len(output) if isinstance(output, list) else 1, "embeddings" in url)
    row = {"custom_id": "a", "url": url, "body": dict(body)}
    return answer(Answered(told, row, asked, "demo", 5), Success(output, told["finish_reason"]))


@pytest.mark.parametrize("url", ["/v1/chat/completions", "/chat/completions"])
def test_azure_s_url_is_openai_s_without_its_version(url: str) -> None:
    assert read(url, messages=[USER]) == Rendered(Prompt(messages=(USER,)))


@pytest.mark.parametrize(
    ("given", "first", "more"),
    [
        ("one", Prompt(text="one"), ()),
        (["one"], Prompt(text="one"), ()),
        (["one", "two"], Prompt(text="one"), (Prompt(text="two"),)),
        ([5, 6], Prompt(ids=(5, 6)), ()),
        ([[5], [6, 7]], Prompt(ids=(5,)), (Prompt(ids=(6, 7)),)),
    ],
    ids=str,
)
def test_a_prompt_is_a_text_or_token_ids_or_a_list_of_either(
    given: Any, first: Prompt, more: tuple[Prompt, ...]
) -> None:
    assert read("/v1/completions", prompt=given) == Rendered(first, more=more)
    assert read("/embeddings", input=given) == Rendered(first, vector=True, more=more)


def test_several_prompts_read_back_as_the_same() -> None:
    for rendered in (
        Rendered(Prompt(text="a"), more=(Prompt(text="b"),)),
        Rendered(Prompt(ids=(1, 2)), more=(Prompt(ids=(3,)),), vector=True, dimensions=2),
    ):
        assert wire_format("openai").read(wire_format("openai").write("a", rendered, "m"), ()) == rendered


def test_an_embedding_may_say_how_many_numbers() -> None:
    assert read("/v1/embeddings", input="a", dimensions=4) == Rendered(Prompt(text="a"), vector=True, dimensions=4)


def test_a_response_is_a_chat() -> None:
    rendered = read(
        "/v1/responses",
        model="poet",
        instructions="Be kind.",
        input=[
            USER,
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
            USER,
        ],
        max_output_tokens=9,
        temperature=0,
        tools=[],
        top_logprobs=0,
        text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}, "verbosity": "medium"},
    )
    messages = ({"role": "system", "content": "Be kind."}, USER, {"role": "assistant", "content": "yes"}, USER)
    sampling, output = {"max_tokens": 9, "temperature": 0}, {"schema": {"type": "object"}}
    assert rendered == Rendered(Prompt(messages=messages), sampling, output, "poet")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "body.input must be a text, or a list of messages"),
        ({"input": [{"type": "function_call_output"}]}, "body.input: message 1 of 1 must have a content"),
        ({"input": [{"type": "web_search_call"}]}, "an item of the type 'web_search_call'"),
        ({"input": [{"role": "user"}]}, "body.input: message 1 of 1"),
        ({"input": "a", "instructions": 1}, "body.instructions must be a text"),
        ({"input": "a", "max_output_tokens": 0}, "body.max_output_tokens is 0"),
        ({"input": "a", "previous_response_id": "resp_1"}, "responses are not kept"),
        ({"input": "a", "text": {"format": {"type": "xml"}}}, "body.text.format must have the type"),
        ({"input": "a", "text": {"format": {"type": "json_schema"}}}, "body.text.format must be a JSON Schema"),
        ({"input": "a", "text": {"verbosity": "low"}}, "body.text.verbosity"),
        ({"input": "a", "text": {"tone": "x"}}, "has tone"),
        ({"input": "a", "n": 2}, "a response has one answer"),
        ({"input": "a", "top_logprobs": 2}, "no log-probabilities"),
        ({"input": "a", "max_outptu_tokens": 2}, "did you mean 'max_output_tokens'?"),
    ],
    ids=str,
)
def test_what_a_response_cannot_be_asked_with_is_the_row_s_failure(body: dict[str, Any], said: str) -> None:
    assert said in failed("/v1/responses", **body)


def test_choices_of_several_prompts_stand_in_the_order_of_these_with_what_was_asked_before_them() -> None:
    body = answered("/v1/completions", ["A", "B", "C", "D"], {"prompt": ["x", "y"], "n": 2, "echo": True})
    assert [(c["index"], c["text"]) for c in body["choices"]] == [(0, "xA"), (1, "xB"), (2, "yC"), (3, "yD")]


def test_each_choice_has_its_own_finish_reason() -> None:
    details = {"finish_reasons": ["length", "repetition"]}
    body = answered("/v1/chat/completions", ["A", "B"], {"messages": []}, details=details)
    assert [choice["finish_reason"] for choice in body["choices"]] == ["length", "stop"]


def test_text_offsets_are_those_of_the_answer_s_tokens() -> None:
    tokens = [{"token": "ab", "logprob": -1.0, "top": []}, {"token": "c", "logprob": -2.0, "top": []}]
    [choice] = answered("/v1/completions", "abc", {"prompt": "x", "logprobs": 0}, logprobs=tokens)["choices"]
    assert choice["logprobs"]["text_offset"] == [0, 2]


@pytest.mark.parametrize(
    ("output", "numbers"), [([0.5, 1.0], [[0.5, 1.0]]), ([[0.5, 1.0], [2.0, 3.0]], [[0.5, 1.0], [2.0, 3.0]])], ids=str
)
def test_embeddings_come_as_numbers_or_as_base64(output: Any, numbers: list[list[float]]) -> None:
    plain = answered("/v1/embeddings", output)["data"]
    assert [each["embedding"] for each in plain] == numbers
    coded = answered("/v1/embeddings", output, {"encoding_format": "base64"})["data"]
    assert [list(struct.unpack("<2f", b64decode(each["embedding"]))) for each in coded] == numbers
    assert [each["index"] for each in coded] == list(range(len(numbers)))


def test_a_response_that_was_cut_off_is_incomplete() -> None:
    body = answered("/v1/responses", "abc", {"input": "x"}, finish_reason="length", reasoning="hm")
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["type"] for item in body["output"]] == ["reasoning", "message"]


def _chat() -> Any:
    from openai.types.chat import ChatCompletion

    return ChatCompletion


def _completion() -> Any:
    from openai.types import Completion

    return Completion


def _embeddings() -> Any:
    from openai.types import CreateEmbeddingResponse

    return CreateEmbeddingResponse


def _response() -> Any:
    from openai.types.responses import Response

    return Response


@pytest.mark.parametrize(
    ("kind", "url", "output", "body", "more"),
    [
        (_chat, "/v1/chat/completions", "x", {"messages": [USER]}, {"reasoning": "hm"}),
        (_chat, "/v1/chat/completions", ["x", "y"], {"messages": [USER], "n": 2}, {}),
        (_completion, "/v1/completions", "x", {"prompt": "y", "echo": True}, {}),
        (_embeddings, "/v1/embeddings", [0.5], {"input": "y"}, {}),
        (_response, "/v1/responses", "x", {"input": "y", "temperature": 0.5}, {"reasoning": "hm"}),
        (_response, "/v1/responses", "x", {"input": "y"}, {"finish_reason": "length"}),
    ],
)
def test_the_client_s_own_types_take_every_body_strictly(
    kind: Callable[[], Any], url: str, output: Any, body: dict[str, Any], more: dict[str, Any]
) -> None:
    pytest.importorskip("openai")
    made = answered(url, output, body, **more)
    back = kind().model_validate(made, strict=True)
    assert back.to_dict(exclude_unset=True) == made
