"""What an answer is held to where tools are offered, and the calls that are read out of it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from llmbatch.core.tools import call_of, calls_in, schema_of
from llmbatch.core.types import Tools

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip
CLOCK = {"type": "function", "function": {"name": "clock"}}
BOTH = (WEATHER, CLOCK)


def test_of_a_named_tool_the_answer_is_its_arguments() -> None:
    named = Tools(BOTH, "named", "weather")
    assert schema_of(named) == WEATHER["function"]["parameters"]  # type: ignore[index]
    assert schema_of(Tools(BOTH, "named", "clock")) == {"type": "object", "properties": {}}
    text = '{"city": "Bern"}'
    assert calls_in(text, named, None) == ("", [call_of("weather", text)])


def test_a_call_that_is_required_is_one_of_the_tools_with_arguments_that_fit() -> None:
    required = Tools(BOTH, "required")
    schema = schema_of(required)
    assert schema is not None
    good: list[Any] = [{"name": "weather", "parameters": {"city": "Bern"}}, {"name": "clock", "parameters": {}}]
    assert jsonschema_rs.is_valid(schema, good)
    for bad in ([], [{"name": "weather", "parameters": {}}], [{"name": "other", "parameters": {}}], {}):
        assert not jsonschema_rs.is_valid(schema, bad)
    calls = [call_of("weather", '{"city": "Bern"}'), call_of("clock", "{}")]
    assert calls_in(json.dumps(good), required, None) == ("", calls)


def test_where_calls_are_not_parallel_there_is_one() -> None:
    one = Tools(BOTH, "required", parallel=False)
    assert (schema_of(one) or {})["maxItems"] == 1
    both = [call_of("clock", "{}"), call_of("weather", "{}")]
    assert calls_in("x", Tools(BOTH, parallel=False), lambda *_: ("", both)) == ("", both[:1])


def test_what_parameters_refer_to_stands_at_the_top() -> None:
    city = {"type": "string", "enum": ["Bern"]}
    parameters = {
        "type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}, "required": ["city"], "$defs": {"City": city},
    }  # fmt: skip
    tools = ({"type": "function", "function": {"name": "weather", "parameters": parameters}},)
    schema = schema_of(Tools(tools, "required"))
    assert schema is not None and schema["$defs"] == {"City": city}
    assert jsonschema_rs.is_valid(schema, [{"name": "weather", "parameters": {"city": "Bern"}}])
    assert not jsonschema_rs.is_valid(schema, [{"name": "weather", "parameters": {"city": "Rome"}}])
    assert "$defs" in parameters, "what a client gave is not changed"


@pytest.mark.parametrize(
    "text",
    [
        "", "Hello", "[", "[]", "{}", "[1]", '[{"name": "clock"}]', "null", '[{"name": "other", "parameters": {}}]',
        '[{"name": ["clock"], "parameters": {}}]', '[{"name": "clock", "parameters": 5}]',
    ],
)  # fmt: skip
def test_what_is_no_call_is_text(text: str) -> None:
    assert calls_in(text, Tools(BOTH, "required"), None) == (text, None)


@pytest.mark.parametrize("text", ["", "Hello", "5", "null", '"Bern"', '["Bern"]', '{"city": "Be'])
def test_what_are_no_arguments_of_the_tool_that_is_named_is_text(text: str) -> None:
    assert calls_in(text, Tools(BOTH, "named", "weather"), None) == (text, None)


def test_a_model_that_is_free_to_call_is_read_by_the_parser_and_one_that_is_not_to_call_by_nobody() -> None:
    calls = [call_of("clock", "{}")]
    assert schema_of(Tools(BOTH)) is None
    assert schema_of(Tools(BOTH, "none")) is None
    assert calls_in("a<call>", Tools(BOTH), lambda *_: ("a", calls)) == ("a", calls)
    assert calls_in("a<call>", Tools(BOTH), None) == ("a<call>", None)
    assert calls_in("a<call>", Tools(BOTH, "none"), lambda *_: ("a", calls)) == ("a<call>", None)
