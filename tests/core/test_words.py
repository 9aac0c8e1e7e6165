from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core import words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (4.21, "4.2 s"),
        (59.4, "59 s"),
        (59.6, "1m 00s"),
        (65, "1m 05s"),
        (7380, "2h 03m"),
        (273600, "3d 04h"),
    ],
)
def test_a_duration_is_told_with_two_units_at_most(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("part", "text"),
    [(0, "0%"), (0.0001, "<0.1%"), (0.123, "12.3%"), (0.5, "50%"), (0.9999, ">99.9%"), (1, "100%")],
)
def test_a_share_is_all_or_nothing_only_where_it_is(part: float, text: str) -> None:
    assert words.share(part) == text


def test_counts_leave_out_what_is_zero() -> None:
    assert words.counts({"ok": 12345, "failed": 0, "invalid": 2}) == "ok 12,345 · invalid 2"


@given(st.characters())
def test_no_control_character_reaches_a_terminal(character: str) -> None:
    assert words.one_line(f"a{character}b").isprintable()


def test_a_newline_stays_in_text_and_goes_from_a_line() -> None:
    assert words.printable("a\nb\x1b[31m") == "a\nb\\x1b[31m"
    assert words.one_line("a\nb\tc") == "a b c"


def test_a_long_line_is_cut_at_its_width() -> None:
    assert words.one_line("x" * 50, width=10) == "x" * 9 + "…"


def test_an_excerpt_of_bytes_is_printable_and_short() -> None:
    assert words.excerpt(b"  {oops}\xff\t\n") == "{oops}\\xff"
    assert words.excerpt("a\nb\x1b") == "a\\nb\\x1b"
    assert words.excerpt(b"x" * 500) == "x" * 79 + "…"
    assert words.excerpt("x" * 80) == "x" * 80


def test_a_clipped_text_says_that_it_was_cut() -> None:
    assert words.clip("abcdefgh", 5) == "abcd…"
    assert words.clip("abcdefgh", 7, " [...]") == "a [...]"
    assert words.clip("abc", 3) == "abc"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("promt.yaml", " (did you mean 'prompt.yaml'?)"),
        ("rows.json", " (did you mean 'rows.jsonl'?)"),
        ("labels.yaml", ""),
    ],
)
def test_a_file_is_near_by_what_stands_before_its_suffix(name: str, near: str) -> None:
    assert words.near_file(name, ["tab.yaml", "prompt.yaml", "rows.jsonl"]) == near


def test_of_many_names_only_those_that_are_shown_are_written() -> None:
    written: list[int] = []

    def write(number: int) -> str:
        written.append(number)
        return f"<{number}>"

    assert words.first_few(range(2_000), 2, write) == "<0>, <1> and 1,998 more"
    assert written == [0, 1]
    assert words.first_few({"a": 1, "b": 2}, 2) == "a, b"
