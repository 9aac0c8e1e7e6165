from __future__ import annotations

import pytest

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.errors import SchemaError
from llmbatch.core.types import Constraint, FailureKind


def test_the_value_is_the_choice() -> None:
    assert make_check(OutputSettings(choice=("yes", "no")))("no") == ("no", None)


@pytest.mark.parametrize("text", [" yes", "yes\n", "\n yes \t"])
def test_white_space_around_an_answer_does_not_count(text: str) -> None:
    assert make_check(OutputSettings(choice=("yes", "no")))(text) == ("yes", None)


def test_a_choice_with_white_space_of_its_own_is_found_as_it_is() -> None:
    check = make_check(OutputSettings(choice=("a ", "a")))
    assert (check("a ").value, check("a").value) == ("a ", "a")


@pytest.mark.parametrize("text", ["Yes", "yes.", "yes no", '"yes"', "ye"])
def test_nothing_else_passes(text: str) -> None:
    failure = make_check(OutputSettings(choice=("yes", "no")))(text).failure
    assert failure is not None
    assert failure.kind is FailureKind.CHOICE
    assert failure.message == f'{text!r} is not one of the choices "yes", "no"'


def test_the_message_is_bounded() -> None:
    check = make_check(OutputSettings(choice=tuple(str(n) * 20 for n in range(1000))))
    failure = check("x" * 10_000).failure
    assert failure is not None
    assert len(failure.message) <= 500


def test_the_engine_gets_each_choice_once() -> None:
    check = make_check(OutputSettings(choice=("ja", "nein", "ja", 'ö"')))
    assert check.constraint == Constraint("choice", '["ja", "nein", "ö\\""]')


def test_a_constrained_choice_that_no_other_goes_on_from_passes_when_cut_off() -> None:
    check = make_check(OutputSettings(choice=("A", "B", "AB")))
    assert check("B", cut_off=True) == ("B", None)
    failure = check("A", cut_off=True).failure
    assert failure is not None
    assert failure.kind is FailureKind.TRUNCATED


def test_an_unconstrained_answer_that_was_cut_off_could_have_gone_on() -> None:
    check = make_check(OutputSettings(choice=("A", "B"), constrained=False))
    failure = check("B", cut_off=True).failure
    assert failure is not None
    assert failure.kind is FailureKind.TRUNCATED


def test_choices_that_cannot_be_taken_are_refused() -> None:
    with pytest.raises(SchemaError, match="the list of choices is empty"):
        make_check(OutputSettings(choice=()))
    with pytest.raises(SchemaError, match="allow_empty"):
        make_check(OutputSettings(choice=("a", " ")))


def test_a_blank_choice_can_be_allowed() -> None:
    assert make_check(OutputSettings(choice=("a", ""), allow_empty=True))("") == ("", None)
