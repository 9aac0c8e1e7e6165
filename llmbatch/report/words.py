"""Numbers and outside text in, short words for a person out."""

from __future__ import annotations

from collections.abc import Mapping


def count(number: float) -> str:
    """``12,345``; a small rate keeps a digit: ``0.4``."""
    return f"{number:,.1f}" if 0 < number < 10 and number != int(number) else f"{number:,.0f}"


def share(part: float) -> str:
    """``12.3%``; what is not quite all is never shown as 100%, and what is not nothing never as 0%."""
    percent = 100 * part
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%".replace(".0%", "%")


def duration(seconds: float) -> str:
    """``4.2 s``, ``1m 05s``, ``2h 03m``, ``3d 04h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02d}m"
    return f"{hours // 24}d {hours % 24:02d}h"


def rough(seconds: float) -> str:
    """A duration that is only estimated: ``5 s``, ``42m``, ``2h 03m``, ``3d 04h``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f}m" if seconds < 3600 else duration(seconds)


def counts(numbers: Mapping[str, int]) -> str:
    """``ok 12 · failed 3``, without what is 0."""
    return " · ".join(f"{name} {count(number)}" for name, number in numbers.items() if number)


def printable(text: str) -> str:
    """Outside text without control characters, which could drive a terminal; newlines stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str, width: int = 200) -> str:
    """Outside text on one line of at most ``width`` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"
