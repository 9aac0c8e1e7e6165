"""A server in, its ASGI application out: the fronts' paths, health, counters and the page, behind the gate."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from llmbatch import __version__
from llmbatch.core.errors import ReadError, WriteError
from llmbatch.core.words import clip
from llmbatch.server.errors import ApiError
from llmbatch.server.gate import Gate, unforeseen
from llmbatch.server.metrics import CONTENT_TYPE
from llmbatch.server.server import Server
from llmbatch.server.view import View, page_routes

_TIDY_SECONDS = 60.0  # between two looks for files that are to be removed by now
_SAID = {404: "There is no such path here", 405: "This path does not take this method"}


def application(server: Server) -> ASGIApp:
    """The application. Its lifespan starts the server's queue and stops it."""
    app = FastAPI(
        title="llmbatch", version=__version__, lifespan=lambda _: _life(server), docs_url=None, redoc_url=None,
        redirect_slashes=False, responses=_REFUSALS,
    )  # fmt: skip
    for router in (*(front.routes() for front in server.fronts.values()), View(server).routes(), page_routes()):
        for route in router.routes:
            if isinstance(route, APIRoute):
                route.responses = {**_REFUSALS, **route.responses}
        app.router.routes += (
            router.routes
        )  # ``include_router`` makes all of them once more: half of the time of a start

    @app.get("/health")
    async def health() -> Response:
        """Whether the server answers, and has its store."""
        running, waiting = server.batches.load
        server.store.batch("health")
        return JSONResponse({"status": "ok", "batches": {"running": running, "waiting": waiting}})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(server.metrics.text(), media_type=CONTENT_TYPE)

    _refuse_in_form(app, server)
    return Gate(app, server)


def _refuse_in_form(app: FastAPI, server: Server) -> None:
    """Every error has the form of the front whose path was asked for."""

    def answer(request: Request, error: ApiError) -> Response:
        error.message = server.places.hidden(error.message)
        return server.front_of(request.url.path).refusal(error)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"][1:]))
        said = clip(f"{place or 'the body'}: {problem['msg']}", 300)
        return answer(request, ApiError(400, said, code="invalid_value", param=place or None))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, ApiError):  # FastAPI's word for whatever happens while it reads a body
            return answer(request, error.__cause__)
        said = _SAID.get(error.status_code, "The request cannot be understood")
        refusal = answer(
            request, ApiError(error.status_code, said, code="not_found" if error.status_code == 404 else None)
        )
        if error.status_code == 405:
            refusal.headers["allow"] = ", ".join(_methods(app, request))
        return refusal

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=499)  # which nobody hears
        return answer(request, unforeseen(error, request.state.request_id))

    @app.exception_handler(WriteError)
    async def unwritten(request: Request, _: WriteError) -> Response:
        said = "the server cannot write to its disk; it may be full"
        return answer(request, ApiError(507, said, code="insufficient_storage"))

    @app.exception_handler(ReadError)
    async def unread(request: Request, _: ReadError) -> Response:
        said = "the server cannot read its disk just now; try again in a moment"
        return answer(request, ApiError(503, said, code="unavailable", retry=True))


def _methods(app: FastAPI, request: Request) -> list[str]:
    """Those that the path of a request takes; where several fit, as ``{id}`` fits ``{id}:cancel`` too, the longest is meant."""
    fitting = [
        route for route in app.routes if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE
    ]
    meant = max((route.path for route in fitting), key=len, default="")
    return sorted({method for route in fitting if route.path == meant for method in route.methods or ()})


@contextlib.asynccontextmanager
async def _life(server: Server) -> AsyncIterator[None]:
    await run_in_threadpool(server.start)
    tidying = asyncio.create_task(_tidy(server))
    try:
        yield
    finally:
        tidying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tidying
        await run_in_threadpool(server.batches.close)


async def _tidy(server: Server) -> None:
    while True:
        await asyncio.sleep(_TIDY_SECONDS)
        with contextlib.suppress(WriteError, ReadError):  # tried again in a minute
            await run_in_threadpool(server.store.remove_expired)


_REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"description": said}
    for code, said in {
        400: "The request is wrong", 401: "The API key is missing or unknown", 403: "Not from there",
        404: "There is no such thing", 405: "The path does not take this method", 408: "The client fell silent",
        409: "Not in this state", 413: "Too large", 415: "In an encoding", 429: "Too many at a time",
        507: "The disk is full",
    }.items()
}  # fmt: skip

__all__ = ["application"]
