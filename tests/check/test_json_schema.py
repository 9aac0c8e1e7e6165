from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.errors import SchemaError
from llmbatch.core.types import Constraint, FailureKind

ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "quantity": {"type": "integer", "minimum": 1},
        "when": {"type": "string", "format": "date"},
        "odd key": {"type": "array", "items": {"type": "string"}},
        "unit": {"anyOf": [{"enum": ["kg", "g"]}, {"type": "null"}]},
    },
    "required": ["quantity"],
    "additionalProperties": False,
}


def judge(schema: dict[str, Any], text: str) -> Any:
    return make_check(OutputSettings(json_schema=schema))(text)


def test_the_value_of_an_answer_that_fits_is_the_json() -> None:
    assert judge(ORDER, ' {"quantity": 2, "when": "2024-02-29"}\n') == ({"quantity": 2, "when": "2024-02-29"}, None)


@pytest.mark.parametrize("schema", [{"age": "integer"}, {"title": "string", "year": "integer"}], ids=str)
def test_fields_and_their_types_are_no_schema_as_they_would_judge_nothing(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="Fields go below 'properties'"):
        judge(schema, "{}")


@pytest.mark.parametrize(
    "schema", [{}, {"title": "Anything", "$defs": {}}, {"$ref": "#/$defs/a", "$defs": {"a": {}}}], ids=str
)
def test_a_schema_may_accept_anything(schema: dict[str, Any]) -> None:
    assert judge(schema, "[1]") == ([1], None)


def test_null_is_a_value() -> None:
    assert judge({"type": "null"}, "null") == (None, None)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"quantity": 0}, "$.quantity: 0 is less than the minimum of 1"),
        ({"quantity": "2"}, '$.quantity: "2" is not of type "integer"'),
        ({}, '$: "quantity" is a required property'),
        ({"quantity": 1, "when": "2023-02-29"}, '$.when: "2023-02-29" is not a "date"'),
        ({"quantity": 1, "odd key": ["a", 1]}, "$['odd key'][1]: 1 is not of type \"string\""),
        ({"quantity": 1, "x": 1}, "$: Additional properties are not allowed ('x' was unexpected)"),
        (
            {"quantity": 1, "unit": "lb"},
            '$.unit: fits none of the alternatives: $.unit "lb" is not one of "kg" or "g", or $.unit "lb" is not of type "null"',
        ),
        ({"quantity": 0, "when": "x"}, '$.quantity: 0 is less than the minimum of 1; $.when: "x" is not a "date"'),
    ],
)
def test_a_failure_names_the_place_and_what_is_wrong(answer: Any, message: str) -> None:
    verdict = judge(ORDER, json.dumps(answer))
    assert verdict.value is None
    assert (verdict.failure.kind, verdict.failure.message) == (FailureKind.SCHEMA, message)


def test_a_message_is_bounded_however_much_is_wrong() -> None:
    items = {"type": "array", "items": {"type": "string", "maxLength": 5}}
    failure = judge(items, json.dumps(["x" * 10_000] * 300)).failure
    assert len(failure.message) <= 500
    assert failure.message.startswith("$[0]: ")


def test_what_is_not_json_is_invalid_json_and_is_not_repaired() -> None:
    failure = judge(ORDER, '```json\n{"quantity": 2}\n```').failure
    assert failure.kind is FailureKind.INVALID_JSON


def test_the_engine_gets_the_schema_with_its_keys_in_order() -> None:
    check = make_check(OutputSettings(json_schema=ORDER))
    assert check.constraint == Constraint("json", json.dumps(ORDER, separators=(",", ":")))


def test_unconstrained_answers_are_checked_all_the_same() -> None:
    check = make_check(OutputSettings(json_schema=ORDER, constrained=False))
    assert check.constraint is None
    assert check("{}").failure is not None


@pytest.mark.parametrize(
    ("text", "complete"),
    [('{"a": 1}', True), ("[1]", True), ('"a"', True), ("12", False), ("true", False), ('{"a": 1', False)],
)
def test_json_whose_end_is_there_passes_even_if_cut_off_after_it(text: str, complete: bool) -> None:
    verdict = make_check(OutputSettings(json_schema={}))(text, cut_off=True)
    assert (verdict.failure is None) is complete
    assert complete or verdict.failure.kind is FailureKind.TRUNCATED


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": []},
        {"type": "integer", "minimum": 5, "maximum": 3},
        {"type": "string", "minLength": 5, "maxLength": 3},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"minimum": 2, "maximum": 1, "type": "number"}}, "required": ["a"]},
        {"type": "object", "additionalProperties": False, "required": ["a"]},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {
            "$ref": "#/$defs/node",
            "$defs": {"node": {"type": "object", "required": ["n"], "properties": {"n": {"$ref": "#/$defs/node"}}}},
        },
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string", "const": 1},
    ],
)
def test_a_schema_that_nothing_can_satisfy_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="no answer could ever pass this schema"):
        make_check(OutputSettings(json_schema=schema))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "strng"}, r"\(at \$\.type\)"),
        ({"properties": {"a": {"minimum": "x"}}}, r"\(at \$\.properties\.a\.minimum\)"),
        ({"pattern": "("}, "regex"),
        ({"$ref": "#/$defs/missing"}, "does not exist"),
        ({"$ref": "https://example.com/x.json"}, "references are not fetched"),
        ({"$ref": "./other.json"}, "references are not fetched"),
        ({"$schema": "https://example.com/dialect"}, "Unknown meta-schema"),
        ({"const": float("nan")}, "not JSON"),
        ({"const": {1, 2}}, "not JSON"),
    ],
)
def test_a_schema_that_is_none_is_refused_and_nothing_is_fetched(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        make_check(OutputSettings(json_schema=schema))


def test_the_draft_that_a_schema_names_is_honoured() -> None:
    tuple_of_draft_7 = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert judge(tuple_of_draft_7, "[1]").failure.kind is FailureKind.SCHEMA
    newer = {"prefixItems": [{"type": "string"}]}
    assert judge(newer, "[1]").failure.kind is FailureKind.SCHEMA


def test_a_recursive_schema_that_ends_is_satisfiable() -> None:
    node = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}}
    assert judge(node, '{"n": {"n": {}}}').failure is None


ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "quantity": st.sampled_from([1, 0, -1, 1.0, 1.5, "1", None, 10**30]),
        "when": st.sampled_from(["2024-02-29", "2023-02-29", "", 3]),
        "odd key": st.lists(st.sampled_from(["a", 1])) | st.text(max_size=1),
        "unit": st.sampled_from(["kg", "lb", None]),
        "more": st.none(),
    },
)


@given(ANSWERS)
def test_verdicts_are_those_of_the_reference_library(answer: dict[str, Any]) -> None:
    import jsonschema  # takes longer than all else here

    reference = jsonschema.Draft202012Validator(ORDER, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    assert (judge(ORDER, json.dumps(answer)).failure is None) == reference.is_valid(answer)
