"""A request of some wire format in, what became of it out: what the fronts share whose calls are answered at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from fastapi import Request

from llmbatch.core.errors import EngineError, LlmbatchError
from llmbatch.core.record import record_to_dict
from llmbatch.core.types import Cursor, Record, Row
from llmbatch.formats.base import Answered
from llmbatch.server.answering import Answering
from llmbatch.server.errors import ApiError
from llmbatch.server.server import Server

T = TypeVar("T")


class Asking:
    """Asks on the server's engine, so many requests at a time as the server takes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._running = 0

    def begin(self) -> None:
        """Count one in, that ``end`` counts out. Raises ``ApiError``."""
        if self._running >= self._server.settings.live_requests:
            raise ApiError(
                429, "too many live requests at a time; try again in a moment", code="rate_limited", retry=True
            )
        self._running += 1

    def end(self) -> None:
        self._running -= 1

    async def ask(self, request: Request | None, answering: Answering, data: Mapping[str, Any], model: str) -> Answered:
        """What became of a request; it is given up once the client of ``request`` is gone. Raises ``ApiError``."""
        self.begin()
        try:
            work = answering.answer(data)
            record = await (work if request is None else unless_gone(request, work))
        except EngineError as error:
            raise unavailable(error) from error
        except LlmbatchError as error:
            raise ApiError(500, str(error), code="server_error") from error
        finally:
            self.end()
        self._count(record)
        asked = answering.asked(Row(record.index, "live", data, Cursor(record.index)))
        return Answered(record_to_dict(record), data, asked, model, int(time.time()))

    def _count(self, record: Record) -> None:
        metrics = self._server.metrics
        metrics.live.labels(record.status.value).inc()
        metrics.live_tokens.labels("prompt").inc(record.usage.prompt_tokens)
        metrics.live_tokens.labels("completion").inc(record.usage.completion_tokens)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What the work gives; it is given up once the client is gone."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "the client went away", code="client_closed")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def unavailable(error: EngineError) -> ApiError:
    return ApiError(503, f"the engine is not to be had: {error}", code="engine_unavailable", retry=True)


__all__ = ["Asking", "unavailable", "unless_gone"]
