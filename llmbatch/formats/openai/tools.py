"""``tools`` and ``tool_choice`` of a chat's body in; the tools that the model is offered out, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmbatch.core.tools import Call, schema_of
from llmbatch.core.types import Tools
from llmbatch.core.words import near, short, type_name
from llmbatch.formats.openai.body import RequestError

KEYS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FORM = '{"type": "function", "function": {"name": ..., "parameters": a JSON Schema}}'


def tools_of(body: Mapping[str, Any]) -> Tools | None:
    """The tools that a body offers, None where there are none. Raises ``RequestError``."""
    if "tools" not in body and "tool_choice" not in body:
        return None
    given, choice, parallel = (body.get(key) for key in ("tools", "tool_choice", "parallel_tool_calls"))
    if not isinstance(given, list | None):
        raise RequestError(f"body.tools must be a list of tools, and is of type {type_name(given)}", "tools")
    if not given:
        if choice not in (None, "none", "auto"):
            raise RequestError(f"body.tool_choice = {short(choice)} needs tools, and there are none", "tool_choice")
        return None
    if parallel not in (None, True, False):
        raise RequestError(
            f"body.parallel_tool_calls must be true or false, and is {short(parallel)}", "parallel_tool_calls"
        )
    offered = tuple(_tool(number, tool) for number, tool in enumerate(given, 1))
    names = [tool["function"]["name"] for tool in offered]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"body.tools has two of the name {short(twice)}", "tools")
    return _chosen(offered, names, choice, parallel=parallel is not False)


def _tool(number: int, tool: Any) -> Mapping[str, Any]:
    said = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(tool, Mapping) or tool.get("type") != "function" or not isinstance(said, Mapping):
        raise RequestError(f"body.tools: number {number} is no function ({short(tool)}); the form is {_FORM}", "tools")
    name, parameters, about = said.get("name"), said.get("parameters"), said.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(
            f"body.tools: number {number} has the name {short(name)}, and a name is 1 to 64 letters, digits, _, - and .",
            "tools",
        )
    if not isinstance(parameters, Mapping | None) or not isinstance((parameters or {}).get("$defs", {}), Mapping):
        raise RequestError(
            f"body.tools: the parameters of {name} are no JSON Schema (an object): {short(parameters)}", "tools"
        )
    if not isinstance(about, str | None):
        raise RequestError(f"body.tools: the description of {name} is of type {type_name(about)}", "tools")
    return tool


def _chosen(offered: tuple[Mapping[str, Any], ...], names: list[str], choice: Any, *, parallel: bool) -> Tools:
    if choice in (None, "auto"):
        return Tools(offered, parallel=parallel)
    if choice == "none":
        return Tools(offered, "none")
    if choice == "required":
        return Tools(offered, "required", parallel=parallel)
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise RequestError(
            f'body.tool_choice must be none, auto, required or {{"type": "function", "function": {{"name": ...}}}}, and is '
            f"{short(choice)}",
            "tool_choice",
        )
    if name not in names:
        raise RequestError(
            f"body.tool_choice names {short(name)}, which is not in tools{near(name, names)}", "tool_choice"
        )
    return Tools(offered, "named", name)


def output_of(tools: Tools | None) -> Mapping[str, Any] | None:
    """What the answer is held to where a call is asked for, in place of what the body says of its form."""
    schema = None if tools is None else schema_of(tools)
    return None if schema is None else {"schema": schema}


def written_tools(tools: Tools) -> dict[str, Any]:
    """The tools as a body has them."""
    choice: Any = {"type": "function", "function": {"name": tools.name}} if tools.choice == "named" else tools.choice
    written = {"tools": [dict(tool) for tool in tools.offered], "tool_choice": choice}
    return written if tools.parallel else {**written, "parallel_tool_calls": False}


def with_ids(calls: list[Call], number: str) -> list[Call]:
    """Calls with the ids by which what they give is told, where they have none yet; ``number`` says which answer's they are."""
    return [{"id": f"call_{number}_{place}", **call} for place, call in enumerate(calls)]


__all__ = ["KEYS", "Call", "output_of", "tools_of", "with_ids", "written_tools"]
