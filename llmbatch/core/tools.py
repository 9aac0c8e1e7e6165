"""Tools that a request offers in, and an answer's text; what the answer is held to, and the calls that it makes, out.

A call is as OpenAI's protocol has it, ``{"type": "function", "function": {"name": ..., "arguments": JSON text}}``, without an id
where nobody gave one. Where a call is asked for, the answer is JSON: of the tool that is named its arguments, else a list of
``{"name", "parameters"}``. These are the schemas of vLLM's server. Where the model is free to call, how it writes calls is its own
matter, and a parser's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from llmbatch.core.types import Tools

Call = dict[str, Any]
Parser = Callable[[str, Tools], tuple[str, list[Call] | None]]
"""(an answer's text, the tools that were offered) -> (what of it is no call, the calls: None where there are none)."""

_ANY_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}
_DEFINITIONS = "$defs"


def call_of(name: str, arguments: str) -> Call:
    """A call of a function; its arguments are JSON text as a rule, and whatever the model wrote."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def schema_of(tools: Tools) -> dict[str, Any] | None:
    """The JSON Schema that the answer is held to; None where it may be any text."""
    if tools.choice == "named":
        return dict(next(_parameters(tool) for tool in tools.offered if _name(tool) == tools.name))
    if tools.choice != "required":
        return None
    definitions: dict[str, Any] = {}
    each = []
    for tool in tools.offered:
        parameters = dict(_parameters(tool))
        # what a schema refers to is looked for at the top of the whole
        definitions |= parameters.pop(_DEFINITIONS, {})
        properties = {"name": {"type": "string", "enum": [_name(tool)]}, "parameters": parameters}
        each.append({"properties": properties, "required": ["name", "parameters"]})
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"type": "object", "anyOf": each}}
    if not tools.parallel:
        schema["maxItems"] = 1
    return {**schema, _DEFINITIONS: definitions} if definitions else schema


def calls_in(text: str, tools: Tools, parser: Parser | None) -> tuple[str, list[Call] | None]:
    """What of a finished answer is no call, and the calls that it makes: None where there are none, or where they are not whole.

    ``parser`` reads the answers of a model that is free to call.
    """
    if tools.choice == "none":
        return text, None
    if tools.choice == "auto":
        rest, calls = (text, None) if parser is None else parser(text, tools)
        return rest, calls if calls is None or tools.parallel else calls[:1]
    calls = _asked_for(text, tools)
    return (text, None) if calls is None else ("", calls)


def _asked_for(text: str, tools: Tools) -> list[Call] | None:
    try:
        value = json.loads(text)
        said = (
            [(tools.name, value)] if tools.choice == "named" else [(each["name"], each["parameters"]) for each in value]
        )
        known = set(map(_name, tools.offered))
        if not said or not all(name in known and isinstance(arguments, dict) for name, arguments in said):
            return None
    except (KeyError, RecursionError, TypeError, ValueError):
        return None  # it is not what was asked for, as the check of it will say
    if tools.choice == "named":
        return [call_of(tools.name, text)]
    return [call_of(name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in said]


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool["function"]["name"])


def _parameters(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    return tool["function"].get("parameters") or _ANY_ARGUMENTS


__all__ = ["Call", "Parser", "call_of", "calls_in", "schema_of"]
