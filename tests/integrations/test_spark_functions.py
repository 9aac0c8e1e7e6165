"""The arguments of ``ai_query`` and the task functions: what they ask for, and what is refused by name."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

import llmbatch
from llmbatch.core.errors import JobError, UsageError
from llmbatch.integrations.spark.ai_query import SchemaText
from llmbatch.integrations.spark.base import Call, Endpoints, function_of

pytest.importorskip("sqlglot")

PROFILES: dict[str, dict[str, Any]] = {
    "demo": {"model": "demo", "engine": {"name": "scripted"}},
    "checked": {"model": "demo", "engine": {"name": "scripted"}, "answer": {"reject": ["/no/"]}},
    "drawn": {"model": "demo", "engine": {"name": "scripted"}, "sampling": {"temperature": 0.7}},
    "prompted": {"model": "demo", "engine": {"name": "scripted"}, "prompt": {"path": "{{ a }} and {{ b }}"}},
}
ENDPOINTS = Endpoints(PROFILES, "demo")


def call(name: str = "ai_query", endpoints: Endpoints = ENDPOINTS, **given: Any) -> Call:
    function = function_of(name)
    bound = function.bound(
        (), {**({"endpoint": "demo"} if name == "ai_query" else {}), function.row.name: "text", **given}
    )
    del bound[function.row.name]
    return function.call(endpoints, function.with_defaults(bound))


def test_a_request_alone_is_the_users_message_asked_greedily() -> None:
    asked = call()
    assert asked.job["prompt"] == {"path": "{{ request }}"} and asked.job["sampling"] == {"temperature": 0}
    assert (asked.returns, asked.fails, asked.as_it_came) == ("STRING", True, True)


def test_model_parameters_are_sampling_by_openais_names_decimals_as_numbers() -> None:
    given = {"max_completion_tokens": Decimal(64), "temperature": Decimal("0.7"), "stop": ["a"], "top_p": None}
    assert call(modelParameters=given).job["sampling"] == {
        "seed": 0,
        "max_tokens": 64,
        "temperature": 0.7,
        "stop": ["a"],
    }


def test_text_ends_after_the_tokens_that_were_asked_for_and_json_that_is_cut_off_is_tried_again() -> None:
    few = {"max_tokens": 5}
    assert call(modelParameters=few).job["retry"] == {"max_attempts": 1}
    assert "retry" not in call(modelParameters=few, responseFormat='{"type": "json_object"}').job
    assert "retry" not in call().job


def test_what_is_drawn_has_a_seed_so_that_a_partition_computed_again_has_the_same_answers() -> None:
    assert call(endpoint="drawn").job["sampling"] == {"seed": 0, "temperature": 0.7}
    assert call(endpoint="drawn", modelParameters={"seed": 7}).job["sampling"]["seed"] == 7
    assert "temperature" not in call(endpoint="prompted").job["sampling"]


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        ('{"type": "text"}', None),
        ('{"type": "json_object"}', {"type": "object"}),
        ('{"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": true}}', {"type": "object"}),
        (
            "STRUCT<order: STRUCT<item: STRING NOT NULL, quantity: INT, tags: ARRAY<STRING>, at: STRUCT<x: DOUBLE>>>",
            {
                "type": "object",
                "properties": {
                    "item": {"type": "string"},
                    "quantity": {"type": ["integer", "null"]},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "at": {
                        "type": "object", "properties": {"x": {"type": ["number", "null"]}}, "required": ["x"],
                        "additionalProperties": False,
                    },
                },
                "required": ["item", "quantity", "tags", "at"],
                "additionalProperties": False,
            },
        ),
    ],
    ids=["text", "object", "schema", "ddl"],
)  # fmt: skip
def test_a_response_format_is_the_schema_of_the_answer(given: str, schema: Any) -> None:
    assert call(responseFormat=given).job.get("answer", {}).get("schema") == schema


def test_an_answer_that_is_not_as_its_call_asks_is_given_as_it_came_unless_errors_are_strict() -> None:
    schema = '{"type": "json_object"}'
    assert call(responseFormat=schema).as_it_came
    assert not call(responseFormat=schema, endpoints=Endpoints(PROFILES, "demo", strict=True)).as_it_came
    assert not call(endpoint="checked").as_it_came, "what only the profile checks is an error"


def test_a_return_type_is_what_the_answer_is_turned_into_and_a_struct_is_asked_for_as_json() -> None:
    assert call(returnType="INT").returns == "INT"
    asked = call(returnType="STRUCT<a: INT>")
    assert asked.returns.startswith("STRUCT<") and asked.job["answer"]["schema"]["required"] == ["a"]
    assert call(returnType=SchemaText("schema_of_json('{}')")).job["answer"] == {"schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temprature": 1}, "no argument 'temprature'"),
        ({"files": "column"}, "files: images"),
        ({"endpoint": "dmeo"}, "endpoint: there is no 'dmeo' .did you mean 'demo'"),
        ({"failOnError": "yes"}, "failOnError"),
        ({"modelParameters": {"temprature": 1}}, "modelParameters: 'temprature' is not known .did you mean 'temperature'"),
        ({"modelParameters": {"n": 2}}, "modelParameters: 'n' is not known"),
        ({"modelParameters": {"max_tokens": "many"}}, "modelParameters: max_tokens is of type string"),
        ({"modelParameters": 3}, "modelParameters is a named_struct"),
        ({"responseFormat": '{"type": "xml"}'}, "responseFormat.type"),
        ({"responseFormat": '{"type": "text", "schema": {}}'}, "responseFormat: unknown key 'schema'"),
        ({"responseFormat": '{"type": '}, "responseFormat is no JSON"),
        ({"responseFormat": '{"type": "json_schema"}'}, "responseFormat.json_schema is an object"),
        ({"responseFormat": '{"type": "json_schema", "json_schema": {"schema": 3}}'}, "schema is a JSON Schema"),
        ({"responseFormat": '{"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}'}, "schema"),
        ({"responseFormat": "STRUCT<a: INT, b: INT>"}, "with one field that is the answer"),
        ({"responseFormat": "STRUCT<"}, "responseFormat is neither JSON nor a type"),
        ({"returnType": "BINARY"}, "returnType: BINARY has no form in JSON"),
        ({"returnType": "MAP<INT, STRING>"}, "returnType: .*a map of JSON is MAP<STRING, ...>"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_what_is_wrong_with_an_argument_is_said_by_its_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call(**given)


def test_arguments_are_bound_by_position_and_by_name_whatever_its_case() -> None:
    function = function_of("ai_query")
    assert function.bound(("demo", "text"), {"FAILONERROR": False}) == {
        "endpoint": "demo", "request": "text", "failOnError": False,
    }  # fmt: skip
    with pytest.raises(JobError, match="request is given twice"):
        function.bound(("demo", "text"), {"request": "text"})
    with pytest.raises(JobError, match="request is missing"):
        function.bound(("demo",), {})
    with pytest.raises(JobError, match="takes 6 arguments"):
        function.bound(range(7), {})


def test_task_functions_ask_with_the_prompts_that_come_along() -> None:
    assert call("ai_classify", labels=["a", "b"]).job["prompt"]["path"] == "classify"
    assert call("ai_extract", labels=["person", "a place"]).returns == "STRUCT<`person`: STRING, `a place`: STRING>"
    assert call("ai_summarize").job["prompt"]["variables"] == {"max_words": 50}
    assert call("ai_translate", to_lang="de").job["prompt"]["variables"] == {"target_language": "German"}
    assert call("ai_translate", to_lang="Swahili").job["prompt"]["variables"] == {"target_language": "Swahili"}
    assert call("ai_gen").job["prompt"] == {"path": "{{ request }}"}


def test_a_task_function_leaves_out_what_a_profile_asks_of_the_answers_to_its_own_prompt() -> None:
    asked = call("ai_summarize", endpoints=Endpoints(PROFILES, "checked"))
    assert "answer" not in asked.job


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("ai_classify", {"labels": ["one"]}, "labels has 1 texts, and 2 to 20 are allowed"),
        ("ai_classify", {"labels": "a, b"}, "labels is an array of texts"),
        ("ai_classify", {"labels": ["a", "a"]}, "labels has 'a' more than once"),
        ("ai_extract", {"labels": []}, "labels has 0 texts, and at least 1"),
        ("ai_summarize", {"max_words": -1}, "max_words is a whole number"),
        ("ai_translate", {"to_lang": ""}, "to_lang is a language"),
        ("ai_gen", {"model": "x"}, "ai_gen: there is no argument 'model'"),
    ],
    ids=["few", "text", "twice", "none", "words", "language", "unknown"],
)
def test_what_is_wrong_with_a_task_function_is_said_by_its_arguments_name(
    name: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        call(name, **given)


def test_equal_calls_have_one_digest_and_others_another() -> None:
    assert call(modelParameters={"max_tokens": 5}).digest == call(modelParameters={"max_tokens": Decimal(5)}).digest
    assert call().digest != call(failOnError=False).digest
    assert json.loads(call().text)["model"] == "demo"


def test_a_program_that_only_this_process_knows_is_refused_when_it_is_registered() -> None:
    def mine(row: llmbatch.RowAsk) -> llmbatch.Program:
        yield row.ask()
        return None

    with pytest.raises(JobError, match="demo: program: an executor is another process"):
        llmbatch.spark.register(None, model="demo", engine={"name": "scripted"}, program=mine)
