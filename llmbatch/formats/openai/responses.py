"""``/v1/responses``: a body in, what it asks for out; a row's answer in, a ``response`` out.

Of a conversation messages are taken, and calls of functions with what they gave: nothing is kept between responses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from llmbatch.core.messages import images_in, ready_messages
from llmbatch.core.quick_json import hole
from llmbatch.core.types import Prompt, Rendered
from llmbatch.core.words import is_encodable, short, type_name
from llmbatch.formats.base import Answered
from llmbatch.formats.openai import tools
from llmbatch.formats.openai.body import (
    CHOICE,
    CREATED,
    INDEX,
    MODEL,
    USAGE,
    Choice,
    RequestError,
    adapter_of,
    choices_of,
    sampling_of,
    schema_of,
    usage_of,
)
from llmbatch.formats.outcome import Success

_OWN = frozenset({"input", "instructions", "max_output_tokens", "text"}) | tools.KEYS
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "stream": (False,),
    "background": (False,),
    "truncation": ("disabled",),
    "include": ([], ["reasoning.encrypted_content"]),  # reasoning is given as it is
    "reasoning": ({}, *({"summary": summary} for summary in (None, "auto", "concise", "detailed"))),
    "top_logprobs": (0,),
}
_OFFERS = frozenset({"tools", "tool_choice"})
_OF_ITEMS = ("id", "type", "status", "phase")  # keys of an item that say nothing to the model


def read(body: Mapping[str, Any], adapters: Collection[str]) -> Rendered:
    """What a body asks for. Raises ``RequestError``."""
    if body.get("n") not in (None, 1):
        raise RequestError("body.n is not supported: a response has one answer", "n")
    messages = _messages(body)
    asked = dict(body)
    asked.pop("n", None)
    if body.get("top_logprobs"):
        raise RequestError("body.top_logprobs is not supported: a response has no log-probabilities", "top_logprobs")
    if (limit := body.get("max_output_tokens")) is not None:
        asked["max_tokens"] = limit
    try:
        sampling = sampling_of(asked, _OWN, neutral=_NEUTRAL)
    except RequestError as error:
        if error.param != "max_tokens" or limit is None:
            raise
        said = str(error).replace("body.max_tokens", "body.max_output_tokens")
        raise RequestError(said, "max_output_tokens") from None
    offered = None if _OFFERS.isdisjoint(body) else tools.tools_of(_as_in_chats(body))
    prompt = Prompt(messages=messages, images=images_in(messages), tools=offered)
    output = _output(body.get("text"))
    return Rendered(prompt, sampling, tools.output_of(offered) or output, adapter_of(body, adapters))


def _as_in_chats(body: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of tools as a chat has them: there a function's own keys are one level down."""

    def deeper(value: Any) -> Any:
        if not isinstance(value, Mapping) or value.get("type") != "function" or "function" in value:
            return value
        return {"type": "function", "function": {key: each for key, each in value.items() if key != "type"}}

    given = body.get("tools")
    offered = list(map(deeper, given)) if isinstance(given, list) else given
    return {**body, "tools": offered, "tool_choice": deeper(body.get("tool_choice"))}


def _messages(body: Mapping[str, Any]) -> Any:
    given, instructions = body.get("input"), body.get("instructions")
    if given.__class__ is str:
        conversation: Iterable[Any] = ({"role": "user", "content": given},)
    elif isinstance(given, list) and given:
        conversation = _joined(map(_item, given))
    else:
        raise RequestError(f"body.input must be a text, or a list of messages, and is {short(given)}", "input")
    if instructions is not None and not isinstance(instructions, str):
        raise RequestError(
            f"body.instructions must be a text, and is of type {type_name(instructions)}", "instructions"
        )
    if instructions is not None and not is_encodable(instructions):
        raise RequestError("body.instructions holds half a surrogate pair, which is no character", "instructions")
    before = [{"role": "system", "content": instructions}] if instructions else []
    ready = ready_messages([*before, *conversation])
    if isinstance(ready, str):
        raise RequestError(f"body.input: {ready}", "input")
    return ready


def _item(item: Any) -> Any:
    """An item of the conversation as a message, where it is one."""
    if not isinstance(item, Mapping):
        return item
    kind = item.get("type")
    if kind == "function_call":
        call = {"id": item.get("call_id"), "function": {key: item.get(key) for key in ("name", "arguments")}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "content": item.get("output"), "tool_call_id": item.get("call_id")}
    if kind not in (None, "message"):
        known = "message, function_call and function_call_output"
        raise RequestError(f"body.input has an item of the type {short(kind)}; known are {known}", "input")
    message = {key: value for key, value in item.items() if key not in _OF_ITEMS}
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = [
            {"type": "text", "text": part.get("text")}
            if isinstance(part, Mapping) and part.get("type") == "output_text"
            else part
            for part in content
        ]
    return message


def _joined(messages: Iterable[Any]) -> Iterator[Any]:
    """The messages, with what the assistant says and calls one after another as one message, as a chat has it."""
    last: Any = None
    for message in messages:
        is_calls = isinstance(message, Mapping) and "tool_calls" in message
        if is_calls and isinstance(last, Mapping) and last.get("role") == "assistant":
            last = {**last, "tool_calls": [*last.get("tool_calls", ()), *message["tool_calls"]]}
            continue
        if last is not None:
            yield last
        last = message
    yield last


def _output(text: Any) -> Mapping[str, Any] | None:
    if text is None:
        return None
    if not isinstance(text, Mapping) or (unknown := text.keys() - {"format", "verbosity"}):
        seen = short(text) if not isinstance(text, Mapping) else f"has {', '.join(sorted(unknown))}"
        raise RequestError(f"body.text is an object with a format, and {seen}", "text")
    if text.get("verbosity") not in (None, "medium"):
        raise RequestError("body.text.verbosity is not supported: say it in the instructions", "text")
    asked = text.get("format")
    kind = asked.get("type") if isinstance(asked, Mapping) else asked
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return {"schema": {"type": "object"}}
    if kind == "json_schema":
        return schema_of("text.format", asked)
    raise RequestError(
        f"body.text.format must have the type text, json_object or json_schema, and is {short(asked)}", "text"
    )


def answer(answered: Answered, success: Success) -> dict[str, Any]:
    """The body that answers a row."""
    record, body = answered.record, answered.row.get("body")
    choice, usage = choices_of(answered, success)[0], usage_of(record)
    asked = asked_of(body if isinstance(body, Mapping) else {})
    cached = record["usage"]["cached_tokens"]
    cut = choice.finish_reason == "length"
    return _response(
        record["index"], answered.created, answered.model, choice, asked, {**usage, "cached": cached}, cut=cut
    )


def plain(*, cut: bool) -> dict[str, Any]:
    """The same with holes, of a row that is answered with one text and nothing more."""
    asked = {name: hole(name) for name in asked_of({})}
    return _response(INDEX, CREATED, MODEL, CHOICE, asked, {**USAGE, "cached": hole("cached")}, cut=cut)


def asked_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a response says of its request, in the words of both."""
    return {
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "temperature": body.get("temperature"),
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p"),
    }


def _response(
    index: Any,
    created: Any,
    model: Any,
    choice: Choice,
    asked: Mapping[str, Any],
    usage: Mapping[str, Any],
    *,
    cut: bool,
) -> dict[str, Any]:
    status = "incomplete" if cut else "completed"
    content = {"type": "output_text", "text": choice.text, "annotations": []}
    output: list[dict[str, Any]] = [
        {"id": f"msg_{index}", "type": "message", "role": "assistant", "status": status, "content": [content]}
    ]
    if choice.calls:
        output = [*(output if choice.text else ()), *_calls(choice.calls, index)]
    if choice.reasoning is not None:
        thought = [{"type": "reasoning_text", "text": choice.reasoning}]
        output.insert(0, {"id": f"rs_{index}", "type": "reasoning", "summary": [], "content": thought})
    return {
        "id": f"resp_{index}",
        "object": "response",
        "created_at": created,
        "model": model,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": asked["instructions"],
        "max_output_tokens": asked["max_output_tokens"],
        "output": output,
        "parallel_tool_calls": asked["parallel_tool_calls"],
        "temperature": asked["temperature"],
        "tool_choice": asked["tool_choice"],
        "tools": asked["tools"],
        "top_p": asked["top_p"],
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": usage["cached"], "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


def _calls(calls: list[tools.Call], number: int) -> list[dict[str, Any]]:
    """Calls as items of a response."""
    return [
        {
            "id": f"fc_{number}_{place}", "type": "function_call", "status": "completed", "call_id": call["id"],
            **{key: call["function"][key] for key in ("name", "arguments")},
        }
        for place, call in enumerate(tools.with_ids(calls, str(number)))
    ]  # fmt: skip
