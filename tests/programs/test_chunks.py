"""A text in, its chunks out: nothing lost, nothing too long, cut where a person would cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbatch.programs.chunks import Chunk, split

MANY = 10_000_000


def bytes_in_fours(texts: Sequence[str]) -> list[int]:
    """A token for four bytes, and one for the start of a text."""
    return [1 + -(-len(text.encode()) // 4) for text in texts]


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def dearer_together(texts: Sequence[str]) -> list[int]:
    """Of two texts together more tokens than of both: white space inside counts threefold."""
    return [len(text) + 2 * len(re.findall(r"\s", text)) for text in texts]


COUNTS: dict[str, Callable[[Sequence[str]], list[int]]] = {
    "bytes": bytes_in_fours,
    "characters": lambda texts: [len(text) for text in texts],
    "words": words,
    "dearer together": dearer_together,
}

ATOMS = [
    "a", "word", "longer-word ", " ", "  ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\t", ". ", "? ", "# ", "## Head\n\n", "- item\n",
    "    code\n", "```\n", "> ", "| a | b |\n", "漢", "字。", "かな", "한국", "ไทย", "👩‍👩‍👧‍👦", "🇩🇪", "e\u0301",
    "\u200b", "\u200d", "\ufeff",
    "\u00a0", "\u2028", "\u3000", "\x0b", "\x00", "[x](", "*", "_", "<b>", "&amp;",
]  # fmt: skip
documents = st.lists(st.sampled_from(ATOMS) | st.text(max_size=6), max_size=60).map("".join)


def check(text: str, chunks: list[Chunk], most: int, count: Callable[[Sequence[str]], list[int]]) -> None:
    """What holds of all chunks."""
    kept = [False] * len(text)
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text.strip()
        assert chunk.end - chunk.start == 1 or count([chunk.text])[0] <= most
        kept[chunk.start : chunk.end] = [True] * (chunk.end - chunk.start)
    assert all(kept[at] or text[at].isspace() for at in range(len(text)))


@settings(deadline=None, max_examples=150, derandomize=True)
@given(documents, st.integers(1, 40), st.sampled_from(sorted(COUNTS)), st.sampled_from(["text", "markdown"]))
def test_chunks_are_in_order_disjoint_fit_and_lose_nothing(text: str, most: int, by: str, markup: str) -> None:
    count = COUNTS[by]
    chunks = split(text, most, count, markup=markup)
    check(text, chunks, most, count)
    assert all(before.end <= after.start for before, after in pairwise(chunks))
    assert chunks == split(text, most, count, markup=markup)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(documents, st.integers(2, 40), st.integers(1, 20), st.sampled_from(sorted(COUNTS)))
def test_with_an_overlap_chunks_fit_too_and_repeat_no_more_than_that(
    text: str, most: int, overlap: int, by: str
) -> None:
    count, overlap = COUNTS[by], min(overlap, most - 1)
    chunks = split(text, most, count, overlap=overlap)
    check(text, chunks, most, count)
    for before, after in pairwise(chunks):
        assert before.start < after.start
        assert before.end < after.end
        repeated = text[after.start : before.end]
        assert not repeated or count([repeated])[0] <= overlap


@pytest.mark.parametrize("text", ["", " ", "\n\r\n\t\u3000"], ids=["empty", "space", "blank lines"])
def test_a_text_of_white_space_has_no_chunks(text: str) -> None:
    assert split(text, 5, words) == []


def test_a_text_that_fits_is_one_chunk_without_the_space_around_it() -> None:
    assert split("\n one two \n", 2, words) == [Chunk(2, 9, "one two")]


def test_it_is_cut_at_paragraphs_before_sentences_and_at_sentences_before_words() -> None:
    paragraphs = "one two. three four.\n\nfive six. seven eight."
    assert [chunk.text for chunk in split(paragraphs, 5, words)] == ["one two. three four.", "five six. seven eight."]
    assert [chunk.text for chunk in split("One two. Three four five. Six.", 4, words)] == [
        "One two.",
        "Three four five. Six.",
    ]
    assert [chunk.text for chunk in split("one two three", 2, words)] == ["one two", "three"]


def test_markdown_is_cut_before_a_heading() -> None:
    text = "# One\n\nfirst text here\n\n# Two\n\nsecond text is here"
    found = [chunk.text for chunk in split(text, 7, words, markup="markdown")]
    assert found == ["# One\n\nfirst text here", "# Two\n\nsecond text is here"]


def test_an_indented_line_of_markdown_keeps_its_indentation() -> None:
    text = "one two three\n\n    code is here\n\nfour five six"
    assert [c.text for c in split(text, 4, words, markup="markdown")] == [
        "one two three",
        "    code is here",
        "four five six",
    ]
    assert [c.text for c in split(text, 4, words)] == ["one two three", "code is here", "four five six"]


def test_small_pieces_are_put_together() -> None:
    """A dense middle is cut more finely than the rest, and what is left over of it goes with its neighbours."""
    text = " ".join(["a" * 20] * 40 + ["b"] * 40 + ["c" * 20] * 40)
    sizes = [words([chunk.text])[0] for chunk in split(text, 10, words)]
    assert max(sizes) <= 10
    assert all(a + b > 10 for a, b in pairwise(sizes))


def test_an_overlap_begins_at_a_word() -> None:
    text = " ".join(f"word{number:03}" for number in range(100))
    chunks = split(text, 20, words, overlap=6)
    begins = [chunk.text[:4] for chunk in chunks]
    assert begins == ["word"] * len(chunks)
    overlaps = [words([text[b.start : a.end]])[0] for a, b in pairwise(chunks)]
    assert all(3 <= count <= 6 for count in overlaps)


@pytest.mark.parametrize(
    ("line", "markup"),
    [
        ("x" * MANY, "text"),
        ("word " * (MANY // 5), "markdown"),
        ("漢字" * (MANY // 60), "text"),
        ("[" * (MANY // 10), "markdown"),
    ],
    ids=["x", "words", "cjk", "brackets"],
)
def test_one_long_line_is_counted_a_few_times_and_not_more(line: str, markup: str) -> None:
    seen = [0, 0]

    def count(texts: Sequence[str]) -> list[int]:
        seen[0] += 1
        seen[1] += sum(map(len, texts))
        return bytes_in_fours(texts)

    chunks = split(line, 1000, count, markup=markup)
    assert sum(len(chunk.text) for chunk in chunks) >= len(line) - len(chunks)
    assert all(tokens <= 1000 for tokens in bytes_in_fours([chunk.text for chunk in chunks]))
    assert seen[0] <= 10
    assert seen[1] <= 4 * len(line)


def test_a_text_that_is_too_long_to_be_counted_is_cut_all_the_same() -> None:
    """``RowAsk.tokens`` has very many for a text that no context could hold."""

    def count(texts: Sequence[str]) -> list[int]:
        return [1 << 62 if len(text) > 400 else len(text) for text in texts]

    text = " " * 300_000 + "word " * 1000  # the samples are of white space for the most part
    check(text, split(text, 50, count), 50, count)


@pytest.mark.parametrize(("most", "overlap"), [(0, 0), (5, 5), (5, -1)])
def test_limits_that_cannot_be_are_refused(most: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="not possible"):
        split("text", most, words, overlap=overlap)


def test_an_unknown_markup_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown markup 'markdwn'"):
        split("text", 5, words, markup="markdwn")
