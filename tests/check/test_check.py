from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmbatch.check import KINDS
from llmbatch.check.answer import AnswerCheck, make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.check import Check
from llmbatch.core.errors import SchemaError
from llmbatch.core.types import Constraint, FailureKind


def check_from_mapping(mapping: dict[str, Any], settings: OutputSettings | None = None) -> AnswerCheck:
    """The check of a request that asks for this, in a job with these settings."""
    return make_check(settings or OutputSettings()).for_request(mapping)


def test_free_text_passes_as_it_is_and_is_not_constrained() -> None:
    check = make_check(OutputSettings())
    assert check.constraint is None
    assert check(" any\ntext ") == (" any\ntext ", None)


@pytest.mark.parametrize("text", ["", " \n\t"])
@pytest.mark.parametrize("kind", [{}, {"schema": {}}, {"choice": ["a"]}, {"regex": ".*"}])
def test_a_blank_answer_is_empty_whatever_the_kind(text: str, kind: dict[str, Any]) -> None:
    failure = make_check(OutputSettings(**kind))(text).failure
    assert failure is not None
    assert failure.kind is FailureKind.EMPTY


def test_a_blank_answer_can_be_allowed_but_must_still_be_of_its_kind() -> None:
    assert make_check(OutputSettings(allow_empty=True))("") == ("", None)
    failure = make_check(OutputSettings(schema={}, allow_empty=True))("").failure
    assert failure is not None
    assert failure.kind is FailureKind.INVALID_JSON


@pytest.mark.parametrize("text", ["", "some tex"])
def test_free_text_that_was_cut_off_is_truncated(text: str) -> None:
    failure = make_check(OutputSettings())(text, cut_off=True).failure
    assert failure is not None
    assert failure.kind is FailureKind.TRUNCATED


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, "text"),
        ({"schema": {}}, "json_schema"),
        ({"json_schema": {}}, "json_schema"),
        ({"schema": "a:B"}, "pydantic_model"),
        ({"choice": ["a"]}, "choice"),
        ({"regex": ""}, "regex"),
        ({"grammar": "x"}, "grammar"),
    ],
)
def test_every_setting_has_its_kind(settings: dict[str, Any], kind: str) -> None:
    assert OutputSettings(**settings).kind == kind
    assert kind in KINDS


def test_two_kinds_at_once_are_refused() -> None:
    with pytest.raises(ValidationError, match="schema and regex cannot be given together"):
        OutputSettings(schema={}, regex="a")


def test_a_schema_can_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('\ufeff{"type": "integer"}', encoding="utf-8")
    check = make_check(OutputSettings(schema="order.json"), tmp_path)
    assert check("3") == (3, None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"type": "integer",}', "Expecting property name"),
        ("[]", "a JSON Schema is an object, and this is []"),
        ("false", "a JSON Schema is an object, and this is false"),
        ('{"enum": []}', "no answer could ever pass"),
        ('{"type": "a", "type": "b"}', "more than once"),
    ],
)
def test_a_bad_schema_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "order.json").write_text(content)
    with pytest.raises(SchemaError) as caught:
        make_check(OutputSettings(schema="order.json"), tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "order.json"))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", "models.Order", "x" * 5000, ""])
def test_a_schema_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SchemaError, match=r"no such file|cannot be read"):
        make_check(OutputSettings(schema=name), tmp_path)


def test_a_grammar_can_be_a_file(tmp_path: Path) -> None:
    pytest.importorskip("llguidance", reason="llguidance comes with vLLM")
    (tmp_path / "ab.lark").write_text('start: "ab"\n')
    check = make_check(OutputSettings(grammar="ab.lark"), tmp_path)
    assert check.constraint == Constraint("grammar", 'start: "ab"\n')
    with pytest.raises(SchemaError, match="no such file"):
        make_check(OutputSettings(grammar="cd.lark"), tmp_path)


@pytest.mark.parametrize(
    ("mapping", "constraint"),
    [
        ({"type": "text"}, None),
        ({}, None),
        ({"type": "json_object"}, Constraint("json", '{"type":"object"}')),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}},
            Constraint("json", '{"type":"integer"}'),
        ),
        ({"schema": {"type": "integer"}}, Constraint("json", '{"type":"integer"}')),
        ({"choice": ["a", "b"]}, Constraint("choice", '["a", "b"]')),
        ({"regex": "a+"}, Constraint("regex", "a+")),
    ],
)
def test_a_request_can_ask_for_an_output_of_its_own(mapping: dict[str, Any], constraint: Constraint | None) -> None:
    assert check_from_mapping(mapping).constraint == constraint


def test_an_answer_that_was_cut_off_is_taken_where_the_job_allows_it_and_it_passes() -> None:
    def kind(check: Check, text: str) -> FailureKind | None:
        failure = check(text, cut_off=True).failure
        return failure and failure.kind

    free = make_check(OutputSettings(allow_truncated=True, reject=("/bad/",)))
    assert free("one two", cut_off=True) == ("one two", None)
    assert kind(free, "a bad") is FailureKind.REJECTED
    assert kind(free, " ") is FailureKind.EMPTY
    schema = make_check(OutputSettings(schema={"type": "integer"}, allow_truncated=True))
    assert schema("12", cut_off=True) == (12, None)
    assert kind(schema, "1.") is FailureKind.TRUNCATED
    choice = make_check(OutputSettings(choice=("a", "ab"), allow_truncated=True))
    assert choice("a", cut_off=True) == ("a", None)
    assert kind(choice, "x") is FailureKind.TRUNCATED
    of_request = check_from_mapping({"regex": "[0-9]+"}, OutputSettings(allow_truncated=True))
    assert of_request("12", cut_off=True) == ("12", None)


def test_equal_mappings_share_one_check() -> None:
    check = make_check(OutputSettings())
    first = check.for_request({"schema": {"type": "integer", "minimum": 1}})
    assert check.for_request(json.loads('{"schema": {"type": "integer", "minimum": 1}}')) is first
    assert check.for_request({"schema": {"type": "integer", "minimum": 2}}) is not first


def test_the_jobs_other_rules_hold_for_such_requests_too() -> None:
    job = OutputSettings(regex="x", reject=("/bad/",), allow_empty=True, constrained=False)
    check = check_from_mapping({"choice": ["bad", "good", ""]}, job)
    assert check.constraint is None
    assert check("").failure is None
    failure = check("bad").failure
    assert failure is not None
    assert failure.kind is FailureKind.REJECTED


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"schema": "os:system"}, "import paths"),
        ({"json_schema": "os:system"}, "import paths"),
        ({"schema": "/etc/passwd"}, "import paths"),
        ({"reject": ["os:system"]}, "reject rules belong in the job"),
        ({"type": "json_schema", "json_schema": {"schema": "os:system"}}, "no object json_schema.schema"),
        ({"type": "json_schema"}, "no object json_schema.schema"),
        ({"type": "xml"}, "known are text, json_object and json_schema"),
        ({"type": ["text"]}, "known are text, json_object and json_schema"),
        ({"regexp": "a"}, "regexp: Extra inputs are not permitted"),
        ({"schema": {"enum": []}}, "no answer could ever pass"),
        ({"schema": {"const": float("inf")}}, "not JSON"),
        ({"grammar": "/etc/passwd"}, "the grammar is not valid"),
    ],
)
def test_a_request_can_neither_import_nor_read_and_its_errors_are_schema_errors(
    mapping: dict[str, Any], said: str
) -> None:
    if "grammar" in mapping:
        pytest.importorskip("llguidance", reason="llguidance comes with vLLM")
    with pytest.raises(SchemaError, match=said):
        check_from_mapping(mapping)
