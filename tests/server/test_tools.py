"""Tools by OpenAI's own client: live, whole and streamed, in chats and responses, and in batches; what they gave goes back."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>'
SCRIPT = {"rules": [
    {"when": {"contains": "Both"}, "answer": CALL + CALL.replace("Bern", "Rome")},
    {"when": {"contains": "Bern"}, "answer": "Let me see. " + CALL},
    {"when": {"contains": "cut"}, "answer": "Let me see. " + CALL, "finish_reason": "length"},
]}  # fmt: skip
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "Now", "parameters": PARAMETERS}}
NAMED: Any = {"type": "function", "function": {"name": "weather"}}


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def client(lasting) -> openai.OpenAI:
    return lasting(SCRIPT, job={"engine": {"name": "scripted", "args": SCRIPT, "tool_call_parser": "hermes"}}).openai()


def test_a_model_that_is_free_to_call_calls(client) -> None:
    answers = [
        client.chat.completions.create(model="demo", messages=ask("Weather in Bern?"), tools=[WEATHER])
        for _ in range(2)
    ]
    (choice,) = answers[0].choices
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Bern"})
    assert (choice.message.content, choice.finish_reason) == ("Let me see. ", "tool_calls")
    assert call.id != answers[1].choices[0].message.tool_calls[0].id


@pytest.mark.parametrize("parallel", [True, False])
def test_several_calls_come_unless_one_is_asked_for(client, parallel: bool) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=ask("Both?"), tools=[WEATHER], parallel_tool_calls=parallel
    )
    calls = answer.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Bern", "Rome"][: 1 + parallel]
    assert len({call.id for call in calls}) == len(calls)


def test_the_same_without_tools_is_text(client) -> None:
    for given in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
        (choice,) = client.chat.completions.create(model="demo", messages=ask("Weather in Bern?"), **given).choices
        assert (choice.message.content, choice.finish_reason) == ("Let me see. " + CALL, "stop")
        assert choice.message.tool_calls is None


@pytest.mark.parametrize(("choice", "reason"), [("required", "tool_calls"), (NAMED, "stop")], ids=["required", "named"])
def test_a_call_that_is_asked_for_is_held_to_the_schema_of_its_tool(client, choice: Any, reason: str) -> None:
    (said,) = client.chat.completions.create(
        model="demo", messages=ask("anything"), tools=[WEATHER], tool_choice=choice
    ).choices
    (call,) = said.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": ""})
    assert (said.message.content, said.finish_reason) == (None, reason)


def test_an_answer_that_was_cut_off_is_text(client) -> None:
    (choice,) = client.chat.completions.create(model="demo", messages=ask("cut"), tools=[WEATHER]).choices
    assert (choice.message.tool_calls, choice.finish_reason) == (None, "length")


@pytest.mark.parametrize(
    ("text", "choice", "content", "reason"),
    [
        ("Weather in Bern?", "auto", "Let me see. ", "tool_calls"),
        ("anything", "required", "", "tool_calls"),
        ("anything", NAMED, "", "stop"),
        ("one loaf of rye", "auto", "one loaf of rye", "stop"),
    ],
    ids=["auto", "required", "named", "text"],
)
def test_a_stream_has_the_text_in_pieces_and_each_call_whole(
    client, text: str, choice: Any, content: str, reason: str
) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=ask(text), tools=[WEATHER], tool_choice=choice, stream=True
    )
    chunks = [chunk.choices[0] for chunk in stream]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == content
    calls = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
    assert [(call.index, call.type, call.function.name) for call in calls] == (
        [] if text.startswith("one") else [(0, "function", "weather")]
    )
    assert all("city" in json.loads(call.function.arguments) and call.id for call in calls)
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [reason]


def test_openais_own_helper_puts_a_stream_together(client) -> None:
    with client.chat.completions.stream(model="demo", messages=ask("Both?"), tools=[WEATHER]) as stream:
        said = stream.get_final_completion().choices[0].message
    assert [json.loads(call.function.arguments)["city"] for call in said.tool_calls] == ["Bern", "Rome"]


def test_a_call_and_what_it_gave_go_back(client) -> None:
    first = client.chat.completions.create(model="demo", messages=ask("Weather in Bern?"), tools=[WEATHER])
    said = first.choices[0].message
    gave: Any = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "rain, 9 degrees"}
    messages: Any = [*ask("Weather in Bern?"), said.model_dump(exclude_none=True), gave]
    again = client.chat.completions.create(model="demo", messages=messages, tools=[WEATHER])
    assert again.choices[0].message.content == "rain, 9 degrees"


FLAT: Any = {"type": "function", "strict": True, **WEATHER["function"]}


def test_a_response_calls_whole_and_streamed(client) -> None:
    asked: Any = {"model": "demo", "input": "Weather in Bern?", "tools": [FLAT]}
    whole = client.responses.create(**asked)
    said, call = whole.output
    assert (said.content[0].text, call.name, json.loads(call.arguments)) == (
        "Let me see. ",
        "weather",
        {"city": "Bern"},
    )
    events = list(client.responses.create(**asked, stream=True))
    done = events[-1].response
    assert [item.type for item in done.output] == ["message", "function_call"]
    assert done.output[1].arguments == call.arguments
    kinds = [event.type for event in events]
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    arguments = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [event.arguments for event in arguments] == [call.arguments]
    assert arguments[0].item_id == done.output[1].id
    gave: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    items: Any = [*ask("Weather in Bern?"), *(item.model_dump(exclude_none=True) for item in whole.output), gave]
    assert client.responses.create(model="demo", input=items, tools=[FLAT]).output_text == "rain"


def test_a_response_that_is_a_call_alone_has_no_message(client) -> None:
    choice: Any = {"type": "function", "name": "weather"}
    events = list(
        client.responses.create(model="demo", input="anything", tools=[FLAT], tool_choice=choice, stream=True)
    )
    assert [item.type for item in events[-1].response.output] == ["function_call"]
    assert [event.output_index for event in events if event.type == "response.output_item.added"] == [0]


def test_a_batch_has_the_calls_of_its_lines(client, lines, begin, ended) -> None:
    content = lines.jsonl(
        [
            lines.chat("free", "Weather in Bern?", tools=[WEATHER]),
            lines.chat("forced", "anything", tools=[WEATHER], tool_choice="required"),
            lines.chat("several", "Weather in Bern?", tools=[WEATHER], n=2, seed=1),
            lines.chat("text", "Weather in Bern?"),
            lines.chat("wrong", "x", tools=[{"type": "function"}]),
        ]
    )
    batch = ended(client, begin(client, content))
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 4, 1)
    found = {line["custom_id"]: line["response"]["body"] for line in lines.of(client, batch.output_file_id)}
    (free,) = found["free"]["choices"]
    assert free["finish_reason"] == "tool_calls"
    assert json.loads(free["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": "Bern"}
    assert found["forced"]["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert [len(choice["message"]["tool_calls"]) for choice in found["several"]["choices"]] == [1, 1]
    assert found["text"]["choices"][0]["message"]["content"] == "Let me see. " + CALL
    (error,) = lines.of(client, batch.error_file_id)
    assert error["response"]["body"]["error"]["param"] == "tools"


def test_without_a_parser_a_model_that_is_free_to_call_is_refused_with_what_to_set(sites) -> None:
    client = sites.start(SCRIPT).openai()
    with pytest.raises(openai.BadRequestError, match=r"engine\.tool_call_parser=NAME"):
        client.chat.completions.create(model="demo", messages=ask("Weather in Bern?"), tools=[WEATHER])
    forced = client.chat.completions.create(
        model="demo", messages=ask("anything"), tools=[WEATHER], tool_choice="required"
    )
    assert forced.choices[0].message.tool_calls
