"""Seldon's V1 protocol, for ``seldon-batch-processor`` and others: a message in, a message out, at ``/api/v1.0/predictions``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from llmbatch.formats.base import RECORD
from llmbatch.formats.outcome import code_of
from llmbatch.formats.seldon import line_of
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.asking import Asking
from llmbatch.server.server import Server

_RAW = {"data_type": "raw"}


class SeldonFront:
    """The front. Its calls are answered at once; it has no batches."""

    name = "seldon"
    prefixes = ("/api/v1.0/", "/seldon/")

    def __init__(self, server: Server) -> None:
        self._server = server
        self._asking = Asking(server)

    def uploads(self, path: str) -> bool:  # noqa: ARG002 - none is
        return False

    def refusal(self, error: ApiError) -> Response:
        return JSONResponse(
            {"status": {"info": "FAILURE", "reason": error.message, "status": 1, "code": error.status}}, error.status
        )

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name])
        for path in ("/api/v1.0/predictions", "/seldon/{namespace}/{deployment}/api/v1.0/predictions"):

            @router.post(path, responses=_FAILS)
            async def predict(request: Request, message: Annotated[dict[str, Any], Body()]) -> Response:
                """Answer the texts of a message, in its own form."""
                return JSONResponse(await self._answer(request, message))

        return router

    async def _answer(self, request: Request, message: Mapping[str, Any]) -> dict[str, Any]:
        answering = self._server.answering_for("seldon", _RAW)
        model = self._server.settings.models[0]
        answered = await self._asking.ask(request, answering, {RECORD: message}, model)
        line = line_of(answered, "raw", "", strict=False)
        if "status" in line:
            kind = (answered.record.get("error") or {"kind": "engine"})["kind"]
            raise ApiError(code_of(kind).http, line["status"]["reason"])
        meta = message.get("meta")
        return {**line, "meta": meta if isinstance(meta, Mapping) else {}}


_FAILS: dict[int | str, dict[str, Any]] = {
    code: {"description": said}
    for code, said in {
        422: "The answer does not pass a check", 429: "Too many at a time", 499: "The client went away",
        500: "The engine failed", 503: "The engine is not to be had",
    }.items()
}  # fmt: skip
