"""What holds for every rule; each has a file of its own besides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.check import RULES
from llmbatch.check.answer import AnswerCheck, make_check, with_content
from llmbatch.check.base import OutputSettings
from llmbatch.check.rule import Answer, text_of
from llmbatch.core.errors import SchemaError
from llmbatch.core.types import FailureKind
from llmbatch.prompt.file import _KINDS, OutputSpec

OF_A_PROMPT = {"thinking_budget"}  # which is no rule, and a prompt may set it
OF_A_JOB_ALONE = {"reject"}
SCHEMA = {"type": "object", "properties": {"out": {"type": "string"}}}


def check(**settings: Any) -> AnswerCheck:
    return make_check(OutputSettings.model_validate(settings))


def test_every_rule_has_its_setting_in_a_job_and_in_a_prompt_file() -> None:
    of_a_job = {field.alias or name for name, field in OutputSettings.model_fields.items()}
    of_a_prompt = {field.alias or name for name, field in OutputSpec.model_fields.items() if name not in _KINDS}
    assert set(RULES) <= of_a_job
    assert of_a_prompt == set(RULES) - OF_A_JOB_ALONE | OF_A_PROMPT


def test_a_row_must_hold_as_text_what_a_rule_names() -> None:
    named = check(copy="text", length_ratio={"field": "body", "least": 1})
    assert set(named.names) == {"text", "body"}
    assert named.misfit({"text": "a", "body": "b"}) is None
    assert named.misfit({"text": "a"}) == "answer.length_ratio needs 'body', and the row has none"
    assert named.misfit({"text": None, "body": "b"}) == "answer.copy needs 'text', and the row has none"
    said = "answer.copy needs a text in 'text', and it is of type integer (3)"
    assert named.misfit({"text": 3, "body": "b"}) == said


def test_the_check_of_a_row_holds_what_the_rules_need_and_predicates_see_the_rest() -> None:
    of_row = check(length_ratio={"field": "text", "most": 2}).of({"text": "ab"})
    assert of_row("abcd", {"id": 1}).failure is None
    failure = of_row("abcde", {"id": 1}).failure
    assert failure is not None and failure.kind is FailureKind.LENGTH_RATIO


def test_rules_hold_for_requests_that_say_what_they_ask_for_and_a_request_brings_none() -> None:
    job = check(copy="text")
    failure = job.for_request({"regex": ".*"})("one two three four five", {"text": "One two three four five"}).failure
    assert failure is not None and failure.kind is FailureKind.COPY
    for rule in RULES:
        with pytest.raises(SchemaError, match=f"{rule} rules belong in the job"):
            job.for_request({rule: {}})


def test_the_texts_of_json_are_looked_at_or_one_part_of_it() -> None:
    value = {"out": {"parts": [{"t": "a", "n": 1}, {"t": "b"}]}, "note": "c"}
    answer = Answer(json.dumps(value), value, {})
    assert text_of(answer, None) == "a\nb\nc"
    assert text_of(answer, "out.parts.t") == "a\nb"
    assert text_of(answer, "out.none") == ""
    judged = check(schema=SCHEMA, length_ratio={"field": "text", "least": 1, "part": "out"})
    assert judged('{"out": "ab", "more": "abcdef"}', {"text": "abc"}).failure is not None
    assert judged('{"out": "abc"}', {"text": "abc"}).value == {"out": "abc"}


def test_a_part_of_an_answer_that_is_text_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"answer\.copy\.part is 'out', a key of a JSON answer, and without a schema"):
        check(copy={"field": "text", "part": "out"})


def test_settings_with_content_have_the_terms_of_the_glossary_in_the_place_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "terms.csv").write_text("bank,Bank\n")
    settings = OutputSettings.model_validate({"glossary": {"field": "text", "terms": "terms.csv"}})
    read = with_content(settings, tmp_path)
    assert read.glossary is not None and read.glossary.terms == {"bank": ("Bank",)}
