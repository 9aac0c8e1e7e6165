"""JSON that we wrote or are to write, as pydantic reads and writes it: in half the time that Python's own takes.

It is not for what others wrote: a number that is too great for a float is infinity to it, without a word.
"""

from __future__ import annotations

import json
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


__all__ = ["json_line", "parse_line"]
