"""Tools in the bodies of OpenAI's chats and responses, and the calls in what answers them."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.tools import call_of
from llmbatch.core.types import Rendered, Tools
from llmbatch.formats.base import Answered, Asked
from llmbatch.formats.openai import chat, responses
from llmbatch.formats.openai.body import RequestError
from llmbatch.formats.openai.format import CHAT, RESPONSES
from llmbatch.formats.openai.lines import line_of

USER = {"role": "user", "content": "Weather in Bern?"}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Now", "parameters": PARAMETERS}}
NAMED = {"type": "function", "function": {"name": "weather"}}
CALL = call_of("weather", '{"city": "Bern"}')


def read(**body: Any) -> Rendered:
    return chat.read({"model": "m", "messages": [USER], **body}, ())


def test_tools_are_offered_as_they_are() -> None:
    rendered = read(tools=[WEATHER])
    assert rendered.prompt.tools == Tools((WEATHER,))
    assert rendered.output is None
    assert read(tools=[]).prompt.tools is None
    assert read(tool_choice="auto").prompt.tools is None


@pytest.mark.parametrize(
    ("given", "choice"),
    [("auto", "auto"), ("none", "none"), ("required", "required"), (NAMED, "named"), (None, "auto")],
    ids=["auto", "none", "required", "named", "unsaid"],
)
def test_what_is_to_be_called_is_read_and_written_again(given: Any, choice: str) -> None:
    rendered = read(
        tools=[WEATHER], tool_choice=given, parallel_tool_calls=False, response_format={"type": "json_object"}
    )
    tools = rendered.prompt.tools
    assert tools is not None and tools.choice == choice
    forced = choice in ("required", "named")
    assert (rendered.output == {"schema": {"type": "object"}}) is not forced, "a call has a form of its own"
    again = chat.read(chat.write(rendered), ())
    assert again == rendered


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"tools": {}}, "tools", "must be a list of tools"),
        ({"tools": ["x"]}, "tools", "number 1 is no function"),
        ({"tools": [{"type": "web_search"}]}, "tools", "number 1 is no function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools", "has the name 'a b'"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]}, "tools", "no JSON Schema"),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"$defs": 5}}}]},
            "tools", "no JSON Schema",
        ),
        ({"tools": [{"type": "function", "function": {"name": "a", "description": 5}}]}, "tools", "description of a"),
        ({"tools": [WEATHER, WEATHER]}, "tools", "two of the name 'weather'"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools, and there are none"),
        ({"tools": [WEATHER], "tool_choice": "weather"}, "tool_choice", "must be none, auto, required or"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice", "must be none, auto, required or"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weathr"}}},
            "tool_choice", "did you mean 'weather'?",
        ),
        ({"tools": [WEATHER], "parallel_tool_calls": "no"}, "parallel_tool_calls", "must be true or false"),
        ({"functions": [{"name": "a"}]}, "functions", "tools"),
    ],
)  # fmt: skip
def test_what_cannot_be_offered_is_named(body: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(RequestError, match="body") as caught:
        read(**body)
    assert caught.value.param == param
    assert words in str(caught.value)


def answered(body: dict[str, Any], calls: Any, output: Any = None, endpoint: str = CHAT, **asked: Any) -> Any:
    record = {
        "id": "a", "index": 7, "status": "ok", "output": output, "finish_reason": "stop", "tool_calls": calls,
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 0},
    }  # fmt: skip
    row = {"custom_id": "a", "url": endpoint, "body": body}
    return line_of(Answered(record, row, Asked(**asked), "m", 1)).data["response"]["body"]


def test_an_answer_has_the_calls_with_an_id_each() -> None:
    (choice,) = answered({"messages": [USER], "tools": [WEATHER]}, [CALL, CALL], "Let me see.")["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see."
    assert [call["function"] for call in choice["message"]["tool_calls"]] == [CALL["function"]] * 2
    assert len({call["id"] for call in choice["message"]["tool_calls"]}) == 2
    (choice,) = answered({"messages": [USER], "tools": [WEATHER], "tool_choice": NAMED}, [CALL])["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "stop")


def test_of_several_answers_each_has_its_own_calls() -> None:
    first, second = answered({"messages": [USER], "n": 2}, [[CALL], None], [None, "Rain."], samples=2)["choices"]
    assert first["message"]["tool_calls"][0]["function"] == CALL["function"]
    assert (second["message"]["content"], "tool_calls" in second["message"]) == ("Rain.", False)


def test_a_call_goes_back_with_what_it_gave() -> None:
    (choice,) = answered({"messages": [USER], "tools": [WEATHER]}, [CALL])["choices"]
    call = choice["message"]["tool_calls"][0]
    gave = {"role": "tool", "tool_call_id": call["id"], "content": ""}
    prompt = read(messages=[USER, choice["message"], gave], tools=[WEATHER]).prompt
    assert prompt.messages == (USER, {"role": "assistant", "content": "", "tool_calls": [call]}, gave)


FLAT = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]


def test_a_response_has_calls_as_items_and_takes_them_back() -> None:
    body = {
        "model": "m",
        "input": "Weather in Bern?",
        "tools": [FLAT],
        "tool_choice": {"type": "function", "name": "weather"},
    }
    rendered = responses.read(body, ())
    assert rendered.prompt.tools == Tools((WEATHER,), "named", "weather")
    (item,) = answered(body, [CALL], endpoint=RESPONSES)["output"]
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "weather", '{"city": "Bern"}')
    both = answered(body, [CALL], "Let me see.", endpoint=RESPONSES)["output"]
    assert [each["type"] for each in both] == ["message", "function_call"]
    gave = {"type": "function_call_output", "call_id": both[1]["call_id"], "output": "rain"}
    again = responses.read({**body, "input": [{"role": "user", "content": "Weather in Bern?"}, *both, gave]}, ())
    assert again.prompt.messages == (
        USER,
        {"role": "assistant", "content": "Let me see.", "tool_calls": [{"id": both[1]["call_id"], **CALL}]},
        {"role": "tool", "content": "rain", "tool_call_id": both[1]["call_id"]},
    )


def test_items_of_other_kinds_are_refused() -> None:
    with pytest.raises(RequestError, match="known are message, function_call and function_call_output"):
        responses.read({"input": [{"type": "computer_call"}]}, ())
