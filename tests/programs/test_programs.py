from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.types import (
    Accepted,
    Completion,
    Cursor,
    Failure,
    FailureKind,
    Prompt,
    RequestKey,
    Row,
    Sampling,
    Usage,
)
from llmbatch.programs import PROGRAMS
from llmbatch.programs.base import Ask, Incomplete, Program, make_program

ASK = Ask(Prompt(text="How many?"), Sampling())


class Asked:
    """A row of which it is known what is asked."""

    row = Row(0, 0, {}, Cursor(0))
    settings: Mapping[str, Any] = {}

    def __init__(self, wanted: Ask | Failure) -> None:
        self.wanted = wanted

    def ask(self, prompt: str = "main", /, **extra: Any) -> Ask | Failure:
        return self.wanted


def single(wanted: Ask | Failure) -> Program:
    return make_program("single")(Asked(wanted))


def accepted(value: object) -> Accepted:
    return Accepted(value, Completion(RequestKey(0), "", "stop", Usage()))


def returned(program: Program, answer: object) -> object:
    assert program.send(None) is not None
    with pytest.raises(StopIteration) as stop:
        program.send(answer)
    return stop.value.value


def test_every_shape_of_the_table_can_be_made() -> None:
    assert all(callable(make_program(name)) for name in PROGRAMS)


def test_an_unknown_shape_is_refused_with_the_known_ones() -> None:
    with pytest.raises(JobError, match="unknown program 'triple': known are single"):
        make_program("triple")


def test_single_asks_the_rows_own_prompt() -> None:
    assert single(ASK).send(None) is ASK


def test_single_returns_the_checked_value() -> None:
    assert returned(single(ASK), accepted({"n": 1})) == {"n": 1}
    assert returned(single(ASK), accepted(None)) is None


def test_single_is_incomplete_without_an_answer() -> None:
    assert returned(single(ASK), None) == Incomplete()


def test_single_of_several_samples_returns_the_list_of_their_values() -> None:
    ask = Ask(ASK.prompt, ASK.sampling, samples=2)
    assert returned(single(ask), [accepted("a"), accepted(None)]) == ["a", None]


def test_single_of_several_samples_is_incomplete_with_null_at_those_that_failed() -> None:
    ask = Ask(ASK.prompt, ASK.sampling, samples=2)
    assert returned(single(ask), [None, accepted("b")]) == Incomplete([None, "b"])


def test_single_of_a_prompt_that_cannot_be_rendered_yields_why_and_is_incomplete() -> None:
    failure = Failure(FailureKind.PROMPT, "no text")
    assert single(failure).send(None) is failure
    assert returned(single(failure), None) == Incomplete()
