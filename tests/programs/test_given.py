from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.programs.base import Program, RowAsk, make_program
from llmbatch.programs.given import given, is_given, name_of_given, source_of_given


def importable(row: RowAsk) -> Program:
    return (yield row.ask())


def maker(times: int) -> Callable[[RowAsk], Program]:
    def made(row: RowAsk) -> Program:
        for _ in range(times):
            answer = yield row.ask()
        return answer

    return made


def test_a_function_that_can_be_imported_is_named_by_its_import_path() -> None:
    assert name_of_given(importable) == f"{__name__}:importable"
    assert not is_given(name_of_given(importable))


def test_another_is_found_by_its_name_as_long_as_it_lives() -> None:
    program = maker(1)
    name = name_of_given(program)
    assert name.startswith("made (a function given in Python, ") and given(name) is program
    assert make_program(name, {}, {}).kind.shape is program
    del program
    gc.collect()
    with pytest.raises(
        JobError, match=r"the program made was given to llmbatch in Python.*make the same call again, or put made"
    ):
        make_program(name, {}, {})


def test_what_a_function_holds_is_part_of_what_it_is() -> None:
    assert source_of_given(maker(1)) == source_of_given(maker(1))
    assert source_of_given(maker(1)) != source_of_given(maker(2))
    assert name_of_given(maker(1)) == name_of_given(maker(1)) != name_of_given(maker(2))

    def with_function(inner: Any) -> Callable[[RowAsk], Program]:
        def made(row: RowAsk) -> Program:
            return inner((yield row.ask()))

        return made

    assert source_of_given(with_function(lambda x: x)) != source_of_given(with_function(lambda x: [x]))


def test_a_partial_and_an_object_that_can_be_called_are_programs_too() -> None:
    class Asking:
        def __init__(self, times: int) -> None:
            self.times = times

        def __call__(self, row: RowAsk) -> Program:
            yield row.ask()

    assert name_of_given(partial(importable)).startswith("importable (a function")
    assert source_of_given(partial(importable, 1)) != source_of_given(partial(importable, 2))
    assert source_of_given(Asking(1)) == source_of_given(Asking(1)) != source_of_given(Asking(2))
    assert name_of_given(Asking(1)).startswith("Asking (")


def test_code_without_a_source_is_known_by_what_it_was_compiled_to() -> None:
    def typed(text: str) -> Any:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(text, names)  # noqa: S102 - as an interpreter does
        return names["f"]

    one, same, other = (
        typed(f"def f(row):\n    return (yield row.ask({name!r})) in {{'a', 'b', 'c'}}") for name in "xxy"
    )
    assert source_of_given(one) == source_of_given(same) != source_of_given(other)


@pytest.mark.parametrize("wrong", [3, int, None])
def test_what_is_no_function_is_refused(wrong: Any) -> None:
    with pytest.raises(JobError, match="a program is a generator function, an import path or a section"):
        name_of_given(wrong)
