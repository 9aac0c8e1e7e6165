from __future__ import annotations

import pytest

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.errors import SchemaError
from llmbatch.core.types import Constraint, FailureKind


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


# from a row


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (r"\d{4}", "2024", True),
        (r"\d{4}", "2024 ", False),
        (r"\d{4}", "2024\n", False),
        ("a|bc", "bc", True),
        ("a|bc", "abc", False),
        ("a.c", "a\nc", False),
        ("(?i)yes", "YES", True),
        ("^a$", "a", True),
        ("[äö]+", "äö", True),
        ("", "x", False),
        ("(a+)+b", "a" * 5000, False),
        ("(a|aa)*c", "a" * 5000, False),
    ],
)
def test_an_expression_of_a_row_is_matched_as_a_whole_and_without_delay(pattern: str, text: str, fits: bool) -> None:
    assert (make_check(OutputSettings()).for_request({"regex": pattern})(text).failure is None) is fits


@pytest.mark.parametrize(
    "pattern", ["(a", "a)(b", "(a+)+(?=b)", r"(a)\1", "a{1000000000}", "((a{1000}){1000}){1000}", "(" * 1000]
)
def test_an_expression_of_a_row_that_could_cost_too_much_is_refused(pattern: str) -> None:
    with pytest.raises(SchemaError, match="is not valid, too large, or has look-around or back-references"):
        make_check(OutputSettings()).for_request({"regex": pattern})
