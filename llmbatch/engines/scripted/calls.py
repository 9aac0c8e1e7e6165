"""A scripted answer in; the calls of tools in it out: it stands in for vLLM's parsers, and knows the form of hermes alone."""

from __future__ import annotations

import json
import re

from llmbatch.core.tools import Call, call_of
from llmbatch.core.types import Tools

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def read_calls(text: str, _: Tools) -> tuple[str, list[Call] | None]:
    """What stands before the calls, and the calls; an answer in which one cannot be read is text."""
    try:
        said = [json.loads(call) for call in _CALL.findall(text)]
        calls = [call_of(each["name"], json.dumps(each["arguments"], ensure_ascii=False)) for each in said]
    except (KeyError, TypeError, ValueError):
        return text, None
    return (text.partition("<tool_call>")[0], calls) if calls else (text, None)


__all__ = ["read_calls"]
