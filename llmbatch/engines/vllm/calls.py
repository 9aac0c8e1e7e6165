"""An answer's text in; the calls of tools that it makes and the rest of it out, by vLLM's tool parsers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llmbatch.core.errors import JobError
from llmbatch.core.tools import Call, Parser, call_of
from llmbatch.core.types import Tools

_ANY = Tools(({"type": "function", "function": {"name": "any", "parameters": {"type": "object"}}},))


class Calls(NamedTuple):
    """A parser: what it reads of a finished answer, of one that is not, and whether it needs special tokens in the text."""

    read: Parser
    telling: Callable[[Tools], Telling]
    needs_special_tokens: bool


class Telling:
    """One answer as it comes: the text in it that is not of a call, as far as that is known."""

    def __init__(self, parser: Any, request: Any) -> None:
        self._parser = parser
        self._request = request
        self._seen = ""
        self._ids: tuple[int, ...] = ()
        self.told = ""

    def so_far(self, text: str, ids: tuple[int, ...]) -> str:
        """What may be told of an answer of which so much is there; it grows from one time to the next."""
        if len(text) > len(self._seen):
            said = self._parser.extract_tool_calls_streaming(
                self._seen, text, text[len(self._seen) :], self._ids, ids, ids[len(self._ids) :], self._request
            )
            self._seen, self._ids = text, ids
            if said is not None and said.content:
                self.told += said.content
        return self.told


def load_calls(name: str, tokenizer: Any) -> Calls:
    """One of vLLM's parsers by name. Raises ``JobError`` for one that it does not have, or that does not fit the model."""
    from vllm.tool_parsers import ToolParserManager

    try:
        kind = ToolParserManager.get_tool_parser(name)
    except (KeyError, ImportError) as error:
        known = sorted({*ToolParserManager.tool_parsers, *getattr(ToolParserManager, "lazy_parsers", ())})
        raise JobError(f"engine.tool_call_parser: vLLM has no parser {name!r}; it has {', '.join(known)}") from error

    def made(tools: Tools) -> tuple[Any, Any]:
        request = _request(tools)
        return kind(tokenizer, request.tools), request

    try:
        parser, request = made(_ANY)
        parser.extract_tool_calls("", request)
        adjusted = parser.adjust_request(request.model_copy())
    except NotImplementedError as error:
        raise JobError(f"engine.tool_call_parser: {name!r} does not work on the text of an answer: {error}") from error
    except (ValueError, RuntimeError, TypeError) as error:
        raise JobError(f"engine.tool_call_parser: {name!r} does not fit this model: {error}") from error

    def read(text: str, tools: Tools) -> tuple[str, list[Call] | None]:
        parser, request = made(tools)
        found = parser.extract_tool_calls(text, request)
        calls = [call_of(each.function.name, each.function.arguments) for each in found.tool_calls]
        return (found.content or "", calls) if found.tools_called and calls else (text, None)

    return Calls(read, lambda tools: Telling(*made(tools)), not adjusted.skip_special_tokens)


def _request(tools: Tools) -> Any:
    """A request of vLLM's server that offers them."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    return ChatCompletionRequest(
        model="", messages=[{"role": "user", "content": ""}], tools=list(tools.offered), tool_choice="auto"
    )


__all__ = ["Calls", "Telling", "load_calls"]
