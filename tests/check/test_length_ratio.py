from __future__ import annotations

import pytest
from pydantic import ValidationError

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.types import FailureKind


def said(answer: str, source: str, **settings: object) -> str | None:
    check = make_check(OutputSettings.model_validate({"length_ratio": {"field": "text", **settings}}))
    failure = check(answer, {"text": source}).failure
    assert failure is None or failure.kind is FailureKind.LENGTH_RATIO
    return failure.message if failure else None


def test_an_answer_is_neither_shorter_nor_longer_than_allowed() -> None:
    assert said("a" * 5, "b" * 10, least=0.5, most=2) is None
    assert said("a" * 20, "b" * 10, least=0.5, most=2) is None
    assert said("a" * 4, "b" * 10, least=0.5) == (
        "the answer is too short: 4 characters for the 10 of its source ('text'), and it must be at least 0.5 times as long"
    )
    assert said("a" * 21, "b" * 10, most=2) == (
        "the answer is too long: 21 characters for the 10 of its source ('text'), and it must be at most 2 times as long"
    )


def test_lengths_can_be_counted_in_words() -> None:
    assert said("one, two", "eins zwei drei vier", least=0.5, unit="words") is None
    assert "1 words for the 4" in str(said("one", "eins zwei drei vier", least=0.5, unit="words"))


def test_a_source_without_length_or_one_that_is_short_is_no_measure() -> None:
    assert said("abc", "  ", most=1) is None
    assert said("abc", "a", most=1, ignore_below=2) is None


@pytest.mark.parametrize("settings", [{}, {"least": 2, "most": 1}, {"most": 0}, {"least": float("nan")}])
def test_a_ratio_that_no_answer_could_have_or_that_says_nothing_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        OutputSettings.model_validate({"length_ratio": {"field": "text", **settings}})
