"""The JSON of a request in; the same out, where it can be kept and written again as it is.

Python's parser takes more than JSON has: what cannot be written as JSON again would, once it is stored, fail each answer that
lists it. A large body is read beside the event loop, so that other clients' requests go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Body, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from llmbatch.server.errors import ApiError
from llmbatch.sources.jsonl import json_value

T = TypeVar("T")
_LARGE = 64 << 10  # bytes: to read so many takes as long as to hand them to a thread

JsonObject = Annotated[dict[str, Any], Body()]
"""A body that is an object, of a route of ``JsonRoute``."""


class JsonRoute(APIRoute):
    """A route whose body is read by ``json_body``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def read_and_handle(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return read_and_handle


class _JsonRequest(Request):
    async def json(self) -> Any:
        return await json_body(await self.body())


async def json_body(body: bytes) -> Any:
    """The value that a body is. Raises ``ApiError``."""
    return await beside(len(body), partial(_read, body))


async def json_object(body: bytes) -> dict[str, Any]:
    """The object that a body is, whatever it says to be of; an empty body is ``{}``. Raises ``ApiError``."""
    value = await json_body(body or b"{}")
    if not isinstance(value, dict):
        raise ApiError(400, "the body is not a JSON object")
    return value


async def beside(size: int, work: Callable[[], T]) -> T:
    """What the work gives on so many bytes: in a thread of its own, where that is much."""
    return work() if size < _LARGE else await asyncio.to_thread(work)


def _read(body: bytes) -> Any:
    try:
        return json_value(body)
    except ValueError as error:
        raise ApiError(400, f"the body: {error}", code="invalid_json") from None


__all__ = ["JsonObject", "JsonRoute", "beside", "json_body", "json_object"]
