"""The pieces of an answer in; the events of OpenAI's streams that say them, as lines of a text/event-stream, out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmbatch.core.types import Completion, Outcome, Piece, Refusal, Usage
from llmbatch.formats.base import Answered, Asked
from llmbatch.formats.openai.body import RequestError
from llmbatch.formats.openai.format import CHAT, ENDPOINTS, RESPONSES, read_line
from llmbatch.formats.outcome import Success

_PREFIXES = {CHAT: "chatcmpl-", RESPONSES: "resp_"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is being answered. ``line`` is the request as a line of a batch has it."""

    endpoint: str
    line: Mapping[str, Any]
    model: str
    created: int
    number: str  # that no other answer has

    @property
    def id(self) -> str:
        return f"{_PREFIXES.get(self.endpoint, 'cmpl-')}{self.number}"

    @property
    def param(self) -> str | None:
        """The key that cannot be done, if there is one."""
        try:
            read_line(self.line, ())
        except RequestError as error:
            return error.param
        return None

    def named(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body that answers it, with an id that no other answer has."""
        if "id" not in body:
            return body
        named = {**body, "id": self.id}
        for choice in named.get("choices", ()):
            for place, call in enumerate(choice.get("message", {}).get("tool_calls", ())):
                call["id"] = f"call_{self.number}_{choice['index']}_{place}"
        for place, item in enumerate(named.get("output", ())):
            item["id"] = f"{item['id'].partition('_')[0]}_{self.number}"
            if item["type"] == "function_call":  # of which there may be several
                item |= {"id": f"{item['id']}_{place}", "call_id": f"call_{self.number}_{place}"}
        return named

    def body(
        self,
        text: str,
        finish_reason: str | None,
        usage: Usage,
        logprobs: list[dict[str, Any]] | None = None,
        calls: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """What says this text, as a whole answer would, and makes these calls."""
        record = {"index": 0, "output": text, "logprobs": logprobs, "usage": usage.as_dict(), "tool_calls": calls}
        asked = Asked(chat=self.endpoint in (CHAT, RESPONSES))
        answered = Answered(record, self.line, asked, self.model, self.created)
        body: dict[str, Any] = ENDPOINTS[self.endpoint].answer(answered, Success(text, finish_reason))
        return self.named(body)


async def events_of(answer: Answer, items: AsyncIterator[Piece | Outcome], with_usage: bool) -> AsyncIterator[bytes]:
    """All events of a stream, to its end. Raises what taking the pieces raises."""
    if answer.endpoint == RESPONSES:
        async for name, data in _of_responses(answer, items):
            yield f"event: {name}\ndata: ".encode() + json.dumps(data).encode() + b"\n\n"
        return
    async for data in _chunks(answer, items, with_usage):
        yield b"data: " + json.dumps(data).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


async def _chunks(
    answer: Answer, items: AsyncIterator[Piece | Outcome], with_usage: bool
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a chat, or of a plain completion."""
    begun: set[int] = set()
    usage = Usage()
    async for item in items:
        sample = item.key.sample
        if answer.endpoint == CHAT and sample not in begun:
            begun.add(sample)
            yield _chunk(answer, _choice(sample, {"delta": {"role": "assistant", "content": ""}}), with_usage)
        if isinstance(item, Piece):
            yield _chunk(answer, _said(answer, item), with_usage)
        elif isinstance(item, Refusal):
            yield {"error": {"message": item.failure.message, "type": "server_error", "code": item.failure.kind.value}}
            return
        else:
            usage = usage + item.usage
            if item.tool_calls:
                yield _chunk(answer, _choice(sample, {"delta": {"tool_calls": _calls(answer, item)}}), with_usage)
            end: dict[str, Any] = {"delta": {}} if answer.endpoint == CHAT else {"text": ""}
            yield _chunk(answer, _choice(sample, end, _reason(answer, item)), with_usage)
    if with_usage:
        whole = answer.body("", None, usage)["usage"]
        yield {**_frame(answer), "choices": [], "usage": whole}


def _chunk(answer: Answer, choice: dict[str, Any], with_usage: bool) -> dict[str, Any]:
    return {**_frame(answer), "choices": [choice], **({"usage": None} if with_usage else {})}


def _frame(answer: Answer) -> dict[str, Any]:
    kind = "chat.completion.chunk" if answer.endpoint == CHAT else "text_completion"
    return {"id": answer.id, "object": kind, "created": answer.created, "model": answer.model}


def _choice(sample: int, said: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": sample, **said, "logprobs": said.get("logprobs"), "finish_reason": reason}


def _said(answer: Answer, piece: Piece) -> dict[str, Any]:
    (choice,) = answer.body(piece.text, None, Usage(), piece.logprobs)["choices"]
    logprobs = choice["logprobs"]
    if answer.endpoint == CHAT:
        return _choice(piece.key.sample, {"delta": {"content": choice["message"]["content"]}, "logprobs": logprobs})
    if logprobs is not None:
        logprobs["text_offset"] = [piece.start + offset for offset in logprobs["text_offset"]]
    return _choice(piece.key.sample, {"text": choice["text"], "logprobs": logprobs})


def _calls(answer: Answer, completion: Completion) -> list[dict[str, Any]]:
    """The calls of tools, each whole: a client that puts parts together has it in one."""
    (choice,) = answer.body("", None, Usage(), calls=completion.tool_calls)["choices"]
    sample = completion.key.sample
    return [
        {"index": place, **call, "id": f"call_{answer.number}_{sample}_{place}"}
        for place, call in enumerate(choice["message"]["tool_calls"])
    ]


def _reason(answer: Answer, completion: Completion) -> str:
    (choice,) = answer.body("", completion.finish_reason, Usage(), calls=completion.tool_calls)["choices"]
    return str(choice["finish_reason"])


async def _of_responses(
    answer: Answer, items: AsyncIterator[Piece | Outcome]
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of a response, each with its name."""
    number = 0

    def event(kind: str, **data: Any) -> tuple[str, dict[str, Any]]:
        nonlocal number
        number += 1
        return f"response.{kind}", {"type": f"response.{kind}", "sequence_number": number - 1, **data}

    whole = answer.body("", None, Usage())
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    item = {**whole["output"][-1], "status": "in_progress", "content": []}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    yield event("created", response=begun)
    yield event("in_progress", response=begun)
    says = False
    async for came in items:
        calls = isinstance(came, Completion) and came.tool_calls
        if not says and not isinstance(came, Refusal) and not calls:
            says = True
            yield event("output_item.added", output_index=0, item=item)
            yield event("content_part.added", **at, part=part)
        if isinstance(came, Piece):
            yield event("output_text.delta", **at, delta=came.text, logprobs=[])
        elif isinstance(came, Refusal):
            said = {"code": "server_error", "message": came.failure.message}
            yield event("failed", response={**begun, "status": "failed", "error": said})
            return
        else:
            done = answer.body(came.text, came.finish_reason, came.usage, calls=came.tool_calls)
            if says:
                message = next(each for each in done["output"] if each["type"] == "message")
                yield event("output_text.done", **at, text=came.text, logprobs=[])
                yield event("content_part.done", **at, part=message["content"][0])
                yield event("output_item.done", output_index=0, item=message)
            for place, call in enumerate(done["output"]):
                if call["type"] == "function_call":
                    told = {"item_id": call["id"], "output_index": place}
                    begins = {**call, "status": "in_progress", "arguments": ""}
                    yield event("output_item.added", output_index=place, item=begins)
                    yield event("function_call_arguments.delta", **told, delta=call["arguments"])
                    yield event("function_call_arguments.done", **told, name=call["name"], arguments=call["arguments"])
                    yield event("output_item.done", output_index=place, item=call)
            yield event(str(done["status"]), response=done)


__all__ = ["Answer", "events_of"]
