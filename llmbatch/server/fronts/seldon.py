"""Seldon's V1 protocol, as ``seldon-batch-processor`` speaks it: a message in, the one that answers it out, its tags with it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from llmbatch.formats.base import RECORD, wire_format
from llmbatch.formats.outcome import Error, outcome_of
from llmbatch.formats.seldon import reply_of
from llmbatch.server.bodies import JsonObject
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.synchronous import Synchronous
from llmbatch.server.server import Server

_PATH = "/api/v1.0/predictions"


class SeldonFront(Synchronous):
    """The front: by its own path, and by those that Seldon's gateways give a deployment, which is any here."""

    name = "seldon"
    prefixes = (_PATH, "/seldon/")

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._format = wire_format("seldon", {"data_type": "raw"})

    def routes(self) -> APIRouter:
        router = APIRouter()

        @router.post(_PATH)
        async def predictions(request: Request, message: JsonObject) -> Response:
            """Answer a message."""
            return await self._predict(request, message)

        @router.post(f"/seldon/{{namespace}}/{{deployment}}{_PATH}")
        async def of_deployment(request: Request, message: JsonObject) -> Response:
            """Answer a message that came by a gateway."""
            return await self._predict(request, message)

        return router

    async def _predict(self, request: Request, message: dict[str, Any]) -> Response:
        row = {RECORD: message}
        answered = await self.answered(request, self._format.read(row, ()), row, self.model(None))
        outcome = outcome_of(answered.record, answered.asked)
        if isinstance(outcome, Error):
            raise ApiError(outcome.code.http, outcome.message, code=outcome.kind)
        return JSONResponse(reply_of(message, answered, outcome))

    def refusal(self, error: ApiError) -> Response:
        status = {"code": error.status, "info": error.message, "reason": error.message, "status": "FAILURE"}
        return JSONResponse({"status": status}, error.status)
