from __future__ import annotations

import random

import pytest

from llmbatch.core.minhash import HASHES, bands_of, sketcher, words_of


def pieces(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[at : at + 3]) for at in range(len(words) - 2)}


def test_the_share_of_equal_numbers_estimates_the_share_of_equal_pieces() -> None:
    drawn = random.Random(0)
    base = [f"w{drawn.randrange(500)}" for _ in range(120)]
    texts = [" ".join(base)]
    for changes in (1, 3, 6, 12, 30):
        other = list(base)
        for at in drawn.sample(range(120), changes):
            other[at] = f"x{at}"
        texts.append(" ".join(other))
    signatures = sketcher()(texts)
    assert signatures.shape == (len(texts), HASHES)
    for text, signature in zip(texts, signatures, strict=True):
        true = len(pieces(texts[0]) & pieces(text)) / len(pieces(texts[0]) | pieces(text))
        assert (signature == signatures[0]).mean() == pytest.approx(true, abs=0.15)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The Quick, brown fox", "the quick brown FOX!"),
        ("\uff21\uff22\uff23 d e", "abc d e"),  # wide letters
        ("one", "One."),
        ("one two", "one, two"),
    ],
)
def test_case_width_and_punctuation_do_not_count(text: str, same: str) -> None:
    first, second = sketcher()([text, same])
    assert (first == second).all()


@pytest.mark.parametrize(
    ("text", "other"), [("", "!"), ("!", "?"), ("one", "two"), ("one two", "two one"), ("one", "one two")]
)
def test_short_texts_and_texts_without_words_are_told_apart(text: str, other: str) -> None:
    first, second = sketcher()([text, other])
    assert (first == second).mean() < 0.5


def test_letters_of_scripts_without_spaces_are_words() -> None:
    assert words_of("\u4f60\u597d hello") == ["\u4f60", "\u597d", "hello"]


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_find_nearly_all_that_is_just_similar_enough(similarity: float) -> None:
    bands, numbers = bands_of(similarity)
    assert bands * numbers <= HASHES
    assert 1 - (1 - similarity**numbers) ** bands >= 0.99
