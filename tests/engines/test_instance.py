from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from llmbatch.core.types import Constraint
from llmbatch.engines.scripted.instance import smallest_instance

SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]},
    {
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"type": "object", "required": ["b"], "properties": {"b": {"type": "null"}}}},
    },
    {"type": "array", "items": {"type": "number", "minimum": 3}, "minItems": 2},
    {"type": "array", "items": {"type": "string"}},
    {"enum": ["x", "y"]},
    {"const": {"k": [1]}},
    {"type": "integer", "exclusiveMinimum": 4},
    {"type": "integer", "minimum": 2, "maximum": 2},
    {"type": "number", "maximum": -5},
    {"type": "boolean"},
    {"type": ["null", "string"]},
    {"type": "string", "minLength": 5},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "email"},
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"oneOf": [{"type": "boolean"}, {"type": "string"}]},
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer", "minimum": 7}}},
    {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "boolean"}}, "required": ["a", "b"]},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_the_answer_fits_the_schema(schema: dict[str, Any]) -> None:
    instance = json.loads(smallest_instance(Constraint("json", json.dumps(schema))))
    assert list(jsonschema_rs.validator_for(schema, validate_formats=True).iter_errors(instance)) == []


def test_a_schema_that_contains_itself_comes_to_an_end() -> None:
    schema = {
        "$ref": "#/$defs/node",
        "$defs": {"node": {"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#/$defs/node"}}}},
    }
    assert json.loads(smallest_instance(Constraint("json", json.dumps(schema))))


def test_of_choices_it_is_the_first() -> None:
    assert smallest_instance(Constraint("choice", '["b", "a"]')) == "b"


@pytest.mark.parametrize("kind", ["regex", "grammar"])
def test_for_a_regex_or_a_grammar_it_is_just_some_text(kind: Any) -> None:
    assert smallest_instance(Constraint(kind, "[0-9]+")) == "scripted"
