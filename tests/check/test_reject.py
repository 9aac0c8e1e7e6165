from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.check import Check
from llmbatch.core.errors import JobError, RunError
from llmbatch.core.types import FailureKind

PREDICATES = """
def too_short(value): return len(value) < 3
def reason(value): return "too polite" if "please" in value else ""
def same_as_source(value, row): return value == row["text"]
def with_default(value, limit=3): return len(value) > limit
def row_by_name(value, row=None): return row == {"text": "x"}
def several(*arguments): return arguments == ("abc",)
def raises(value): raise KeyError("unit")
def three(a, b, c): return True
def nothing(): return True
def keyword(value, *, limit): return True
def positive(value): return value["n"] > 0
constant = 3
"""

Make = Callable[..., Check]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "predicates_for_test.py").write_text(PREDICATES)
    sys.modules.pop("predicates_for_test", None)

    def make(*rules: str, **settings: object) -> Check:
        named = tuple(rule if "/" in rule else f"predicates_for_test:{rule}" for rule in rules)
        return make_check(OutputSettings.model_validate({"reject": named, **settings}))

    return make


def rejection(check: Check, text: str, row: dict[str, object] | None = None) -> str | None:
    failure = check(text, row).failure
    assert failure is None or failure.kind is FailureKind.REJECTED
    return failure.message if failure else None


def test_a_pattern_that_is_found_sends_the_answer_back(make: Make) -> None:
    check = make("/(?i)as an ai/")
    assert (
        rejection(check, "Well, As an AI I") == "the answer contains 'As an AI', which the rule /(?i)as an ai/ refuses"
    )
    assert rejection(check, "Well") is None


def test_a_predicate_that_is_true_sends_the_answer_back(make: Make) -> None:
    assert rejection(make("too_short"), "ab") == "the rule predicates_for_test:too_short refuses the answer"
    assert rejection(make("too_short"), "abc") is None


def test_a_predicate_can_say_why(make: Make) -> None:
    assert rejection(make("reason"), "please do") == "too polite"
    assert rejection(make("reason"), "do") is None


def test_a_predicate_can_look_at_the_row(make: Make) -> None:
    assert rejection(make("same_as_source"), "abc", {"text": "abc"}) is not None
    assert rejection(make("same_as_source"), "abc", {"text": "abd"}) is None
    assert rejection(make("row_by_name"), "abc", {"text": "x"}) is not None


def test_an_optional_argument_of_another_name_is_not_given_the_row(make: Make) -> None:
    assert rejection(make("with_default"), "abc", {"text": "x"}) is None
    assert rejection(make("several"), "abc", {"text": "x"}) is not None


def test_a_predicate_gets_the_value_and_not_the_text(make: Make) -> None:
    check = make("positive", schema={"type": "object"})
    assert rejection(check, '{"n": 1}') is not None
    assert rejection(check, '{"n": -1}') is None


def test_rules_are_asked_in_order_after_the_kinds_own_check(make: Make) -> None:
    check = make("/x/", "raises", choice=["x", "y"])
    assert rejection(check, "x") is not None
    failure = check("z").failure
    assert failure is not None
    assert failure.kind is FailureKind.CHOICE


def test_an_answer_that_was_cut_off_is_not_shown_to_a_predicate(make: Make) -> None:
    failure = make("raises")("abc", cut_off=True).failure
    assert failure is not None
    assert failure.kind is FailureKind.TRUNCATED


def test_a_predicate_that_raises_breaks_the_job(make: Make) -> None:
    with pytest.raises(RunError, match=r"predicates_for_test:raises raised KeyError: 'unit', on the answer \"'abc'\""):
        make("raises")("abc")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("/", "not a pattern between slashes"),
        ("//", "not a pattern between slashes"),
        ("/a/i", "not a pattern between slashes"),
        ("/(/", "not a valid regular expression"),
        ("a/b", "neither a /pattern/ nor the import path"),
        ("missing", "has no 'missing'"),
        ("constant", "is not a function but '3'"),
        ("three", "must take the value"),
        ("nothing", "must take the value"),
        ("keyword", "must take the value"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_at_once(make: Make, rule: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        make(rule)
