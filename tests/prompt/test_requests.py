from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.types import Cursor, Failure, FailureKind, Rendered, Row
from llmbatch.formats.base import wire_format
from llmbatch.prompt.requests import RequestsPrompt

USER = [{"role": "user", "content": "hi"}]


def row(body: Any, **data: Any) -> Row:
    return Row(2, "q2", {"custom_id": "q2", "body": body, **data}, Cursor(2))


def rendered(**body: Any) -> Rendered:
    result = RequestsPrompt(wire_format("openai"), adapters={"poet": "path"}).render(row({"messages": USER, **body}))
    assert isinstance(result, Rendered), result
    return result


def failure(body: Any, **data: Any) -> Failure:
    result = RequestsPrompt(wire_format("openai")).render(row(body, **data))
    assert isinstance(result, Failure), result
    return result


def test_messages_become_the_prompt() -> None:
    result = rendered()
    assert result.prompt.messages == ({"role": "user", "content": "hi"},)
    assert dict(result.sampling) == {}
    assert result.output is None


def test_a_text_prompt_is_a_completion() -> None:
    result = RequestsPrompt(wire_format("openai")).render(
        row({"prompt": "Once", "max_tokens": 5}, url="/v1/completions", method="POST")
    )
    assert isinstance(result, Rendered)
    assert result.prompt.text == "Once"
    assert dict(result.sampling) == {"max_tokens": 5}


def test_sampling_has_vllm_s_names() -> None:
    result = rendered(
        max_completion_tokens=9, max_tokens=5, temperature=0, stop=["x"], logit_bias={"7": -1}, top_k=3, seed=None
    )
    assert result.sampling == {"max_tokens": 9, "temperature": 0, "stop": ["x"], "logit_bias": {7: -1.0}, "top_k": 3}


@pytest.mark.parametrize(
    ("body", "logprobs"),
    [
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 3}, 3),
        ({"logprobs": False}, None),
        ({"logprobs": 2}, 2),
    ],
)
def test_logprobs_are_a_count(body: dict[str, Any], logprobs: int | None) -> None:
    assert rendered(**body).sampling.get("logprobs") == logprobs


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"schema": {"type": "object"}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}},
            {"schema": {"type": "array"}},
        ),
        ({"structured_outputs": {"choice": ["a", "b"], "json": None}}, {"choice": ["a", "b"]}),
        ({"structured_outputs": {"json_object": True}}, {"schema": {"type": "object"}}),
        ({"structured_outputs": {"regex": "a+", "disable_any_whitespace": False}}, {"regex": "a+"}),
        ({"guided_json": {"type": "object"}}, {"schema": {"type": "object"}}),
        ({"guided_grammar": "root ::= 'a'"}, {"grammar": "root ::= 'a'"}),
    ],
)
def test_what_the_answer_is_held_to_is_read(body: dict[str, Any], output: dict[str, Any] | None) -> None:
    assert rendered(**body).output == output


def test_a_final_message_to_go_on_from_is_the_prefill() -> None:
    messages = [*USER, {"role": "assistant", "content": "Dear"}]
    result = rendered(messages=messages, continue_final_message=True, add_generation_prompt=False)
    assert result.prompt.messages == ({"role": "user", "content": "hi"},)
    assert result.prompt.prefill == "Dear"


def test_a_model_that_is_an_adapter_is_the_row_s_adapter() -> None:
    assert rendered(model="poet").lora == "poet"
    assert rendered(model="gpt-4o").lora is None


def test_keys_that_do_not_touch_the_answer_are_ignored() -> None:
    body = {
        "model": "m",
        "user": "u",
        "metadata": {"a": "b"},
        "store": True,
        "stream": False,
        "tools": [],
        "n": None,
        "foo": None,
    }
    assert dict(rendered(**body).sampling) == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("x", "body must be an object"),
        ({}, "either messages or prompt, and has neither"),
        ({"messages": USER, "prompt": "x"}, "has both"),
        ({"messages": []}, "body.messages: has no message"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "has an image without a URL"),
        ({"prompt": ["a", 1]}, "body.prompt must be one text, or token ids, or a list"),
        ({"prompt": []}, "body.prompt must be one text, or token ids, or a list"),
        ({"prompt": [1], "echo": True}, "token ids without logprobs"),
        ({"prompt": "a", "echo": "yes"}, "body.echo is of type string"),
        ({"prompt": "a\ud800"}, "half a surrogate pair"),
        ({"messages": USER, "temprature": 0}, "body.temprature is not supported (did you mean 'temperature'?)"),
        ({"messages": USER, "temperature": "hot"}, "body.temperature is of type string"),
        ({"messages": USER, "stream": True}, "answers are not streamed"),
        ({"messages": USER, "tools": [{"type": "function"}]}, "body.tools: number 1 is no function"),
        ({"messages": USER, "chat_template_kwargs": {"enable_thinking": False}}, "chat.template_kwargs"),
        ({"messages": USER, "reasoning_effort": "high"}, "chat.template_kwargs"),
        ({"messages": USER, "top_logprobs": 3}, "needs body.logprobs = true"),
        ({"messages": USER, "logit_bias": {"a": 1}}, "maps token ids to numbers"),
        ({"messages": USER, "add_generation_prompt": False}, "body.add_generation_prompt"),
        ({"messages": USER, "continue_final_message": True}, "needs a last message of the assistant's"),
        ({"messages": USER, "response_format": {"type": "xml"}}, "must have the type text, json_object or json_schema"),
        ({"messages": USER, "response_format": "json"}, "must have the type text, json_object or json_schema"),
        ({"messages": USER, "response_format": {"type": "json_schema"}}, "must be a JSON Schema"),
        (
            {"messages": USER, "structured_outputs": {"structural_tag": "x"}},
            "must have one of json, choice, regex and grammar",
        ),
        ({"messages": USER, "structured_outputs": {"choice": []}}, "must be a list of texts"),
        ({"messages": USER, "guided_regex": "a", "guided_choice": ["b"]}, "in more than one way"),
    ],
)
def test_what_is_not_supported_is_a_failure_that_names_it(body: Any, words: str) -> None:
    found = failure(body)
    assert found.kind is FailureKind.PROMPT
    assert found.message.startswith("row 'q2': ")
    assert words in found.message


def test_another_url_is_a_failure() -> None:
    assert "'/v1/moderations' is not supported" in failure({"input": "x"}, url="/v1/moderations").message


def test_a_request_for_an_embedding_is_a_failure_of_a_job_that_asks_for_text() -> None:
    assert "take --program embed" in failure({"input": "x"}, url="/v1/embeddings").message


def test_a_blank_prompt_is_a_failure_of_its_kind() -> None:
    assert failure({"messages": [{"role": "user", "content": " "}]}).kind is FailureKind.EMPTY_PROMPT
    assert failure({"prompt": ""}).kind is FailureKind.EMPTY_PROMPT


def test_a_row_that_could_not_be_read_keeps_its_own_failure() -> None:
    broken = Failure(FailureKind.MALFORMED_ROW, "line 3: not JSON")
    assert RequestsPrompt(wire_format("openai")).render(Row(3, 3, {}, Cursor(3), broken)) is broken
