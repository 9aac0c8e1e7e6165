"""A place in a text in; the nearest place out that is not within a character as a reader sees it (a grapheme cluster).

So no emoji, accented letter or CRLF is cut in two.
"""

from __future__ import annotations

import regex

_CLUSTER = regex.compile(r"\X")
_LONGEST = 128  # characters; within a longer cluster it may be cut


def border_before(text: str, at: int) -> int:
    """The last place up to ``at`` that is not within a cluster."""
    if not 0 < at < len(text):
        return max(0, min(at, len(text)))
    least = max(0, at - _LONGEST)
    # between two letters of ASCII there is a border whatever comes before; of flags it matters where the counting begins
    plain = (i for i in range(at, least, -1) if text[i - 1 : i + 1].isascii() and text[i] != "\n")
    known = next(plain, None if least else 0)
    border = start = least if known is None else known
    for cluster in _CLUSTER.finditer(text, start, min(len(text), at + _LONGEST)):
        if cluster.end() > at:
            return cluster.start() if cluster.start() > start or known is not None else at
        border = cluster.end()
    return border


def border_after(text: str, at: int) -> int:
    """The first place from ``at`` on that is not within a cluster."""
    before = border_before(text, at)
    if before >= at:
        return before
    cluster = _CLUSTER.match(text, before)
    return cluster.end() if cluster is not None else at


__all__ = ["border_after", "border_before"]
