"""JSON that we wrote or are to write, as pydantic reads and writes it: in half the time that Python's own takes.

It is not for what others wrote: a number that is too great for a float is infinity to it, without a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from pydantic_core import from_json, to_json


def parse_line(line: bytes) -> Any:
    """The value of a line of JSON. Raises ``ValueError``; Python's parser has the last word on what pydantic's does not take."""
    try:
        return from_json(line, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return json.loads(line)


def json_line(value: Any) -> bytes:
    """A value that was read from JSON, or is made of such, as a line of it. Floats may be spelled otherwise than by Python."""
    return to_json(value) + b"\n"


text_json: Callable[[str], str] = json.encoder.encode_basestring
"""A text as JSON, as ``json_line`` writes it."""


def value_json(value: Any) -> str:
    """A value as JSON, as ``json_line`` writes it."""
    return "null" if value is None else to_json(value).decode()


_NOTHING: Mapping[str, str] = {}


def hole(name: str) -> str:
    """What stands in a form where its lines differ: for a value, or within a text."""
    return f"\0{name}\0"


class Form:
    """Lines of JSON that are alike: one of them with holes, as a value, in; the JSON texts for these by name in, the line out.

    What goes into a hole within a text is written as it is, so that it must be nothing that JSON writes otherwise: digits, say.
    To make the objects of a line and write them takes four times as long, and this is done for every row.
    """

    def __init__(
        self, value: Any, write: Callable[[Any], str] = value_json, known: Mapping[str, str] = _NOTHING
    ) -> None:
        """``write`` writes values as JSON. ``known`` are the texts of holes that are the same ones in all lines."""
        holes: list[str] = []

        def filled(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name in known:
                return known[name].replace("%", "%%")
            holes.append(name)
            return "%s"

        self._text = _HOLE.sub(filled, write(value).replace("%", "%%")) + "\n"
        self._texts = itemgetter(*holes) if len(holes) > 1 else lambda texts: tuple(texts[name] for name in holes)

    def line(self, texts: Mapping[str, str | int]) -> bytes:
        """The line with these texts in its holes: all that are not known are among them."""
        return (self._text % self._texts(texts)).encode()


_HOLE = re.compile(r'"\\u0000(\w+)\\u0000"|\\u0000(\w+)\\u0000')  # a value, or within a text

__all__ = ["Form", "hole", "json_line", "parse_line", "text_json", "value_json"]
