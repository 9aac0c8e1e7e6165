"""OpenAI's Files, Batches, Models and live endpoints, for clients of its API: paths below ``/v1``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from llmbatch.server.base import Checked, Ended, Finished
from llmbatch.server.bodies import JsonRoute
from llmbatch.server.errors import ApiError, not_found
from llmbatch.server.fronts.openai_lines import check_lines, write_results
from llmbatch.server.fronts.openai_live import LiveRequests
from llmbatch.server.fronts.openai_objects import batch_object, deleted, error_object, file_object, model_object, page
from llmbatch.server.keys import Owner
from llmbatch.server.server import Server
from llmbatch.server.store import Batch, StoredFile, new_id
from llmbatch.server.uploads import Form, receive_form

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([hm])")
_LONGEST_WINDOW = 366 * 24 * 3600
_SECONDS = re.compile(r"[0-9]{1,10}")
_PURPOSES = ("batch",)
_EXPIRES_FIRST, _EXPIRES_LAST = 3600, 2_592_000  # seconds after which a file may expire
_ID = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class Expiry(BaseModel):
    """When a file is removed by itself."""

    model_config = ConfigDict(extra="forbid")

    anchor: str = Field(pattern="^created_at$")
    seconds: int = Field(ge=_EXPIRES_FIRST, le=_EXPIRES_LAST)


class NewBatch(BaseModel):
    """The body of a batch's creation. ``priority`` is ours: higher ones run first, up to the one of the API key."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: _ID
    endpoint: str
    completion_window: str
    metadata: (
        Annotated[
            dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None
    output_expires_after: Expiry | None = None
    priority: int = Field(0, ge=-10, le=10)


class OpenAIFront:
    """The front. Azure's is this one with other paths, and what is written otherwise there."""

    name = "openai"
    prefixes: tuple[str, ...] = ("/v1/",)
    expires = True  # at the end of the window, done or not
    always_error_file = False

    def __init__(self, server: Server) -> None:
        self.server = server
        self.live = LiveRequests(server)

    def uploads(self, path: str) -> bool:
        return path.rstrip("/").endswith("/files")

    def refusal(self, error: ApiError) -> Response:
        headers = {} if error.retry else {"x-should-retry": "false"}
        return JSONResponse(error_object(error), error.status, headers)

    # What is known of a batch here.

    def check(self, batch: Batch, path: Path, stopped: Callable[[], bool]) -> Checked | None:
        settings = self.server.settings
        return check_lines(path, batch.given["endpoint"], settings.models, settings.max_lines, stopped)

    def sections(self, batch: Batch, path: Path) -> Mapping[str, Any]:  # noqa: ARG002 - the contract's
        return {"input": {"path": str(path), "format": "openai"}}

    def finish(self, ended: Ended) -> Finished:
        return write_results(ended, keep_empty_errors=self.always_error_file)

    # Paths.

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name], route_class=JsonRoute)
        for prefix in self.prefixes:
            self.files(router, prefix.rstrip("/"))
            self.batches(router, prefix.rstrip("/"))
            self.models(router, prefix.rstrip("/"))
            self.live.routes(router, prefix.rstrip("/"))
        return router

    def files(self, router: APIRouter, prefix: str) -> None:
        store = self.server.store

        @router.post(f"{prefix}/files", openapi_extra=_UPLOAD)
        async def upload_file(request: Request) -> Response:
            """Take in a file; it is read as it comes, and is there whole or not at all."""
            owner, file_id = _owner(request), new_id("file-")
            content_type = request.headers.get("content-type", "")
            place = store.upload(file_id)
            form = await receive_form(content_type, request.stream(), place, self.server.room(owner.name))
            try:
                file = _file_of(form, file_id, owner)
                await run_in_threadpool(self.server.keep, file)
            finally:
                place.unlink(missing_ok=True)
            return JSONResponse(file_object(file))

        @router.get(f"{prefix}/files")
        async def list_files(
            request: Request,
            purpose: Annotated[str | None, Query(max_length=64)] = None,
            limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
            after: Annotated[_ID | None, Query()] = None,
            order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
        ) -> Response:
            """The files of the key's owner."""
            owner, descending = _owner(request).name, order == "desc"
            files = await run_in_threadpool(
                store.files, owner, purpose=purpose, after=after, limit=limit + 1, descending=descending
            )
            return JSONResponse(page([file_object(file) for file in files], limit))

        @router.get(f"{prefix}/files/{{file_id}}")
        async def retrieve_file(request: Request, file_id: _ID) -> Response:
            """What is known of a file."""
            return JSONResponse(file_object(self._file(file_id, request)))

        @router.delete(f"{prefix}/files/{{file_id}}")
        async def delete_file(request: Request, file_id: _ID) -> Response:
            """Remove a file; a batch that was made of it has its own copy."""
            if not await run_in_threadpool(store.remove_file, file_id, _owner(request).name):
                raise not_found("file", file_id)
            return JSONResponse(deleted(file_id))

        @router.get(f"{prefix}/files/{{file_id}}/content", response_class=FileResponse)
        async def file_content(request: Request, file_id: _ID) -> Response:
            """The bytes of a file; a Range of them where one is asked for."""
            file = self._file(file_id, request)
            return FileResponse(store.content(file.id), media_type="application/octet-stream", filename=file.filename)

    def batches(self, router: APIRouter, prefix: str) -> None:
        store, batches = self.server.store, self.server.batches

        @router.post(f"{prefix}/batches")
        async def create_batch(request: Request, new: NewBatch) -> Response:
            """Begin a batch of an uploaded file."""
            owner = _owner(request)
            batch = self._batch(new, owner)
            try:
                await run_in_threadpool(batches.add, batch, store.content(new.input_file_id))
            except FileNotFoundError:
                raise _no_file(new.input_file_id) from None
            return JSONResponse(self._object(batch))

        @router.get(f"{prefix}/batches")
        async def list_batches(
            request: Request,
            limit: Annotated[int, Query(ge=1, le=100)] = 20,
            after: Annotated[_ID | None, Query()] = None,
        ) -> Response:
            """The batches of the key's owner, the newest first."""
            found = store.batches(_owner(request).name, front=self.name, after=after, limit=limit + 1)
            return JSONResponse(page([self._object(batch) for batch in found], limit))

        @router.get(f"{prefix}/batches/{{batch_id}}")
        async def retrieve_batch(request: Request, batch_id: _ID) -> Response:
            """Where a batch stands."""
            return JSONResponse(self._object(self._own(batch_id, request)))

        @router.post(f"{prefix}/batches/{{batch_id}}/cancel")
        async def cancel_batch(request: Request, batch_id: _ID) -> Response:
            """Stop a batch; what is finished is kept."""
            batch = self._own(batch_id, request)
            if batch.ended:
                raise ApiError(
                    409, f"Cannot cancel a batch with status '{batch.state}'.", code="invalid_state", param="batch_id"
                )
            return JSONResponse(self._object(await run_in_threadpool(batches.cancel, batch)))

    def models(self, router: APIRouter, prefix: str) -> None:
        names, created = self.server.settings.models, int(time.time())

        @router.get(f"{prefix}/models")
        async def list_models() -> Response:
            """The model of this server, by each of its names, and its adapters."""
            return JSONResponse({"object": "list", "data": [model_object(name, created) for name in names]})

        @router.get(f"{prefix}/models/{{model:path}}")
        async def retrieve_model(model: str) -> Response:
            """One model."""
            if model not in names:
                raise ApiError(
                    404, f"The model '{model[:100]}' does not exist here", code="model_not_found", param="model"
                )
            return JSONResponse(model_object(model, created))

    # Details.

    def _object(self, batch: Batch) -> dict[str, Any]:
        session = self.server.batches.session(batch.id)
        return batch_object(batch, None if session is None else session.snapshot)

    def _file(self, file_id: str, request: Request) -> StoredFile:
        file = self.server.store.file(file_id, _owner(request).name)
        if file is None:
            raise not_found("file", file_id)
        return file

    def _own(self, batch_id: str, request: Request) -> Batch:
        batch = self.server.store.batch(batch_id, _owner(request).name)
        if batch is None or batch.front != self.name:
            raise not_found("batch", batch_id)
        return batch

    def _batch(self, new: NewBatch, owner: Owner) -> Batch:
        """Raises ``ApiError`` for what can be said before the input is looked at."""
        file = self.server.store.file(new.input_file_id, owner.name)
        if file is None:
            raise _no_file(new.input_file_id)
        if file.purpose not in _PURPOSES:
            raise ApiError(
                400, f"the file was uploaded for '{file.purpose}'; a batch takes one for 'batch'",
                code="invalid_file_purpose", param="input_file_id",
            )  # fmt: skip
        endpoint = _endpoint(new.endpoint)
        if (endpoint == "/v1/embeddings") != self.server.settings.gives_vectors:
            gives = "numbers (embeddings)" if self.server.settings.gives_vectors else "text"
            raise ApiError(400, f"the model of this server gives {gives}", code="invalid_endpoint", param="endpoint")
        if new.priority > owner.priority:
            raise ApiError(
                400, f"the priority may be at most {owner.priority}", code="invalid_priority", param="priority"
            )
        self.server.room(owner.name)
        seconds, now = _seconds(new.completion_window), int(time.time())
        given = {
            "endpoint": new.endpoint,
            "input_file_id": new.input_file_id,
            "completion_window": new.completion_window,
            "metadata": new.metadata,
            "expires_at": now + seconds,
            "output_seconds": new.output_expires_after and new.output_expires_after.seconds,
        }
        return Batch(
            new_id("batch_"), owner.name, self.name, now, now + seconds if self.expires else None, given,
            priority=new.priority, weight=owner.weight,
        )  # fmt: skip


def _owner(request: Request) -> Owner:
    owner: Owner = request.state.owner
    return owner


def _no_file(file_id: str) -> ApiError:
    return ApiError(400, f"No such file: {file_id}", code="invalid_input_file", param="input_file_id")


def _endpoint(given: str) -> str:
    """The endpoint as OpenAI spells it. Raises ``ApiError`` for one that is not served."""
    endpoint = given if given.startswith("/v1/") else f"/v1{given}"
    if endpoint not in ENDPOINTS:
        raise ApiError(
            400, f"batches are made of {', '.join(ENDPOINTS)}, and not of '{given[:100]}'",
            code="invalid_endpoint", param="endpoint",
        )  # fmt: skip
    return endpoint


def _seconds(window: str) -> int:
    match = _WINDOW.fullmatch(window)
    seconds = int(match[1]) * (3600 if match[2] == "h" else 60) if match else 0
    if not 0 < seconds <= _LONGEST_WINDOW:
        raise ApiError(
            400, "a completion_window is such as 24h or 90m, and at most 366 days",
            code="invalid_completion_window", param="completion_window",
        )  # fmt: skip
    return seconds


def _file_of(form: Form, file_id: str, owner: Owner) -> StoredFile:
    """The file that came. Raises ``ApiError`` for a form that lacks something."""
    if form.bytes is None or form.filename is None:
        raise ApiError(400, "the form has no part 'file'", code="missing_file", param="file")
    purpose = form.fields.get("purpose")
    if purpose not in _PURPOSES:
        raise ApiError(400, "the purpose of a file must be 'batch'", code="invalid_purpose", param="purpose")
    now = int(time.time())
    return StoredFile(file_id, owner.name, purpose, form.filename, form.bytes, now, _expires(form, now))


def _expires(form: Form, now: int) -> int | None:
    anchor, seconds = (form.fields.get(f"expires_after[{key}]") for key in ("anchor", "seconds"))
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at" or seconds is None or _SECONDS.fullmatch(seconds) is None:
        raise ApiError(
            400, "expires_after has anchor=created_at and seconds", code="invalid_expires_after", param="expires_after"
        )
    if not _EXPIRES_FIRST <= int(seconds) <= _EXPIRES_LAST:
        raise ApiError(
            400, f"expires_after.seconds is from {_EXPIRES_FIRST:,} to {_EXPIRES_LAST:,}",
            code="invalid_expires_after", param="expires_after.seconds",
        )  # fmt: skip
    return now + int(seconds)


_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["purpose", "file"],
                    "properties": {
                        "purpose": {"type": "string", "enum": list(_PURPOSES)},
                        "file": {"type": "string", "format": "binary"},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer", "minimum": _EXPIRES_FIRST, "maximum": _EXPIRES_LAST,
                        },
                    },
                }
            }
        },
    }
}  # fmt: skip
"""The form, for the description of the API: it is read as it comes, not by FastAPI."""

__all__ = ["ENDPOINTS", "NewBatch", "OpenAIFront"]
