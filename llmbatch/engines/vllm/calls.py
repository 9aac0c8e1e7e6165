"""An answer's text in; the calls of tools that it makes and the rest of it out, by vLLM's tool parsers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from llmbatch.core.errors import JobError
from llmbatch.core.tools import Call, Parser, call_of
from llmbatch.core.types import Tools

_READ = ("name", "description", "parameters")
_ANY = Tools(({"type": "function", "function": {"name": "any", "parameters": {"type": "object"}}},))


class Calls(NamedTuple):
    """A parser: what it reads of a finished answer, of one that is not, and whether it needs special tokens in the text."""

    read: Parser
    telling: Callable[[Tools], Telling]
    needs_special_tokens: bool


class Telling:
    """One answer as it comes: the text in it that is not of a call, as far as that is known.

    Of one at which the parser trips nothing more is told: the rest comes with the whole.
    """

    def __init__(self, make: Callable[[], tuple[Any, Any]], raised: Callable[[Exception], None]) -> None:
        """``make`` gives a parser, and the request of vLLM's server that it is given; ``raised`` is told at what it tripped."""
        self._make = make
        self._raised = raised
        self._made: tuple[Any, Any] | None = None
        self._trips = False
        self._seen = ""
        self._ids: tuple[int, ...] = ()
        self.told = ""

    def so_far(self, text: str, ids: tuple[int, ...]) -> str:
        """What may be told of an answer of which so much is there; it grows from one time to the next."""
        if len(text) <= len(self._seen) or self._trips:
            return self.told
        try:
            parser, request = self._made = self._made or self._make()
            said = parser.extract_tool_calls_streaming(
                self._seen, text, text[len(self._seen) :], self._ids, ids, ids[len(self._ids) :], request
            )
        except Exception as error:
            self._raised(error)
            self._trips = True
            return self.told
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

    raised = _told_once(name)

    def read(text: str, tools: Tools) -> tuple[str, list[Call] | None]:
        try:
            parser, request = made(tools)
            found = parser.extract_tool_calls(text, request)
            calls = [call_of(each.function.name, each.function.arguments) for each in found.tool_calls]
        except Exception as error:  # some raise at a call that is not whole, of which the others say that it is text
            raised(error)
            return text, None
        return (found.content or "", calls) if found.tools_called and calls else (text, None)

    return Calls(read, lambda tools: Telling(partial(made, tools), raised), not adjusted.skip_special_tokens)


def _told_once(name: str) -> Callable[[Exception], None]:
    """What says in the engine's log that a parser raised, the first time."""
    told: list[Exception] = []

    def tell(error: Exception) -> None:
        if not told:
            told.append(error)
            logging.getLogger("vllm").warning(
                "the tool parser %r raised %r at an answer, which counts as text; of others at which it raises nothing is said",
                name,
                error,
            )

    return tell


def _request(tools: Tools) -> Any:
    """A request of vLLM's server that offers them. What a client says of a tool besides, nobody has looked at: it stays out."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    offered = [
        {"type": "function", "function": {key: value for key, value in tool["function"].items() if key in _READ}}
        for tool in tools.offered
    ]
    return ChatCompletionRequest(
        model="", messages=[{"role": "user", "content": ""}], tools=offered, tool_choice="auto"
    )


__all__ = ["Calls", "Telling", "load_calls"]
