from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.types import Failure, FailureKind, Prompt, Rendered
from llmbatch.formats.base import wire_format

VERTEX, API = wire_format("gemini"), wire_format("gemini_api")
USER = [{"role": "user", "parts": [{"text": "one loaf"}]}]
SCHEMA = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}, "required": ["a"]}
JSON_SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: not text.isspace())
MESSAGES = st.builds(
    lambda system, turns, last: (*system, *turns, last),
    st.lists(st.fixed_dictionaries({"role": st.just("system"), "content": TEXT}), max_size=1),
    st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}), max_size=2),
    st.fixed_dictionaries({"role": st.just("user"), "content": TEXT}),
)
SAMPLING = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 4096),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0.1, 1),
        "top_k": st.integers(1, 100),
        "seed": st.integers(0, 2**31),
        "n": st.integers(1, 4),
        "stop": st.lists(TEXT, min_size=1, max_size=2),
        "logprobs": st.integers(0, 5),
        "min_p": st.floats(0, 1),
        "ignore_eos": st.booleans(),
        "thinking_token_budget": st.integers(0, 9),
    },
)
OUTPUTS = st.none() | st.sampled_from(
    [{"schema": {"type": "object"}}, {"choice": ["a", "b"]}, {"regex": "[ab]+"}, {"grammar": 'root ::= "a"'}]
)


@given(st.builds(Prompt, messages=MESSAGES, prefill=st.just("") | TEXT), SAMPLING, OUTPUTS)
def test_a_request_reads_back_as_the_same(
    prompt: Prompt, sampling: dict[str, Any], output: dict[str, Any] | None
) -> None:
    line = json.loads(json.dumps(API.write("id-5", Rendered(prompt, sampling, output), "m")))
    assert line["key"] == "id-5"
    assert API.read(line, ()) == Rendered(prompt, sampling, output)
    assert VERTEX.read(VERTEX.write("id-5", Rendered(prompt, sampling, output), None), ()) == Rendered(
        prompt, sampling, output
    )


def read(config: dict[str, Any] | None = None, **request: Any) -> Rendered | Failure | None:
    made = {"contents": USER, **({} if config is None else {"generationConfig": config}), **request}
    return VERTEX.read({"request": made}, {"poet"})


def rendered(config: dict[str, Any] | None = None, **request: Any) -> Rendered:
    found = read(config, **request)
    assert isinstance(found, Rendered), found
    return found


def failure(config: dict[str, Any] | None = None, **request: Any) -> str:
    found = read(config, **request)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.PROMPT
    return found.message


def test_every_setting_of_geminis_has_a_name_of_ours() -> None:
    config = {
        "temperature": 0.5, "topP": 0.9, "topK": 40.0, "maxOutputTokens": "64", "stopSequences": ["x"], "candidateCount": 2,
        "seed": 7, "presencePenalty": 0.1, "frequencyPenalty": 0.2, "responseLogprobs": True, "logprobs": 3,
        "thinkingConfig": {"thinkingBudget": 100, "includeThoughts": True}, "responseMimeType": "text/plain",
        "responseModalities": ["TEXT"], "mediaResolution": "MEDIA_RESOLUTION_LOW", "audioTimestamp": False,
    }  # fmt: skip
    assert rendered(config).sampling == {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "max_tokens": 64, "stop": ["x"], "n": 2, "seed": 7,
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "logprobs": 3, "thinking_token_budget": 100,
    }  # fmt: skip


def test_names_in_snake_case_say_the_same() -> None:
    request = {
        "contents": USER,
        "generation_config": {
            "max_output_tokens": 5,
            "response_mime_type": "application/json",
            "response_schema": SCHEMA,
        },
        "system_instruction": {"parts": [{"text": "be short"}]},
        "safety_settings": [{"category": "a"}],
    }
    found = VERTEX.read({"request": request}, ())
    assert found == Rendered(
        Prompt(messages=({"role": "system", "content": "be short"}, {"role": "user", "content": "one loaf"})),
        {"max_tokens": 5},
        {"schema": JSON_SCHEMA},
    )


def test_turns_keep_their_order_and_thoughts_are_no_part_of_what_was_said() -> None:
    contents = [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "c", "thoughtSignature": "x"}]},
        {"role": "user", "parts": {"text": "d"}},
    ]
    assert rendered(contents=contents).prompt.messages == (
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    )


def test_an_answer_goes_on_from_a_last_turn_of_the_models() -> None:
    found = rendered(contents=[*USER, {"role": "model", "parts": [{"text": "It"}]}])
    assert found.prompt == Prompt(messages=({"role": "user", "content": "one loaf"},), prefill="It")


def test_a_role_may_be_left_out_in_the_gemini_api_alone() -> None:
    contents = [{"parts": [{"text": "x"}]}]
    found = API.read({"key": "a", "request": {"contents": contents}}, ())
    assert isinstance(found, Rendered)
    assert "contents[0].role is None. Please use a valid role: user, model." in failure(contents=contents)


@pytest.mark.parametrize(
    ("config", "output"),
    [
        ({}, None),
        ({"responseMimeType": "text/plain"}, None),
        ({"responseMimeType": "application/json"}, {"schema": {"anyOf": [{"type": "object"}, {"type": "array"}]}}),
        ({"responseMimeType": "application/json", "responseSchema": SCHEMA}, {"schema": JSON_SCHEMA}),
        ({"responseJsonSchema": {"type": "object", "x": 1}}, {"schema": {"type": "object", "x": 1}}),
        (
            {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["a", "b"]}},
            {"choice": ["a", "b"]},
        ),
    ],
)
def test_what_an_answer_is_held_to(config: dict[str, Any], output: dict[str, Any] | None) -> None:
    assert rendered(config).output == output


def test_a_model_that_is_an_adapter_is_taken() -> None:
    assert rendered(model="models/poet").lora == "poet"
    assert rendered(model="models/gemini-2.5-flash").lora is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"topQ": 1}, "generationConfig.topQ is not supported (did you mean 'topP'?)"),
        ({"speechConfig": {}}, "generationConfig.speechConfig is not supported"),
        ({"responseModalities": ["AUDIO"]}, "generationConfig.responseModalities = ['AUDIO'] is not supported"),
        ({"temperature": -1}, "generationConfig.temperature is -1, and must be at least 0"),
        ({"temperature": "hot"}, "generationConfig.temperature is of type string"),
        ({"maxOutputTokens": 1.5}, "generationConfig.maxOutputTokens must be a whole number, and is 1.5"),
        ({"maxOutputTokens": 0}, "generationConfig.maxOutputTokens is 0"),
        ({"topK": 1, "top_k": 2}, "generationConfig has topK twice, once as top_k"),
        ({"logprobs": 2}, "generationConfig.logprobs needs responseLogprobs = true"),
        ({"responseLogprobs": True, "logprobs": -7}, "generationConfig.logprobs is -7"),
        ({"thinkingConfig": {"thinkingLevel": "high"}}, "generationConfig.thinkingConfig.thinkingLevel is not supported: set"),
        ({"thinkingConfig": 3}, "generationConfig.thinkingConfig must be an object"),
        ({"responseMimeType": "application/xml"}, "generationConfig.responseMimeType is 'application/xml'; known are"),
        ({"responseMimeType": "text/x.enum"}, "text/x.enum needs a responseSchema with an enum of texts"),
        ({"responseMimeType": "text/plain", "responseSchema": SCHEMA}, "generationConfig.responseSchema needs responseMimeType ="),
        ({"responseSchema": SCHEMA, "responseJsonSchema": {}}, "responseSchema and responseJsonSchema cannot be given together"),
        ({"responseSchema": {"typ": 1}}, "generationConfig.responseSchema.typ is not supported"),
        ({"responseJsonSchema": []}, "generationConfig.responseJsonSchema must be a JSON Schema"),
        ({"guidedRegex": 1}, "generationConfig.guidedRegex must be a text"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_done_is_a_failure_by_its_name(config: dict[str, Any], said: str) -> None:
    assert said in failure(config)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"tools": [{"googleSearch": {}}]}, "request.tools is not supported: tool calls are not supported"),
        ({"cachedContent": "cachedContents/a"}, "request.cachedContent is not supported: put what is cached"),
        ({"content": []}, "request.content is not supported (did you mean 'contents'?)"),
        ({"contents": []}, "request.contents must be a list with what was said, and is []"),
        ({"contents": None}, "request.contents must be a list with what was said, and is not there"),
        ({"contents": [3]}, "contents[0] must be an object"),
        ({"contents": [{"role": "user"}]}, "contents[0].parts must be a list of parts with a text, and is None"),
        ({"contents": [{"role": "function", "parts": []}]}, "contents[0].role is 'function'. Please use a valid role"),
        ({"contents": [{"role": "user", "parts": [{"inlineData": {}, "text": "a"}]}]}, "contents[0].parts[0].inlineData is not"),
        ({"contents": [{"role": "user", "parts": [{"text": 3}]}]}, "contents[0].parts[0] has no text"),
        ({"contents": [{"role": "user", "parts": [{"text": "\ud83d"}]}]}, "holds half a surrogate pair"),
        ({"contents": [{"role": "model", "parts": [{"text": "a"}]}]}, "request.contents has nothing that the user says"),
        ({"systemInstruction": "be short"}, "systemInstruction must be an object"),
        ({"generationConfig": []}, "generationConfig must be an object"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_done_is_a_failure_by_its_name(request_: dict[str, Any], said: str) -> None:
    assert said in failure(**request_)


@pytest.mark.parametrize("request_", [None, 3, [], "text"])
def test_what_is_no_request_at_all_is_a_failure(request_: Any) -> None:
    found = VERTEX.read({"request": request_}, ())
    assert isinstance(found, Failure)
    assert "request must be an object" in found.message


def test_a_blank_prompt_is_told_from_a_wrong_one() -> None:
    found = read(contents=[{"role": "user", "parts": [{"text": " \n"}]}])
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.EMPTY_PROMPT
