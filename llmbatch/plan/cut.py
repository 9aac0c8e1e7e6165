"""A text that is too long and how much a part of it leaves free in; the longest part that fits out.

Texts are cut between the characters that a reader sees (grapheme clusters): never within an emoji, an accented letter or a CRLF.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from llmbatch.core.clusters import border_after, border_before

Truncation = Literal["truncate-head", "truncate-tail", "truncate-middle"]

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
        start, end = border_before(text, keep), len(text)
    elif where == "truncate-head":
        start, end = 0, border_after(text, len(text) - keep)
    else:
        start, end = border_before(text, keep - keep // 2), border_after(text, len(text) - keep // 2)
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


__all__ = ["Cut", "Truncation", "cut", "most_kept"]
