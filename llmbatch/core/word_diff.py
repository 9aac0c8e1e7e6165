"""Two texts in; what they share, and what only one of them has, word by word, out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

_MOST = 1_000_000  # pairs of words that are compared at most: beyond, lines are compared first
# A character of Chinese or Japanese is a word of its own: these are written without spaces.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+|\s+|[^\w\s]")


class Piece(NamedTuple):
    """A stretch of text: what both have, what only the first has (``removed``), or only the second (``added``)."""

    kind: Literal["same", "removed", "added"]
    text: str


def word_diff(before: str, after: str) -> list[Piece]:
    """The pieces in order: those that are not ``added`` make the first text again, those that are not ``removed`` the second.

    Of what was changed the old comes before the new. Long texts are compared line by line first, and what is too long even so is
    given as removed and added whole.
    """
    one, other = _WORD.findall(before), _WORD.findall(after)
    if len(one) * len(other) <= _MOST:
        return _tidied(_compared(one, other))
    return _tidied(_by_lines(before.splitlines(keepends=True), after.splitlines(keepends=True)))


def _by_lines(before: Sequence[str], after: Sequence[str]) -> Iterator[Piece]:
    if len(before) * len(after) > _MOST:
        yield from _whole(before, after)
        return
    for tag, start, end, other_start, other_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        lines, others = before[start:end], after[other_start:other_end]
        if tag == "equal":
            yield Piece("same", "".join(lines))
            continue
        one, other = _WORD.findall("".join(lines)), _WORD.findall("".join(others))
        yield from _compared(one, other) if len(one) * len(other) <= _MOST else _whole(lines, others)


def _compared(before: Sequence[str], after: Sequence[str]) -> Iterator[Piece]:
    matcher = SequenceMatcher(str.isspace, before, after, autojunk=False)
    for tag, start, end, other_start, other_end in matcher.get_opcodes():
        if tag == "equal":
            yield Piece("same", "".join(before[start:end]))
        else:
            yield from _whole(before[start:end], after[other_start:other_end])


def _whole(before: Sequence[str], after: Sequence[str]) -> Iterator[Piece]:
    yield Piece("removed", "".join(before))
    yield Piece("added", "".join(after))


def _tidied(pieces: Iterable[Piece]) -> list[Piece]:
    """Without empty pieces; changes with nothing but white space between them are one."""
    tidy: list[Piece] = []
    same = removed = added = space = ""
    for kind, text in pieces:
        if kind == "removed":
            removed, added, space = removed + space + text, added + space, ""
        elif kind == "added":
            removed, added, space = removed + space, added + space + text, ""
        elif (removed or added) and not space and text.isspace():
            space = text
        elif removed or added:
            tidy += [Piece("same", same), Piece("removed", removed), Piece("added", added)]
            same, removed, added, space = space + text, "", "", ""
        else:
            same += text
    tidy += [Piece("same", same), Piece("removed", removed), Piece("added", added), Piece("same", space)]
    return [piece for piece in tidy if piece.text]
