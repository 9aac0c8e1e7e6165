from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmbatch.check.base import OutputSettings
from llmbatch.check.code import author_code

MODULE = """
import functools
from enum import Enum
from typing import Annotated, Optional

from pydantic import AfterValidator, BaseModel, field_validator

from code_of_a_base import Base


def positive(value: int) -> int:
    assert value > 0
    return value


class Size(Enum):
    small = "s"


class Inner(BaseModel):
    sizes: list[Size]

    @field_validator("sizes")
    @classmethod
    def few(cls, sizes):
        assert len(sizes) < 3
        return sizes


class Answer(Base):
    count: list[Annotated[int, AfterValidator(positive)]]
    inner: Optional[Inner] = None

    @field_validator("count")
    @classmethod
    def some(cls, count):
        assert len(count) > 1
        return count


class Other(BaseModel):
    pass


def too_long(value):
    return len(value) > 10


def decorated(function):
    @functools.wraps(function)
    def call(value):
        return function(value)
    return call


@decorated
def too_short(value):
    return len(value) < 4


def longer_than(limit):
    return lambda value: len(value) > limit


made = longer_than(20)
bound = functools.partial(lambda limit, value: len(value) > limit, 30)
"""
BASE = """
from pydantic import BaseModel, model_validator


class Base(BaseModel):
    @model_validator(mode="after")
    def whole(self):
        assert self.count != [7]
        return self
"""
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Puts the author's two modules there, as a new process finds them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # else a change within a second is not seen

    def write(module: str, base: str) -> None:
        (tmp_path / "code_of_an_author.py").write_text(module)
        (tmp_path / "code_of_a_base.py").write_text(base)
        forget()
        importlib.invalidate_caches()

    def forget() -> None:
        for name in ("code_of_an_author", "code_of_a_base"):
            sys.modules.pop(name, None)
        linecache.clearcache()

    write(MODULE, BASE)
    yield write
    forget()


def settings(*reject: str, schema: str | None = "code_of_an_author:Answer") -> OutputSettings:
    return OutputSettings(schema=schema, reject=reject)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("len(count) > 1", "len(count) > 2"),  # a validator of the model
        ("self.count != [7]", "self.count != [8]"),  # of its base, in another module
        ("len(sizes) < 3", "len(sizes) < 4"),  # of the model of a field
        ("value > 0", "value > 1"),  # in the type of a field
        ('small = "s"', 'small = "S"'),  # what the field's type is made of
        ("count: list[", "count: set["),
    ],
)
def test_a_model_that_is_changed_in_any_of_its_parts_is_another_one(write: Write, before: str, after: str) -> None:
    first = author_code(settings())
    assert author_code(settings()) == first
    write(MODULE.replace(before, after), BASE.replace(before, after))
    assert author_code(settings()) != first


def test_what_the_model_is_not_made_of_does_not_count(write: Write) -> None:
    first = author_code(settings())
    write(MODULE.replace("class Other(BaseModel):\n    pass", "class Other(BaseModel):\n    x: int"), BASE)
    assert author_code(settings()) == first
    parts = {key.removeprefix("answer.schema (").removesuffix(")") for key in first}
    own = {f"code_of_an_author.{name}" for name in ("Answer", "Inner", "Size", "positive")}
    assert parts == {"JSON Schema", "code_of_a_base.Base", *own}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("too_long", "len(value) > 10", "len(value) > 11"),
        ("too_short", "len(value) < 4", "len(value) < 5"),  # behind a decorator
        ("made", "longer_than(20)", "longer_than(21)"),  # what it closes over is not in its source
        ("bound", "limit, 30", "limit, 31"),
    ],
)
def test_a_predicate_that_is_changed_is_another_rule(write: Write, name: str, before: str, after: str) -> None:
    asked = settings(f"code_of_an_author:{name}", "/pattern/", schema=None)
    first = author_code(asked)
    assert set(first) == {f"answer.reject (code_of_an_author:{name})"}
    assert before in MODULE
    write(MODULE.replace(before, after), BASE)
    assert author_code(asked) != first


def test_what_has_no_source_has_a_digest_all_the_same() -> None:
    assert set(author_code(settings("math:isnan", schema=None))) == {"answer.reject (math:isnan)"}


def test_a_schema_that_is_no_code_has_none() -> None:
    assert author_code(OutputSettings()) == author_code(OutputSettings(schema={"type": "array"})) == {}
