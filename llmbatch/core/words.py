"""Numbers and outside text in, short words for a person out."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Any

_CLASSES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
    "image": (str, dict),
    "images": (list, tuple),
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxdict = _SHORT.maxlist = 4
_SHORT.maxlevel = 2


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


def first_few(names: Collection[Any], most: int, write: Callable[[Any], str] = str) -> str:
    """``a, b, c``; of more than ``most`` names the first ones: ``a, b and 1,234 more``."""
    more = len(names) - most
    return ", ".join(map(write, islice(names, most))) + (f" and {more:,} more" if more > 0 else "")


def printable(text: str) -> str:
    """Outside text without control characters, which could drive a terminal; newlines stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str, width: int = 200) -> str:
    """Outside text on one line of at most ``width`` characters."""
    line = printable(" ".join(text.split()))
    return clip(line, width)


def short(value: object) -> str:
    """A value as a message shows it: in quotes where it is text, cut where it is long."""
    return _SHORT.repr(value)


def type_name(value: object) -> str:
    """The JSON name of a value's type, or the Python one where JSON has none."""
    if value is None:
        return "null"
    return next((name for name, classes in _CLASSES.items() if value.__class__ in classes), type(value).__name__)


def is_of(value: object, kind: str) -> bool:
    """Whether a value is of a declared type. A boolean is no integer, and null is of no type."""
    if kind == "any":
        return value is not None
    if value.__class__ in _CLASSES[kind]:
        return True
    # subclasses, such as an enum's or a data frame library's, but not bool, which Python counts as an int
    return isinstance(value, _CLASSES[kind]) and not (isinstance(value, bool) and kind != "boolean")


def near(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` where a known name is close to a wrong one, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def near_file(name: str, known: Iterable[str]) -> str:
    """As ``near``, of names of files: what stands before their suffixes is compared, which would make all of one kind alike."""
    files = {file.partition(".")[0]: file for file in sorted(known, reverse=True)}
    close = difflib.get_close_matches(name.partition(".")[0], files, n=1)
    return f" (did you mean {files[close[0]]!r}?)" if close else ""


def is_encodable(text: str) -> bool:
    """Whether a text is made of whole characters. JSON can hold half a surrogate pair, which no tokenizer takes."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clip(text: str, limit: int, mark: str = "…") -> str:
    """The text, or its start and the ``mark`` that it was cut, in at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - len(mark)] + mark


def excerpt(seen: bytes | str, limit: int = 80) -> str:
    """The start of what was seen, in printable characters, so that a message stays a line and a terminal stays sane."""
    start = seen[: 5 * limit]
    text = (start.decode("utf-8", "backslashreplace") if isinstance(start, bytes) else start).strip()
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: limit + 1])
    return clip(shown, limit)


def quote(text: str, limit: int = 60) -> str:
    """The text's start in quotes, on one line, for a message."""
    return repr(clip(text, limit))
