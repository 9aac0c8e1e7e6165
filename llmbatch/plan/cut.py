"""A text that is too long and how much a part of it leaves free in; the longest part that fits out.

Texts are cut between the characters that a reader sees (grapheme clusters): never within an emoji, an accented letter or a CRLF.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import regex

Truncation = Literal["truncate-head", "truncate-tail", "truncate-middle"]

_CLUSTER = regex.compile(r"\X")
_LONGEST_CLUSTER = 128  # characters; within a longer one it may be cut
_TRIES = 24
_HALVED = 3  # every so many tries the middle is taken, as a guess may come nearer from one side alone
_UNKNOWN = -(1 << 40)  # a text that leaves less free than this was not measured


class Cut(NamedTuple):
    """What is left of a text, and the part of it, from ``start`` to ``end``, that was taken out."""

    text: str
    start: int
    end: int


def cut(text: str, keep: int, where: Truncation, mark: str = "") -> Cut:
    """The text without its head, tail or middle, with at most ``keep`` characters of it left. ``mark`` is put in the middle."""
    if where == "truncate-tail":
        start, end = _border_before(text, keep), len(text)
    elif where == "truncate-head":
        start, end = 0, _border_after(text, len(text) - keep)
    else:
        start, end = _border_before(text, keep - keep // 2), _border_after(text, len(text) - keep // 2)
    between = mark if where == "truncate-middle" else ""
    return Cut(text[:start] + between + text[end:], start, end)


def most_kept(length: int, guess: int, per_token: float, free: Callable[[int], int]) -> int:
    """The most of ``length`` characters that can be kept, where all are too many; 0 where no number was found that fits.

    ``free(n)`` are the tokens that a cut to n characters leaves free, below 0 where it is too long: it is called at most
    ``_TRIES`` times. ``guess`` is tried first, and ``per_token`` is about how many characters a token has.
    """
    low, high = 0, length
    low_free, high_free = 0, _UNKNOWN
    for number in range(1, _TRIES + 1):
        guess = min(max(guess, low + 1), high - 1)
        if guess <= low:
            break
        left = free(guess)
        if left >= 0:
            low, low_free = guess, left
        else:
            high, high_free = guess, left
        if left == 0:
            break
        if number % _HALVED == 0:
            guess = (low + high) // 2
        elif low and high_free > _UNKNOWN:
            guess = low + (high - low) * low_free // (low_free - high_free)
        elif left > _UNKNOWN:
            guess += int(left * per_token) or (1 if left > 0 else -1)
        else:
            guess //= 2
    return low


def _border_before(text: str, at: int) -> int:
    """The last place up to ``at`` that is not within a cluster."""
    if not 0 < at < len(text):
        return max(0, min(at, len(text)))
    least = max(0, at - _LONGEST_CLUSTER)
    # between two letters of ASCII there is a border whatever comes before; of flags it matters where the counting begins
    plain = (i for i in range(at, least, -1) if text[i - 1 : i + 1].isascii() and text[i] != "\n")
    border = start = next(plain, least)
    for cluster in _CLUSTER.finditer(text, start, min(len(text), at + _LONGEST_CLUSTER)):
        if cluster.end() > at:
            return cluster.start() if cluster.start() > start or not start else at
        border = cluster.end()
    return border


def _border_after(text: str, at: int) -> int:
    """The first place from ``at`` on that is not within a cluster."""
    before = _border_before(text, at)
    if before >= at:
        return before
    cluster = _CLUSTER.match(text, before)
    return cluster.end() if cluster is not None else at


__all__ = ["Cut", "Truncation", "cut", "most_kept"]
