"""Verta's wire, for its client's ``predict`` and ``batch_predict``: a value, or rows of a frame, in; what the model says out."""

from __future__ import annotations

import asyncio
import uuid
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from llmbatch.formats.openai.format import CHAT
from llmbatch.formats.openai.lines import line_of
from llmbatch.server.bodies import beside, json_body
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.synchronous import Synchronous

_PROMPTS = ("prompt", "text", "text_input", "input")  # of a row the column with the prompt, the likeliest first
_MOST_ROWS = 10_000
_AT_A_TIME = 256  # rows of a frame
_ID = "verta-request-id"
_OF_THE_MODEL = {422: 502, 500: 502}
"""By which status its client knows an error of the model. A 500 it would ask for again and again, for minutes."""


class VertaFront(Synchronous):
    """The front. Its calls are answered at once; it has no batches."""

    name = "verta"
    prefixes = ("/api/v1/predict/", "/api/v1/batch-predict/", "/predict/", "/batch-predict/")
    takes_gzip = True  # it is unpacked here, to no more than a request may have

    def refusal(self, error: ApiError) -> Response:
        return JSONResponse({"message": error.message}, error.status)

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name])
        for prefix in ("/api/v1", ""):

            @router.post(f"{prefix}/predict/{{endpoint}}", include_in_schema=False)
            async def predict(request: Request, endpoint: str) -> Response:  # noqa: ARG001 - any name is that of the one model
                """Answer one value."""
                value = await self._body(request)
                return self._said(request, await self._one(request, value, settings=True))

            @router.post(f"{prefix}/batch-predict/{{endpoint}}", include_in_schema=False)
            async def batch_predict(request: Request, endpoint: str) -> Response:  # noqa: ARG001
                """Answer every row of a frame, under its index."""
                frame = _frame(await self._body(request))
                rows = [dict(zip(frame["columns"], row, strict=True)) for row in frame["data"]]
                answers = await self._all(request, rows)
                split = {"index": frame["index"], "columns": ["output"], "data": [[answer] for answer in answers]}
                return self._said(request, split)

        return router

    async def _all(self, request: Request, rows: Sequence[Any]) -> list[Any]:
        """The answers in their order, so many asked at a time as there is room for; with the first that fails all are given up."""
        room = asyncio.Semaphore(min(_AT_A_TIME, self.settings.live_requests))

        async def one(row: Any) -> Any:
            async with room:
                return await self._one(request, row, settings=False)

        asked = [asyncio.ensure_future(one(row)) for row in rows]
        try:
            return await asyncio.gather(*asked)
        finally:
            for each in asked:
                each.cancel()

    async def _one(self, request: Request, value: Any, *, settings: bool) -> Any:
        """What the model says to a text, or to the prompt of a row. Raises ``ApiError``."""
        text = value if isinstance(value, str) else _prompt_of(value)
        others = {key: each for key, each in value.items() if key not in _PROMPTS} if isinstance(value, Mapping) else {}
        body = {**(others if settings else {}), "messages": [{"role": "user", "content": text}]}
        line = {"custom_id": "live", "method": "POST", "url": CHAT, "body": body}
        answered = await self.answered(request, self._openai.read(line, ()), line, self.model(None))
        response = line_of(answered).data["response"]
        if response["status_code"] != 200:
            status = response["status_code"]
            raise ApiError(_OF_THE_MODEL.get(status, status), response["body"]["error"]["message"])
        return response["body"]["choices"][0]["message"]["content"]

    async def _body(self, request: Request) -> Any:
        raw = await request.body()
        if request.headers.get("content-encoding", "").lower() == "gzip":
            raw = await beside(len(raw), partial(_unpacked, raw, self.settings.max_body))
        return await json_body(raw)

    def _said(self, request: Request, value: Any) -> Response:
        given = request.headers.get(_ID) or str(uuid.uuid4())
        return JSONResponse(value, headers={_ID: given.encode("latin-1", "replace").decode("latin-1")[:200]})


def _unpacked(raw: bytes, limit: int) -> bytes:
    """Raises ``ApiError`` for more than ``limit`` bytes, of which no more are made."""
    unpacking = zlib.decompressobj(31)
    try:
        content = unpacking.decompress(raw, limit + 1)
    except zlib.error as error:
        raise ApiError(400, "the body is not gzip") from error
    if len(content) > limit or not unpacking.eof:
        raise ApiError(413, f"the body is larger than {limit:,} bytes, or is cut off")
    return content


def _prompt_of(value: Any) -> str:
    if not isinstance(value, Mapping):
        raise ApiError(400, "the input is a text, or an object with a prompt")
    known = [name for name in _PROMPTS if name in value]
    name = known[0] if known else next(iter(value)) if len(value) == 1 else None
    if name is None or not isinstance(value[name], str):
        raise ApiError(400, f"a row has its prompt, a text, in the column {_PROMPTS[0]}, or in its only one")
    return str(value[name])


def _frame(value: Any) -> Mapping[str, Sequence[Any]]:
    """A frame in the split form, with an index for each row. Raises ``ApiError``."""
    parts: list[Any] = [value.get(key) for key in ("index", "columns", "data")] if isinstance(value, Mapping) else []
    if not parts or not all(isinstance(part, list) for part in parts):
        raise ApiError(400, "a frame has lists of index, columns and data")
    index, columns, data = parts
    if len(index) != len(data) or any(not isinstance(row, list) or len(row) != len(columns) for row in data):
        raise ApiError(400, "the rows of the frame are not as many as its index, or not as long as its columns")
    if len(data) > _MOST_ROWS or not all(isinstance(column, str) for column in columns):
        raise ApiError(400, f"a frame has at most {_MOST_ROWS:,} rows, and its columns are texts")
    return {"index": index, "columns": columns, "data": data}
