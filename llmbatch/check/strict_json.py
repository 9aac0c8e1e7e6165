"""Text in, a JSON value out: JSON as RFC 8259 has it and nothing else, so that a value can be written and read again.

Refused, and never repaired: text around the JSON (a Markdown fence, a sentence), NaN and infinities, numbers that
overflow to infinity, integers of more than 4300 digits, lone surrogates, nesting deeper than ``MAX_DEPTH``, and a key
that an object has twice, because each reader would take another one of its values.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from llmbatch.core.words import quote

MAX_DEPTH = 128


class JsonError(ValueError):
    """The text is not one JSON value; ``str(error)`` says why, in words that the model can use."""


def parse(text: str) -> Any:
    """The one JSON value that the text is; white space around it does not count. Raises ``JsonError``."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(_explain(text, error)) from None
    except JsonError:
        raise
    except RecursionError:
        raise JsonError(f"the JSON is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:  # Python's limit on the digits of an integer
        raise JsonError(f"a number in the JSON is too long: {str(error).partition(';')[0]}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise JsonError(f"the JSON is nested deeper than {MAX_DEPTH} levels")
    if "\\u" in text and _has_surrogate(value):
        raise JsonError("a string in the JSON has half of a surrogate pair (\\ud800 to \\udfff), which is no character")
    return value


def _explain(text: str, error: json.JSONDecodeError) -> str:
    start = text.lstrip()
    if start.startswith("```"):
        return "the JSON is inside a Markdown code fence (```); the answer must be the JSON alone"
    if error.msg == "Extra data":
        return f"text follows the JSON: {quote(text[error.pos :].lstrip())}; the answer must be the JSON alone"
    if error.msg == "Expecting value" and error.pos == len(text) - len(start):
        if not start:
            return "the answer is blank, not JSON"
        return f"the answer begins with {quote(start)}, which is not JSON; the answer must be the JSON alone"
    if error.pos >= len(text.rstrip()):
        return f"not valid JSON: it ends too early, at line {error.lineno} column {error.colno} ({error.msg.lower()})"
    message = error.msg.removesuffix(" at")
    return f"not valid JSON: {message} at line {error.lineno} column {error.colno}, near {quote(text[error.pos :], 30)}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonError(f"an object in the JSON has the key {quote(twice)} more than once")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise JsonError(f"the number {quote(digits)} is too large")
    return value


def _constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not JSON")


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for holder in level
            for child in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _has_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
