from __future__ import annotations

import pytest

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.types import FailureKind

SOURCE = "The quick brown fox jumps over the lazy dog near the old river bank in 2024."


def said(answer: str, source: str = SOURCE, **settings: object) -> str | None:
    check = make_check(OutputSettings.model_validate({"copy": {"field": "text", **settings}}))
    failure = check(answer, {"text": source}).failure
    assert failure is None or failure.kind is FailureKind.COPY
    return failure.message if failure else None


def test_an_untranslated_copy_is_sent_back_whatever_its_case_and_signs() -> None:
    assert said(SOURCE.upper().replace(".", "!")) == "the answer is its source ('text') over again, word for word"


def test_an_answer_that_is_nearly_a_copy_is_sent_back_above_the_limit() -> None:
    nearly = SOURCE.replace("lazy", "sleepy")
    assert said(nearly) is None, "10 of 13 runs of words"
    assert said(nearly, most=0.7) == (
        "the answer copies its source ('text'): 76.9% of its runs of 3 words stand there too, and at most 70% may"
    )


@pytest.mark.parametrize("answer", ["The quick brown fox", "Der flinke braune Fuchs springt 2024 über den Hund"])
def test_short_answers_and_translations_are_no_copies(answer: str) -> None:
    assert said(answer) is None


def test_a_copy_of_a_script_without_spaces_is_told_by_its_characters() -> None:
    assert said("会議は木曜日に延期されました。", "会議は木曜日に延期されました。") is not None
    assert said("会议改到星期四下午了。", "会議は木曜日に延期されました。") is None
