from __future__ import annotations

import pytest
from pydantic import ValidationError

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.types import FailureKind


def said(answer: str, settings: object = True, **more: object) -> str | None:
    check = make_check(OutputSettings.model_validate({"repetition": settings}))
    failure = check(answer, **more).failure  # type: ignore[arg-type]
    if failure is not None and failure.kind is FailureKind.TRUNCATED:
        return None
    assert failure is None or failure.kind is FailureKind.REPETITION
    return failure.message if failure else None


@pytest.mark.parametrize(
    ("stretch", "turns"),
    [("and so on, and ", 8), ("no ", 32), ("哈", 32), ("The end of it all is near. ", 8), ("ha", 1000), ("=-", 16)],
)
def test_a_stretch_that_comes_again_and_again_is_a_loop_however_it_ends(stretch: str, turns: int) -> None:
    loop = "Once upon a time: " + stretch * turns
    assert "times one after the other" in str(said(loop))
    assert said(loop + " And then it was over.") is not None
    assert said(loop + stretch[:3], cut_off=True) is not None, "to go on from there would be more of the same"
    assert said("Once upon a time: " + stretch * (turns // 2)) is None


def test_the_message_shows_what_repeats() -> None:
    assert said("So: " + "one two three four " * 8) == (
        "the answer repeats itself: 'one two three four' comes 8 times one after the other"
    )


def test_a_list_or_a_table_with_equal_parts_is_no_loop() -> None:
    table = "| a | b | c |\n|---|---|---|\n" + "".join(f"| {n} | 0 | 0 |\n" for n in range(50))
    assert said(table) is None
    assert said("----------------------------------------\n" * 3) is None


def test_lengths_and_number_of_turns_can_be_set() -> None:
    assert said("go go go", {"times": 3, "shortest": 1}) is not None
    assert said("go go", {"times": 3, "shortest": 1}) is None
    assert said("a b c d e " * 20, {"longest": 4}) is None


def test_a_share_of_stretches_that_came_before_can_be_too_large() -> None:
    shuffled = " ".join(f"it is said that {word} is good." for word in "abcdefghijklmnop")
    assert said(shuffled) is None
    assert "of its stretches of 4 words came before, and at most 30% may" in str(said(shuffled, {"share": 0.3}))


def test_a_loop_is_no_json_error_and_no_cut_off_answer_to_go_on_from() -> None:
    check = make_check(OutputSettings.model_validate({"schema": {"type": "array"}, "repetition": True}))
    failure = check("[" + "1, 2, " * 40, cut_off=True).failure
    assert failure is not None and failure.kind is FailureKind.REPETITION


def test_it_is_switched_with_true_and_false_and_says_what_it_takes_else() -> None:
    assert OutputSettings.model_validate({"repetition": False}).repetition is None
    assert OutputSettings.model_validate({"repetition": True}).repetition is not None
    with pytest.raises(ValidationError, match="is true, false, or a mapping"):
        OutputSettings.model_validate({"repetition": "maybe"})
    with pytest.raises(ValidationError, match="shortest 9 is above longest 3"):
        OutputSettings.model_validate({"repetition": {"shortest": 9, "longest": 3}})
