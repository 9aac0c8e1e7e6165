from __future__ import annotations

from typing import Any

import pytest

from llmbatch.formats.gemini.schema import SchemaProblem, json_schema


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"type": "STRING"}, {"type": "string"}),
        ({"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 1}),
        ({"type": "STRING", "format": "enum", "enum": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"type": "STRING", "format": "date-time"}, {"type": "string", "format": "date-time"}),
        ({"type": "INTEGER", "format": "int64", "example": 3}, {"type": "integer"}),
        ({"type": "STRING", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "STRING", "nullable": True, "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        (
            {"anyOf": [{"type": "NUMBER"}], "nullable": True},
            {"anyOf": [{"anyOf": [{"type": "number"}]}, {"type": "null"}]},
        ),
        (
            {"type": "ARRAY", "items": {"type": "BOOLEAN"}, "min_items": "1", "maxItems": 3.0},
            {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        ),
        (
            {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}, "additionalProperties": True},
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True},
        ),
        ({"type": "TYPE_UNSPECIFIED", "title": None}, {}),
    ],
)
def test_a_schema_of_geminis_is_a_json_schema(given: dict[str, Any], made: dict[str, Any]) -> None:
    assert json_schema(given, "s") == made


def test_properties_come_in_the_order_that_is_asked_for_and_there_are_no_others() -> None:
    given = {
        "type": "OBJECT",
        "properties": {"a": {"type": "STRING"}, "b": {"type": "STRING"}, "c": {"type": "STRING"}},
        "propertyOrdering": ["c", "a"],
        "required": ["a"],
    }
    made = json_schema(given, "s")
    assert list(made["properties"]) == ["c", "a", "b"]
    assert made["additionalProperties"] is False
    assert made["required"] == ["a"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "s must be an object, and is of type array"),
        ({"type": "TEXT"}, "s.type is 'TEXT'; known are STRING"),
        ({"type": ["STRING"]}, "s.type is "),
        ({"properties": {"a": {"typ": "STRING"}}}, r"s.properties.a.typ is not supported \(did you mean 'type'\?\)"),
        ({"properties": []}, "s.properties must be an object"),
        ({"anyOf": {}}, "s.anyOf must be a list"),
        ({"anyOf": [{"type": 1}]}, r"s.anyOf\[0\].type is 1"),
        ({"minItems": "few"}, "s.minItems must be a whole number, and is 'few'"),
        ({"minItems": True}, "s.minItems must be a whole number"),
        ({"enum": []}, "s.enum must be a list of values"),
        ({"properties": {"a": {}}, "propertyOrdering": ["b"]}, "s.propertyOrdering must be a list of names of its"),
    ],
)
def test_what_is_wrong_with_a_schema_is_said_with_its_place(given: Any, said: str) -> None:
    with pytest.raises(SchemaProblem, match=said):
        json_schema(given, "s")
