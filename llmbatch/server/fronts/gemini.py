"""The Gemini API's files and batches, for ``google-genai`` with an API key.

Its paths are OpenAI's in part, so the gate puts what Google's clients send (their headers tell) below ``/gemini``.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from llmbatch.core.errors import SourceError
from llmbatch.core.files import atomic_write
from llmbatch.core.words import clip
from llmbatch.folder.folder import read_manifest
from llmbatch.formats.base import Answered
from llmbatch.formats.gemini.lines import api_line
from llmbatch.job.swept import recipe_of
from llmbatch.server.base import Checked, Ended, Finished
from llmbatch.server.errors import ApiError, not_found
from llmbatch.server.keys import Owner
from llmbatch.server.server import Server
from llmbatch.server.store import Batch, StoredFile, new_id
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.opening import open_source

_STATES = {
    "validating": "BATCH_STATE_PENDING", "in_progress": "BATCH_STATE_RUNNING", "finalizing": "BATCH_STATE_RUNNING",
    "completed": "BATCH_STATE_SUCCEEDED", "failed": "BATCH_STATE_FAILED", "expired": "BATCH_STATE_EXPIRED",
    "cancelling": "BATCH_STATE_RUNNING", "cancelled": "BATCH_STATE_CANCELLED",
}  # fmt: skip
_NOT_RUN = {
    "expired": (4, "the batch's time was over"),
    "cancelled": (1, "the batch was cancelled"),
    "failed": (13, "the batch failed"),
}
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
}
_WINDOW = 48 * 3600  # after which a batch expires
_MOST_INLINE = 10_000
_MOST_PENDING = 1000  # uploads that were begun and did not come yet
_PURPOSE = "gemini"


@dataclass(slots=True)
class _Upload:
    """A file that comes in pieces."""

    owner: str
    name: str
    place: Path
    bytes: int = 0


class GeminiFront:
    """The front."""

    name = "gemini"
    prefixes = ("/gemini/",)

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pending: dict[str, _Upload] = {}

    def uploads(self, path: str) -> bool:
        return path.startswith("/gemini/upload/")

    def refusal(self, error: ApiError) -> Response:
        status = _CODES.get(error.status, "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL")
        return JSONResponse({"error": {"code": error.status, "message": error.message, "status": status}}, error.status)

    # BatchKind

    def check(self, batch: Batch, path: Path, stopped: Callable[[], bool]) -> Checked | None:
        try:
            source = open_source(SourceSettings(path=str(path), format="jsonl"))
        except SourceError:
            return Checked(
                errors=[{"code": "empty_file", "line": None, "message": "the file has no request", "param": None}]
            )
        rows, most = 0, self._server.settings.max_lines
        for rows, _ in enumerate(source.places(), 1):
            if rows > most:
                said = f"the file has more than {most:,} requests"
                return Checked(errors=[{"code": "too_many_tasks", "line": None, "message": said, "param": None}])
            if rows % 1000 == 0 and stopped():
                return None
        return Checked(rows, batch.given["model"])

    def sections(self, batch: Batch, path: Path) -> Mapping[str, Any]:  # noqa: ARG002
        return {"input": {"path": str(path), "format": "gemini_api"}, "answer": {"allow_truncated": True}}

    def finish(self, ended: Ended) -> Finished:
        batch, count = ended.batch, {True: 0, False: 0}
        usage = dict.fromkeys(("input", "cached", "output"), 0)

        def lines() -> Iterator[bytes]:
            for line, record in _lines(ended):
                count["response" in line] += 1
                if record is not None:
                    usage["input"] += record["usage"]["prompt_tokens"]
                    usage["cached"] += record["usage"]["cached_tokens"]
                    usage["output"] += record["usage"]["completion_tokens"]
                yield json.dumps(line, ensure_ascii=False).encode() + b"\n"

        name = f"f{hashlib.sha256(batch.id.encode()).hexdigest()[:24]}"
        size = atomic_write(ended.store.content(name), lines())
        file = StoredFile(name, batch.owner, _PURPOSE, "responses.jsonl", size, int(time.time()))
        return Finished({"responses": file}, count[True], count[False], usage)

    # Paths.

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/gemini", tags=[self.name], include_in_schema=False)
        self._files(router)
        self._batches(router)
        return router

    def _files(self, router: APIRouter) -> None:
        store = self._server.store

        @router.post("/upload/{version}/files")
        async def upload(request: Request, version: str, upload_id: str | None = None) -> Response:
            if upload_id is not None:
                return await self._take(request, upload_id)
            try:
                described = json.loads(await request.body() or b"{}").get("file") or {}
                name = str(described.get("displayName") or described.get("display_name") or "file")
            except (ValueError, AttributeError) as error:
                raise ApiError(400, "the body is not a description of a file") from error
            number = new_id("f")
            while len(self._pending) >= _MOST_PENDING:  # the oldest is given up
                self._pending.pop(next(iter(self._pending))).place.unlink(missing_ok=True)
            self._pending[number] = _Upload(_owner(request).name, clip(name, 200), store.upload(number))
            url = f"{request.url.scheme}://{request.headers['host']}/upload/{version}/files?upload_id={number}"
            return JSONResponse({}, headers={"x-goog-upload-url": url, "x-goog-upload-status": "active"})

        @router.get("/{version}/files/{file_id}:download")
        async def download(request: Request, file_id: str) -> Response:
            file = self._file(file_id, request)
            return FileResponse(store.content(file.id), media_type="application/octet-stream")

        @router.get("/{version}/files/{file_id}")
        async def get_file(request: Request, file_id: str) -> Response:
            return JSONResponse(_file_object(self._file(file_id, request)))

        @router.get("/{version}/files")
        async def list_files(request: Request) -> Response:
            found = store.files(_owner(request).name, purpose=_PURPOSE, after=None, limit=1000, descending=True)
            return JSONResponse({"files": list(map(_file_object, found))})

        @router.delete("/{version}/files/{file_id}")
        async def delete_file(request: Request, file_id: str) -> Response:
            if not await run_in_threadpool(store.remove_file, file_id, _owner(request).name):
                raise not_found("file", clip(file_id, 60))
            return JSONResponse({})

    def _batches(self, router: APIRouter) -> None:
        store, batches = self._server.store, self._server.batches

        @router.post("/{version}/models/{model}:batchGenerateContent")
        async def create_batch(request: Request, model: str, body: Annotated[dict[str, Any], Body()]) -> Response:
            return JSONResponse(await run_in_threadpool(self._create, _owner(request), model, body))

        @router.get("/{version}/batches")
        async def list_batches(request: Request) -> Response:
            found = store.batches(_owner(request).name, front=self.name, after=None, limit=100)
            return JSONResponse({"operations": [self._object(batch) for batch in found]})

        @router.get("/{version}/batches/{number}")
        async def get_batch(request: Request, number: str) -> Response:
            return JSONResponse(await run_in_threadpool(self._object, self._own(number, request)))

        @router.post("/{version}/batches/{number}:cancel")
        async def cancel_batch(request: Request, number: str) -> Response:
            await run_in_threadpool(batches.cancel, self._own(number, request))
            return JSONResponse({})

    # Details.

    async def _take(self, request: Request, number: str) -> Response:
        """A piece of a file; with the last one it is there."""
        pending = self._pending.get(number)
        if pending is None:
            raise ApiError(404, "there is no such upload")
        command = request.headers.get("x-goog-upload-command", "upload, finalize")
        if request.headers.get("x-goog-upload-offset", "0") != str(pending.bytes):
            raise ApiError(400, f"the next piece of this file begins at {pending.bytes}")
        try:
            with pending.place.open("ab") as stream:
                async for chunk in request.stream():
                    pending.bytes += len(chunk)
                    if pending.bytes > self._server.settings.max_bytes:
                        raise ApiError(413, "the file is larger than this server takes")
                    await run_in_threadpool(stream.write, chunk)
        except OSError as error:
            raise ApiError(507, "the server cannot write to its disk; it may be full") from error
        if "finalize" not in command:
            return JSONResponse({}, headers={"x-goog-upload-status": "active"})
        del self._pending[number]
        file = StoredFile(number, pending.owner, _PURPOSE, pending.name, pending.bytes, int(time.time()))
        await run_in_threadpool(self._server.store.keep, file)
        return JSONResponse({"file": _file_object(file)}, headers={"x-goog-upload-status": "final"})

    def _create(self, owner: Owner, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ``ApiError``."""
        name = model.removeprefix("models/")
        if name not in self._server.settings.models:
            raise ApiError(
                404, f"models/{clip(name, 100)} is not found; there is {', '.join(self._server.settings.models)}"
            )
        asked = body.get("batch") if isinstance(body.get("batch"), Mapping) else {}
        config = asked.get("inputConfig") or asked.get("input_config") or {}  # type: ignore[union-attr]
        named = config.get("fileName") or config.get("file_name") if isinstance(config, Mapping) else None
        store, now = self._server.store, int(time.time())
        if isinstance(named, str):
            file = store.file(named.removeprefix("files/"), owner.name)
            metadata = None
        else:
            inline = config.get("requests", {}) if isinstance(config, Mapping) else {}
            requests = inline.get("requests") if isinstance(inline, Mapping) else None
            file, metadata = self._inline(owner, requests)
        if file is None:
            raise ApiError(400, f"there is no file {clip(str(named), 60)!r}")
        given = {
            "model": name, "input": file.id, "display": asked.get("displayName") or "", "inline": metadata,  # type: ignore[union-attr]
            "metadata": None,
        }  # fmt: skip
        batch = Batch(
            new_id("b"),
            owner.name,
            self.name,
            now,
            now + _WINDOW,
            given,
            priority=min(0, owner.priority),
            weight=owner.weight,
        )
        self._server.batches.add(batch, store.content(file.id))
        return self._object(batch)

    def _inline(self, owner: Owner, requests: Any) -> tuple[StoredFile, list[Any]]:
        """Requests that come with the batch, as a file; and what is to come back beside each. Raises ``ApiError``."""
        if not isinstance(requests, list) or not 0 < len(requests) <= _MOST_INLINE:
            raise ApiError(400, f"the batch has a fileName, or from 1 to {_MOST_INLINE:,} requests")
        store, number = self._server.store, new_id("f")
        content = b"".join(
            json.dumps({"key": f"{i}", "request": each.get("request") if isinstance(each, Mapping) else None}).encode()
            + b"\n"
            for i, each in enumerate(requests)
        )
        atomic_write(store.upload(number), content)
        file = StoredFile(number, owner.name, _PURPOSE, "inline.jsonl", len(content), int(time.time()))
        store.keep(file)
        return file, [each.get("metadata") if isinstance(each, Mapping) else None for each in requests]

    def _object(self, batch: Batch) -> dict[str, Any]:
        facts, session = batch.facts, self._server.batches.session(batch.id)
        done, failed = facts.done, facts.failed
        if session is not None and session.snapshot is not None and not batch.ended:
            done, failed = session.snapshot.rows, 0
        stats = {
            "requestCount": str(facts.rows), "successfulRequestCount": str(done), "failedRequestCount": str(failed),
            "pendingRequestCount": str(max(0, facts.rows - done - failed)),
        }  # fmt: skip
        name, responses = f"batches/{batch.id}", facts.results.get("responses")
        metadata = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "name": name, "model": f"models/{batch.given['model']}", "displayName": batch.given["display"],
            "state": _STATES[batch.state], "batchStats": stats, "createTime": _time(batch.created),
            "updateTime": _time(max([batch.created, *facts.times.values()])),
            **({"endTime": _time(facts.times[batch.state])} if batch.ended else {}),
        }  # fmt: skip
        said: dict[str, Any] = {"name": name, "metadata": metadata, "done": batch.ended}
        if batch.state == "failed" and facts.errors:
            said["error"] = {"code": 3, "message": facts.errors[0]["message"]}
        elif batch.ended and responses is not None:
            inline = batch.given["inline"]
            output = {"responsesFile": f"files/{responses}"} if inline is None else self._inlined(responses, inline)
            metadata["output"] = output
            said["response"] = output
        return said

    def _inlined(self, responses: str, metadata: Sequence[Any]) -> dict[str, Any]:
        try:
            lines = self._server.store.content(responses).read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        each = [
            {
                key: value
                for key, value in {**json.loads(line), "metadata": given}.items()
                if key != "key" and value is not None
            }
            for line, given in zip(lines, metadata, strict=False)
        ]
        return {"inlinedResponses": {"inlinedResponses": each}}

    def _file(self, file_id: str, request: Request) -> StoredFile:
        file = self._server.store.file(file_id, _owner(request).name)
        if file is None:
            raise not_found("file", clip(file_id, 60))
        return file

    def _own(self, number: str, request: Request) -> Batch:
        batch = self._server.store.batch(number, _owner(request).name)
        if batch is None or batch.front != self.name:
            raise not_found("batch", clip(number, 60))
        return batch


def _lines(ended: Ended) -> Iterator[tuple[dict[str, Any], Mapping[str, Any] | None]]:
    """(line, record) of each row, in input order."""
    recipe, manifest = recipe_of(ended.job), read_manifest(ended.job.output)
    created = int(manifest.created) if manifest is not None else ended.batch.created
    for row, record in ended.pairs():
        if record is None:
            code, message = _NOT_RUN[ended.state]
            yield {"key": str(row.id), "error": {"code": code, "message": message}}, None
            continue
        answered = Answered(record, row.data, recipe.asked(row), ended.batch.given["model"], created, row.cursor.line)
        yield api_line(answered), record


def _file_object(file: StoredFile) -> dict[str, Any]:
    return {
        "name": f"files/{file.id}", "displayName": file.filename, "mimeType": "application/jsonl",
        "sizeBytes": str(file.bytes), "createTime": _time(file.created), "uri": f"files/{file.id}", "state": "ACTIVE",
    }  # fmt: skip


def _owner(request: Request) -> Owner:
    owner: Owner = request.state.owner
    return owner


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


__all__ = ["GeminiFront"]
