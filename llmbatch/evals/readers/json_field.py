"""An output in; the JSON value in it, or what is at a path of keys in that, out.

The output may be JSON, or a text with JSON in it: in a code block, or somewhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from llmbatch.core.words import short
from llmbatch.evals.base import AnswerKind
from llmbatch.evals.readers.base import ReaderKind, ReaderSettings

_BLOCK = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_MISSING = object()


def _finite(text: str) -> float:
    """NaN and infinities are no JSON, and cannot be written again."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no number in JSON")
    return number


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


class JsonSettings(ReaderSettings):
    field: str = Field("", description="the key of the answer, dots go deeper; by default all of the value")
    text: bool = Field(False, description="the answer is compared as text, as one of free text is")


def read(text: str, settings: JsonSettings, _choices: Sequence[str]) -> Any:
    value = _value(text)
    for key in settings.field.split(".") if settings.field else ():
        if isinstance(value, Mapping):
            value = value.get(key, _MISSING)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    if value is _MISSING or value is None:
        return None
    if settings.text:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value


def _value(text: str) -> Any:
    blocks = _BLOCK.findall(text)
    for whole in (text, *reversed(blocks)):
        try:
            return _DECODER.decode(whole)
        except (ValueError, RecursionError):
            pass
    for start in re.finditer(r"[{\[]", text):
        try:
            return _DECODER.raw_decode(text, start.start())[0]
        except (ValueError, RecursionError):
            pass
    return _MISSING


def reference(value: Any, settings: JsonSettings, _choices: Sequence[str]) -> Any:
    if settings.text:
        if not isinstance(value, str | int | float):
            raise ValueError(f"is {short(value)}, and must be a text")
        return str(value)
    if isinstance(value, str) and not settings.field:
        try:
            return _DECODER.decode(value)
        except ValueError:
            raise ValueError(f"is {short(value)}, which is no JSON") from None
    return value


def _gives(settings: JsonSettings) -> AnswerKind:
    return "text" if settings.text else "json"


KIND = ReaderKind(JsonSettings, read, _gives, reference)
