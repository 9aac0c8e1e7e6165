"""OpenAI's live endpoints: a request's body in, its answer out, whole or as it comes, from the engine that batches run on.

A body means here what it means in a line of a batch, and is answered in the same words.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from llmbatch.core.errors import EngineError, LlmbatchError
from llmbatch.core.record import record_to_dict
from llmbatch.core.types import Completion, Cursor, Outcome, Piece, Record, Refusal, Row, Usage
from llmbatch.core.words import clip
from llmbatch.formats.base import Answered, Asked
from llmbatch.formats.openai.format import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from llmbatch.formats.openai.lines import line_of
from llmbatch.formats.outcome import code_of
from llmbatch.server.bodies import JsonObject
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.openai_stream import Answer, events_of
from llmbatch.server.server import Server

T = TypeVar("T")
_OF_STREAMS = ("stream", "stream_options")
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer, or its events", "content": {"application/json": {}, "text/event-stream": {}}},
    **{
        code: {"description": said}
        for code, said in {
            422: "The answer does not pass the check that the request asks for", 429: "Too many at a time",
            499: "The client went away", 500: "The engine failed", 503: "The engine is not to be had",
        }.items()
    },
}  # fmt: skip
"""Of endpoints that can stream, for the description of the API."""
_SSE = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class LiveRequests:
    """Answers live requests. ``models``: of these alone."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._running = 0

    def routes(self, router: APIRouter, prefix: str) -> None:
        """Their paths, below a prefix that stands for ``/v1``."""

        @router.post(f"{prefix}/chat/completions", responses=STREAMED)
        async def chat_completions(request: Request, body: JsonObject) -> Response:
            """Answer a conversation."""
            return await self.answer(request, CHAT, body)

        @router.post(f"{prefix}/completions", responses=STREAMED)
        async def completions(request: Request, body: JsonObject) -> Response:
            """Go on with a text."""
            return await self.answer(request, COMPLETIONS, body)

        @router.post(f"{prefix}/embeddings", responses=STREAMED)
        async def embeddings(request: Request, body: JsonObject) -> Response:
            """Give texts as numbers."""
            return await self.answer(request, EMBEDDINGS, body)

        @router.post(f"{prefix}/responses", responses=STREAMED)
        async def responses(request: Request, body: JsonObject) -> Response:
            """Answer a conversation, as the newer API has it."""
            return await self.answer(request, RESPONSES, body)

    async def answer(self, request: Request, endpoint: str, body: Mapping[str, Any]) -> Response:
        """Raises ``ApiError``."""
        model, stream = self._model(body), body.get("stream")
        if stream not in (None, True, False):
            raise ApiError(400, "stream must be true or false", code="invalid_value", param="stream")
        if (endpoint == EMBEDDINGS) != self._server.settings.gives_vectors:
            gives = "numbers (embeddings)" if self._server.settings.gives_vectors else "text"
            raise ApiError(400, f"the model of this server gives {gives}", code="invalid_endpoint", param="model")
        self._see_room()
        asked = {key: value for key, value in body.items() if key not in _OF_STREAMS}
        line = {"custom_id": "live", "method": "POST", "url": endpoint, "body": asked}
        answer = Answer(endpoint, line, model, int(time.time()), uuid.uuid4().hex)
        if stream:
            return await self._streamed(request, answer, body)
        return await self._whole(request, answer)

    async def record(self, request: Request, line: Mapping[str, Any]) -> Record:
        """The record of what would be a line of a batch. Raises ``ApiError``."""
        self._see_room()
        self._running += 1
        try:
            record = await self._unless_gone(request, self._server.answering.answer(line))
        except EngineError as error:
            self._ended("failed")
            raise _unavailable(error) from error
        except LlmbatchError as error:
            self._ended("failed")
            raise ApiError(500, str(error), code="server_error") from error
        finally:
            self._running -= 1
        self._count(record)
        if record.failure is None:
            return record
        said = self._server.places.hidden(record.failure.message)
        return replace(record, failure=replace(record.failure, message=said))

    def asked(self, line: Mapping[str, Any]) -> Asked:
        """How what would be a line of a batch is asked."""
        return self._server.answering.asked(Row(0, "live", line, Cursor(0)))

    def _see_room(self) -> None:
        if self._running >= self._server.settings.live_requests:
            raise ApiError(
                429, "too many live requests at a time; try again in a moment", code="rate_limited", retry=True
            )

    async def _whole(self, request: Request, answer: Answer) -> Response:
        record = await self.record(request, answer.line)
        status, said = self._said(answer, record)
        return JSONResponse(said, status, {} if status == 200 else {"x-should-retry": "false"})

    def _said(self, answer: Answer, record: Record) -> tuple[int, Any]:
        asked = self.asked(answer.line)
        line = line_of(Answered(record_to_dict(record), answer.line, asked, answer.model, answer.created)).data
        response = line["response"]
        body = response["body"]
        return response["status_code"], answer.named(body) if response["status_code"] == 200 else body

    async def _streamed(self, request: Request, answer: Answer, body: Mapping[str, Any]) -> Response:
        """The first piece is waited for: until then a request can be refused as any other."""
        if answer.endpoint == EMBEDDINGS:
            raise ApiError(400, "embeddings are not streamed", code="invalid_value", param="stream")
        if answer.line["body"].get("echo"):
            raise ApiError(400, "echo is not supported in a stream", code="invalid_value", param="echo")
        items = self._server.answering.stream(answer.line)
        self._running += 1
        try:
            first = await self._unless_gone(request, anext(items, None))
        except EngineError as error:
            self._running -= 1
            self._ended("failed")
            raise _unavailable(error) from error
        except BaseException:
            self._running -= 1
            raise
        if first is None or isinstance(first, Refusal):
            self._running -= 1
            self._ended("failed")
            raise _refused(first, answer)
        options = body.get("stream_options")
        with_usage = bool(isinstance(options, Mapping) and options.get("include_usage"))
        return StreamingResponse(
            self._events(answer, first, items, with_usage), media_type="text/event-stream", headers=_SSE
        )

    async def _events(
        self, answer: Answer, first: Piece | Outcome, items: AsyncIterator[Piece | Outcome], with_usage: bool
    ) -> AsyncIterator[bytes]:
        try:
            async for event in events_of(answer, self._all(first, items), with_usage):
                yield event
        except EngineError:
            said = {"error": {"message": "the engine failed in the middle of the answer", "type": "server_error"}}
            yield b"data: " + json.dumps(said).encode() + b"\n\n"
        finally:
            self._running -= 1

    async def _all(
        self, first: Piece | Outcome, items: AsyncIterator[Piece | Outcome]
    ) -> AsyncIterator[Piece | Outcome]:
        """All of a stream, its tokens and its end counted; what a refusal says is for clients."""
        item: Piece | Outcome | None = first
        ended = "gone"
        try:
            while item is not None:
                if isinstance(item, Refusal):
                    ended = "failed"  # nothing of what may follow is asked for any more
                    said = self._server.places.hidden(item.failure.message)
                    item = replace(item, failure=replace(item.failure, message=said))
                elif isinstance(item, Completion):
                    self._count_tokens(item.usage)
                yield item
                item = await anext(items, None)
            ended = "streamed"
        except EngineError:
            ended = "failed"
            raise
        finally:
            self._ended(ended)

    def _count(self, record: Record) -> None:
        self._ended(record.status.value)
        self._count_tokens(record.usage)

    def _ended(self, how: str) -> None:
        self._server.metrics.live.labels(how).inc()

    def _count_tokens(self, usage: Usage) -> None:
        tokens = self._server.metrics.live_tokens
        tokens.labels("prompt").inc(usage.prompt_tokens)
        tokens.labels("completion").inc(usage.completion_tokens)

    async def _unless_gone(self, request: Request, work: Awaitable[T]) -> T:
        """What the work gives; it is given up once the client is gone."""
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self._ended("gone")
                raise ApiError(499, "the client went away", code="client_closed")
            return working.result()
        finally:
            working.cancel()
            leaving.cancel()

    def _model(self, body: Mapping[str, Any]) -> str:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise ApiError(400, "you must provide a model parameter", code="invalid_value", param="model")
        if model not in self._server.settings.models:
            raise ApiError(
                404, f"The model '{clip(model, 100)}' does not exist here; there is {', '.join(self._server.settings.models)}",
                code="model_not_found", param="model",
            )  # fmt: skip
        return model


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _unavailable(error: EngineError) -> ApiError:
    return ApiError(503, f"the engine is not to be had: {error}", code="engine_unavailable", retry=True)


def _refused(refusal: Refusal | None, answer: Answer) -> ApiError:
    if refusal is None:
        return ApiError(500, "the engine gave no answer", code="server_error")
    failure = refusal.failure
    return ApiError(code_of(failure.kind).http, failure.message, code=failure.kind.value, param=answer.param)


__all__ = ["STREAMED", "LiveRequests"]
