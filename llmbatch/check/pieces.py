"""A text in; its words out, one by one. Scripts that put no spaces between words give each of their characters.

Marks that belong to a letter stay with it (accents, and the vowel signs of Indic, Hebrew and Arabic writing).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)  # Thai, Lao, Burmese, Khmer, Japanese, Chinese
_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff\u20d0-\u20ff"
)
_LONGEST_WORD = 40  # what is longer is no word, such as a laugh without an end, and comes in several pieces
_LETTERS = rf"(?:(?![{UNSPACED}])[\w{_MARKS}]){{1,{_LONGEST_WORD}}}"
_WORD = re.compile(rf"[{UNSPACED}]|{_LETTERS}")
# a row of equal signs, such as the line under a heading, is one piece; so is a stretch of nothing but white space
_PIECE = re.compile(rf"[{UNSPACED}]|{_LETTERS}|([^\w\s])\1{{0,99}}|\s{{50}}")


class Piece(NamedTuple):
    """A word or sign, and where it begins in its text."""

    text: str
    start: int


def words(text: str) -> list[str]:
    """The words of a text without its signs, in small letters."""
    return _WORD.findall(plain(text))


def pieces(text: str) -> Iterator[Piece]:
    """Words and signs as they are."""
    for found in _PIECE.finditer(text):
        yield Piece(found.group(), found.start())


def plain(text: str) -> str:
    """The text so that what reads the same is the same: composed characters, small letters."""
    return unicodedata.normalize("NFC", text).casefold()


__all__ = ["UNSPACED", "Piece", "pieces", "plain", "words"]
