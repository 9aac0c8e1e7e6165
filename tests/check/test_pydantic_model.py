from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.check import Check
from llmbatch.core.errors import JobError, RunError, SchemaError
from llmbatch.core.types import FailureKind

MODELS = """
from collections.abc import Callable
from datetime import date
from pydantic import BaseModel, ConfigDict, Field, field_validator

class Order(BaseModel):
    item: str = Field(min_length=1)
    quantity: int = Field(ge=1, alias="qty")
    when: date | None = None

class Lax(BaseModel):
    model_config = ConfigDict(strict=False)
    quantity: int

class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int

class Upper(BaseModel):
    word: str
    @field_validator("word")
    @classmethod
    def no_spaces(cls, word):
        if " " in word:
            raise ValueError("one word only")
        return word.upper()

class Buggy(BaseModel):
    word: str
    @field_validator("word")
    @classmethod
    def fails(cls, word):
        raise KeyError(word)

class NoSchema(BaseModel):
    f: Callable[[], int]

class Impossible(BaseModel):
    a: int = Field(ge=5, le=3)

def not_a_model(): ...
"""

Make = Callable[..., Check]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "models_for_test.py").write_text(MODELS)
    sys.modules.pop("models_for_test", None)
    return lambda name, **more: make_check(OutputSettings(json_schema=f"models_for_test:{name}", **more))


def test_the_value_is_the_models_json_form_by_the_keys_of_its_schema(make: Make) -> None:
    verdict = make("Order")('{"item": "nails", "qty": 3, "when": "2024-01-02"}')
    assert verdict == ({"item": "nails", "qty": 3, "when": "2024-01-02"}, None)


def test_defaults_are_filled_in(make: Make) -> None:
    assert make("Order")('{"item": "nails", "qty": 3}').value["when"] is None


def test_a_failure_names_the_place_and_what_is_wrong(make: Make) -> None:
    failure: Any = make("Order")('{"item": "", "qty": 0}').failure
    assert failure.kind is FailureKind.SCHEMA
    assert failure.message == (
        "$.item: String should have at least 1 character; $.qty: Input should be greater than or equal to 1"
    )


def test_a_text_is_not_turned_into_a_number(make: Make) -> None:
    failure: Any = make("Order")('{"item": "nails", "qty": "3"}').failure
    assert failure.message == "$.qty: Input should be a valid integer"


def test_a_model_that_says_it_is_lax_is_lax(make: Make) -> None:
    assert make("Lax")('{"quantity": "3"}').value == {"quantity": 3}


def test_unknown_keys_are_the_models_own_affair(make: Make) -> None:
    assert make("Lax")('{"quantity": 3, "x": 1}').value == {"quantity": 3}
    assert make("Closed")('{"a": 3, "x": 1}').failure is not None


def test_validators_judge_and_may_change_the_value(make: Make) -> None:
    assert make("Upper")('{"word": "abc"}').value == {"word": "ABC"}
    failure: Any = make("Upper")('{"word": "a c"}').failure
    assert failure.message == "$.word: Value error, one word only"


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": NaN}', '```\n{"a": 1}\n```', '{"a": 1'])
def test_json_is_as_strict_as_for_a_schema(make: Make, text: str) -> None:
    failure: Any = make("Closed")(text).failure
    assert failure.kind is FailureKind.INVALID_JSON


def test_a_validator_that_fails_otherwise_breaks_the_job(make: Make) -> None:
    with pytest.raises(RunError, match=r"models_for_test:Buggy raised KeyError: 'abc'.*\{\"word\": \"abc\"\}"):
        make("Buggy")('{"word": "abc"}')


def test_the_engine_gets_the_models_schema(make: Make) -> None:
    constraint: Any = make("Order").constraint
    assert constraint.kind == "json"
    assert json.loads(constraint.spec)["required"] == ["item", "qty"]


def test_a_model_without_a_schema_can_only_be_checked_afterwards(make: Make) -> None:
    with pytest.raises(SchemaError, match=r"NoSchema has no JSON Schema.*constrained: false"):
        make("NoSchema")
    assert make("NoSchema", constrained=False).constraint is None


def test_a_model_that_nothing_satisfies_is_refused(make: Make) -> None:
    with pytest.raises(SchemaError, match="no answer could ever pass"):
        make("Impossible")


def test_what_is_not_a_model_is_refused(make: Make) -> None:
    with pytest.raises(JobError, match="models_for_test:not_a_model is not a pydantic model"):
        make("not_a_model")
    with pytest.raises(JobError, match="did you mean Order"):
        make("Ordr")
