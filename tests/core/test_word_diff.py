from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core import word_diff as module
from llmbatch.core.word_diff import Piece, word_diff

texts = st.text(st.sampled_from("ab 漢字é\n.,"), max_size=30)


def text_of(pieces: list[Piece], without: str) -> str:
    return "".join(piece.text for piece in pieces if piece.kind != without)


@pytest.mark.parametrize("most", [0, 20, 1_000_000])
@given(before=texts, after=texts)
def test_the_pieces_make_both_texts_again(most: int, before: str, after: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST", most)
        pieces = word_diff(before, after)
    assert text_of(pieces, "added") == before
    assert text_of(pieces, "removed") == after
    assert all(piece.text for piece in pieces)


@given(text=texts)
def test_a_text_is_the_same_as_itself(text: str) -> None:
    assert word_diff(text, text) == ([Piece("same", text)] if text else [])


def test_words_that_changed_stand_side_by_side_and_the_rest_is_the_same() -> None:
    assert word_diff("The old ferry closes on 1 March.", "The new ferry closes on 2 March.") == [
        ("same", "The "), ("removed", "old"), ("added", "new"), ("same", " ferry closes on "), ("removed", "1"), ("added", "2"),
        ("same", " March."),
    ]  # fmt: skip


def test_neighbours_that_changed_are_one_change() -> None:
    assert word_diff("a red big dog", "a small black dog") == [
        ("same", "a "), ("removed", "red big"), ("added", "small black"), ("same", " dog"),
    ]  # fmt: skip


def test_text_without_spaces_is_compared_by_characters() -> None:
    assert word_diff("東京駅", "東京港") == [("same", "東京"), ("removed", "駅"), ("added", "港")]


def test_of_long_texts_lines_are_compared_and_the_words_of_those_that_changed() -> None:
    lines = [f"line {number} has a few words\n" for number in range(400)]
    changed = [*lines[:200], "line 200 has some few words\n", *lines[201:]]
    assert word_diff("".join(lines), "".join(changed)) == [
        ("same", "".join(lines[:200]) + "line 200 has "), ("removed", "a"), ("added", "some"),
        ("same", " few words\n" + "".join(lines[201:])),
    ]  # fmt: skip
