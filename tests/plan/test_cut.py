"""A text in, its longest part that fits out, cut between characters."""

from __future__ import annotations

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from llmbatch.plan.cut import Truncation, cut, most_kept

WHERE: list[Truncation] = ["truncate-head", "truncate-tail", "truncate-middle"]
ATOMS = ["a", "b c", " ", "\n", "\r\n", "漢", "é", "e\u0301", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "\u200b", "한", "ก็"]
texts = st.lists(st.sampled_from(ATOMS), min_size=1, max_size=40).map("".join)


def clusters(text: str) -> set[int]:
    """The places where a text may be cut."""
    return {0, len(text), *(found.end() for found in regex.finditer(r"\X", text))}


@given(texts, st.integers(0, 100), st.sampled_from(WHERE))
@example("a\r\n", 1, "truncate-head")
def test_what_is_left_is_no_longer_than_asked_and_cut_between_characters(
    text: str, keep: int, where: Truncation
) -> None:
    keep = min(keep, len(text))
    made = cut(text, keep, where)
    assert made.text == text[: made.start] + text[made.end :]
    assert len(made.text) <= keep
    assert {made.start, made.end} <= clusters(text)


@pytest.mark.parametrize(
    ("where", "left"), [("truncate-head", "6789"), ("truncate-tail", "0123"), ("truncate-middle", "01..89")]
)
def test_head_tail_or_middle_is_taken_out_and_only_the_middle_is_marked(where: Truncation, left: str) -> None:
    assert cut("0123456789", 4, where, "..").text == left


def test_a_flag_among_many_is_not_cut_in_two() -> None:
    flags = "🇩🇪🇫🇷" * 50
    for keep in range(1, 100):
        assert len(cut("x " + flags, keep + 2, "truncate-tail").text) % 2 == 0


@given(
    st.integers(2, 5000), st.integers(0, 6000), st.floats(0.1, 20), st.lists(st.integers(0, 9), min_size=1, max_size=50),
    st.integers(0, 5000),
)  # fmt: skip
def test_the_most_that_fits_is_found_in_a_bounded_number_of_tries(
    length: int, guess: int, per_token: float, dear: list[int], room: int
) -> None:
    """Characters cost from 0 to 9 tokens each: far from what was guessed of them."""
    prices = [dear[number % len(dear)] for number in range(length)]
    sums = [0]
    for price in prices:
        sums.append(sums[-1] + price)
    room = min(room, sums[-1] - 1)  # all of it is too long
    tries = []

    def free(keep: int) -> int:
        tries.append(keep)
        return room - sums[keep]

    kept = most_kept(length, guess, per_token, free)
    assert len(tries) <= 24
    assert all(0 < keep < length for keep in tries)
    assert kept == 0 or sums[kept] <= room
    assert sums[kept] == room or kept == length - 1 or sums[kept + 1] > room, "one character more would be too long"


def test_a_text_that_was_not_measured_is_halved_until_it_is() -> None:
    tries = []

    def free(keep: int) -> int:
        tries.append(keep)
        return -(1 << 62) if keep > 1000 else 300 - keep

    assert most_kept(10_000_000, 9_000_000, 5.0, free) == 300
    assert len(tries) <= 24


def test_where_nothing_fits_nothing_is_kept() -> None:
    assert most_kept(1000, 500, 1.0, lambda keep: -keep) == 0
