"""JSON Schemas as Arrow types, and values as these hold them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

from llmbatch.integrations.frames_types import arrow_type, fitted

ORDER = pa.struct([("item", pa.string()), ("quantity", pa.int64())])


class Line(BaseModel):
    item: str
    quantity: int


class Order(BaseModel):
    customer: str | None
    lines: list[Line]


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        (None, pa.string()),
        ({}, pa.string()),
        (True, pa.string()),
        ({"type": "integer"}, pa.int64()),
        ({"type": ["number", "null"]}, pa.float64()),
        ({"type": ["integer", "number"]}, pa.float64()),
        ({"type": ["integer", "string"]}, pa.string()),
        ({"enum": ["a", "b", None]}, pa.string()),
        ({"enum": [1, 2]}, pa.int64()),
        ({"enum": [1, "a"]}, pa.string()),
        ({"const": True}, pa.bool_()),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, pa.int64()),
        ({"anyOf": [{"type": "integer"}, {"type": "object"}]}, pa.string()),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, pa.string()),
        ({"type": "array", "items": {"type": "boolean"}}, pa.list_(pa.bool_())),
        ({"type": "array"}, pa.string()),
        ({"type": "array", "prefixItems": [{"type": "integer"}]}, pa.string()),
        ({"type": "object"}, pa.string()),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, pa.string()),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, pa.int64()),
        ({"$ref": "#/$defs/gone"}, pa.string()),
        ({"$ref": "https://elsewhere/schema.json"}, pa.string()),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}, pa.string()),
        (Line.model_json_schema(), ORDER),
        (Order.model_json_schema(), pa.struct([("customer", pa.string()), ("lines", pa.list_(ORDER))])),
    ],
    ids=str,
)
def test_a_schema_has_the_type_of_its_values_or_is_text(schema: Any, kind: pa.DataType) -> None:
    assert arrow_type(schema) == kind


@pytest.mark.parametrize(
    ("value", "kind", "held"),
    [
        (None, ORDER, None),
        ("a", pa.string(), "a"),
        ({"é": [1]}, pa.string(), '{"é": [1]}'),
        (3.0, pa.int64(), 3),
        (3, pa.float64(), 3.0),
        (True, pa.bool_(), True),
        ([1, None], pa.list_(pa.int64()), [1, None]),
        ({"item": "x", "more": 1}, ORDER, {"item": "x", "quantity": None}),
    ],
    ids=str,
)
def test_a_value_fits_its_type(value: Any, kind: pa.DataType, held: Any) -> None:
    found = fitted(value, kind)
    assert found == held
    assert type(found) is type(held)
    assert pa.array([found], kind).to_pylist() == [held]


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (2**63, pa.int64(), "whole number of 64 bits"),
        (0.5, pa.int64(), "whole number of 64 bits"),
        (10**400, pa.float64(), "no 64 bits hold"),
        (True, pa.int64(), "a number"),
        (1, pa.bool_(), "true or false"),
        ("ab", pa.list_(pa.string()), "a list"),
        ([1], ORDER, "an object"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_value_that_does_not_fit_says_so(value: Any, kind: pa.DataType, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fitted(value, kind)
