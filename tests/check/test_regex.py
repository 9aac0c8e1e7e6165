from __future__ import annotations

import pytest

from llmbatch.check import OutputSettings, make_check
from llmbatch.errors import SchemaError
from llmbatch.types import Constraint, FailureKind


def test_the_value_is_the_text() -> None:
    assert make_check(OutputSettings(regex=r"\d{4}-\d\d"))("2024-02") == ("2024-02", None)


@pytest.mark.parametrize("text", ["x2024-02", "2024-02x", "2024-02\n", " 2024-02"])
def test_the_whole_answer_must_match(text: str) -> None:
    failure = make_check(OutputSettings(regex=r"\d{4}-\d\d$"))(text).failure
    assert failure is not None
    assert failure.kind is FailureKind.REGEX
    assert r"\\d{4}" in failure.message


def test_the_engine_gets_the_expression() -> None:
    assert make_check(OutputSettings(regex="a+")).constraint == Constraint("regex", "a+")


def test_a_match_that_was_cut_off_could_have_gone_on() -> None:
    failure = make_check(OutputSettings(regex=r"\d+"))("12", cut_off=True).failure
    assert failure is not None
    assert failure.kind is FailureKind.TRUNCATED


def test_an_expression_that_does_not_compile_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"'\(a' is not valid: missing \)"):
        make_check(OutputSettings(regex="(a"))
