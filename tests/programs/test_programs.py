from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.table import find
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
from llmbatch.programs.base import Ask, Incomplete, Program, ProgramKind, make_program

ASK = Ask(Prompt(text="How many?"), Sampling())


class Asked:
    """A row of which it is known what is asked."""

    row = Row(0, 0, {}, Cursor(0))
    settings: Mapping[str, Any] = {}
    context_length = None

    def __init__(self, wanted: Ask | Failure) -> None:
        self.wanted = wanted

    def ask(self, prompt: str = "main", /, **extra: Any) -> Ask | Failure:
        return self.wanted

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def room(self, ask: Ask) -> int | None:
        return None


def single(wanted: Ask | Failure) -> Program:
    return make_program("single", {}, ["main"]).kind.shape(Asked(wanted))


def accepted(value: object) -> Accepted:
    return Accepted(value, Completion(RequestKey(0), "", "stop", Usage()))


def returned(program: Program, answer: object) -> object:
    assert program.send(None) is not None
    with pytest.raises(StopIteration) as stop:
        program.send(answer)
    return stop.value.value


def test_every_program_of_the_table_is_a_kind() -> None:
    assert all(isinstance(find(PROGRAMS, name, "program"), ProgramKind) for name in PROGRAMS)


def test_an_unknown_shape_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        JobError, match=r"unknown program 'singel' \(did you mean 'single'\?\): known are single.*import path"
    ):
        make_program("singel", {}, ["main"])


def test_settings_that_a_program_does_not_have_are_refused_with_those_it_has() -> None:
    with pytest.raises(JobError, match=r"unknown key 'program\.settings\.count'; known keys: none"):
        make_program("single", {"count": 2}, ["main"])


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
