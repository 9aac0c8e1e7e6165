from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.types import Cursor, Failure, FailureKind, Row
from llmbatch.core.words import is_of, short
from llmbatch.prompt.variables import Variable, collect

TEXT = Variable("text", "string", "text", required=True)


def collected(variable: Variable, data: dict[str, Any]) -> dict[str, Any] | Failure:
    return collect([variable], Row(7, "r7", data, Cursor(7)), {})


def failed(variable: Variable, data: dict[str, Any]) -> Failure:
    result = collected(variable, data)
    assert isinstance(result, Failure)
    return result


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ("a", {"string", "any"}),
        (1, {"integer", "number", "any"}),
        (1.5, {"number", "any"}),
        (True, {"boolean", "any"}),
        ([], {"array", "any"}),
        ({}, {"object", "any"}),
        (None, set()),
    ],
)
def test_types_are_those_of_json(value: object, kinds: set[str]) -> None:
    every = ("string", "integer", "number", "boolean", "array", "object", "any")
    assert {kind for kind in every if is_of(value, kind)} == kinds


def test_a_missing_variable_is_named_with_row_and_fields() -> None:
    failure = failed(TEXT, {"body": "x", "title": "y"})
    assert failure.kind is FailureKind.PROMPT
    assert failure.message.startswith(
        "row 'r7': the variable 'text' is missing; the row's fields are 'body', 'title': "
    )
    assert "--map text=FIELD" in failure.message


def test_null_counts_as_missing() -> None:
    assert "is null" in failed(TEXT, {"text": None}).message
    assert collected(Variable("n", "integer", "n", required=False, default=5), {"n": None}) == {"n": 5}


def test_a_wrong_type_is_named_with_what_was_seen() -> None:
    failure = failed(Variable("n", "integer", "count", required=True), {"count": "12"})
    assert failure.kind is FailureKind.PROMPT
    assert (
        failure.message
        == "row 'r7': the variable 'n' (field 'count') is of type string ('12'), and must be of type integer"
    )


def test_a_value_outside_the_enum_is_a_failure() -> None:
    failure = failed(Variable("n", "string", "n", required=True, enum=("a", "b")), {"n": "c"})
    assert "is 'c', and must be one of 'a', 'b'" in failure.message


@pytest.mark.parametrize("text", ["", " \n\t", "\u3000"])
def test_a_required_text_must_not_be_blank(text: str) -> None:
    assert failed(TEXT, {"text": text}).kind is FailureKind.EMPTY_PROMPT


def test_a_text_with_a_default_may_be_blank() -> None:
    assert collected(Variable("t", "string", "t", required=False, default="d"), {"t": ""}) == {"t": ""}


def test_a_long_value_is_cut_in_messages() -> None:
    assert len(short("x" * 10**6)) < 70
    assert len(failed(Variable("n", "integer", "n", required=True), {"n": "x" * 10**6}).message) < 200


def test_the_job_s_values_are_there_and_rows_have_no_say_in_them() -> None:
    row = Row(0, 0, {"lang": "de"}, Cursor(0))
    assert collect([], row, {"lang": "fr"}) == {"lang": "fr"}
