"""Google's batches, for its clients: jobs of Vertex AI, of documents that name buckets, and files and batches of the Gemini API.

Paths below ``/google``, with any version of the API. Google's clients say in a header who they are, so that they find them at the
server's root too, where OpenAI's paths are partly the same.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import Response

from llmbatch.core.errors import SourceError, UsageError
from llmbatch.core.files import atomic_write
from llmbatch.formats.gemini.schema import camel_case
from llmbatch.server.base import Checked, Ended, Finished
from llmbatch.server.bodies import JsonObject, JsonRoute, json_object
from llmbatch.server.errors import ApiError, not_found
from llmbatch.server.fronts.documents import DocumentBatches
from llmbatch.server.fronts.google_objects import error_object, file_object, job_object, operation
from llmbatch.server.fronts.google_results import inlined, write_file, write_folder
from llmbatch.server.fronts.google_uploads import GoogleUploads
from llmbatch.server.keys import Owner
from llmbatch.server.server import Server
from llmbatch.server.store import Batch, StoredFile, new_id
from llmbatch.sinks.base import LayoutSettings, SinkSettings
from llmbatch.sinks.layouts.vertex import prediction_name
from llmbatch.sinks.upload import check_destination
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.opening import open_source
from llmbatch.systems.vertex import OUTPUT_ONLY, Vertex

_ID = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
_Size = Annotated[int, Query(ge=1, le=1000, alias="pageSize")]
_Token = Annotated[_ID | None, Query(alias="pageToken")]


def _version(version: _ID) -> str:
    """That of the API: any is taken."""
    return version


def _parent(project: _ID, location: _ID) -> str:
    """What jobs belong to."""
    return f"projects/{project}/locations/{location}"


_Version = Annotated[str, Depends(_version)]
_Parent = Annotated[str, Depends(_parent)]
_LOOK_EVERY = 1000  # rows, to see whether it is to stop
_UPLOAD = re.compile(r"/google/upload/[^/]+/files/[^/]+")  # the bytes of a file, and not what announces it
_GEMINI_SECONDS = 48 * 3600  # that the Gemini API gives a batch, and keeps a file
_VERTEX = "/projects/{project}/locations/{location}/batchPredictionJobs"


class _Name(StringConvertor):
    """A part of a path that has no verb behind a colon, as ``123:cancel`` has."""

    regex = "[^/:]+"


register_url_convertor("name", _Name())


class GoogleFront:
    """The front."""

    name = "google"
    prefixes: tuple[str, ...] = ("/google/",)

    def __init__(self, server: Server) -> None:
        self.server = server
        self._documents = DocumentBatches(server, Vertex())
        self._uploads = GoogleUploads(server)

    def uploads(self, path: str) -> bool:
        return _UPLOAD.fullmatch(path) is not None

    def refusal(self, error: ApiError) -> Response:
        return JSONResponse(error_object(error), error.status)

    # What is known of a batch here.

    def check(self, batch: Batch, path: Path, stopped: Callable[[], bool]) -> Checked | None:
        """Count the rows, and see that the output can be written."""
        most, rows = self.server.settings.max_lines, 0
        try:
            if "to" in batch.given:
                check_destination(self._sinks(batch), self.server.store.batch_folder(batch.id))
            source = open_source(SourceSettings.model_validate(self.sections(batch, path)["input"]))
            for rows, _ in enumerate(source.places(), 1):
                if rows > most:
                    raise SourceError(f"the input has more than {most:,} rows, the most that a batch may have here")
                if rows % _LOOK_EVERY == 0 and stopped():
                    return None
        except UsageError as error:
            return Checked(errors=[{"code": "invalid_input", "line": None, "message": str(error), "param": None}])
        return Checked(rows, batch.given["name"])

    def sections(self, batch: Batch, path: Path) -> Mapping[str, Any]:
        given: Mapping[str, Any] | None = batch.given.get("sections")
        return given or {"input": {"path": str(path), "format": "gemini_api"}, "answer": {"allow_truncated": True}}

    def finish(self, ended: Ended) -> Finished:
        given = ended.batch.given
        layout = LayoutSettings.model_validate(given["layout"])
        if "to" not in given:
            return write_file(ended, layout, _GEMINI_SECONDS)
        return write_folder(ended, self._sinks(ended.batch), layout)

    def _sinks(self, batch: Batch) -> SinkSettings:
        return SinkSettings.model_validate({"to": batch.given["to"], "layout": batch.given["layout"]})

    # Paths.

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/google", tags=[self.name], dependencies=[Depends(_version)], route_class=JsonRoute)
        self.jobs(router)
        self.files(router)
        self.batches(router)
        return router

    def jobs(self, router: APIRouter) -> None:
        """Vertex AI's."""

        @router.post(f"/{{version}}{_VERTEX}")
        async def create_job(request: Request, parent: _Parent, document: JsonObject) -> Response:
            """Begin a job of a document."""
            batch = await run_in_threadpool(self._job, document, parent, _owner(request))
            await run_in_threadpool(self.server.batches.add, batch)
            return JSONResponse(job_object(batch, None))

        @router.get(f"/{{version}}{_VERTEX}")
        async def list_jobs(
            request: Request,
            parent: _Parent,
            size: _Size = 100,
            token: _Token = None,
            filter: Annotated[str, Query(max_length=1000)] = "",
        ) -> Response:
            """The jobs of the key's owner, the newest first."""
            if filter:
                raise ApiError(
                    400, "filter is not done here: leave it out, and look through what comes", param="filter"
                )
            found, following = self._page(request, size, token, lambda batch: batch.given.get("parent") == parent)
            jobs = {"batchPredictionJobs": [job_object(each, self._snapshot(each)) for each in found]}
            return JSONResponse(jobs | following)

        @router.get(f"/{{version}}{_VERTEX}/{{number:name}}")
        async def get_job(request: Request, parent: _Parent, number: _ID) -> Response:
            """Where a job stands."""
            batch = self._own_job(number, parent, request)
            return JSONResponse(job_object(batch, self._snapshot(batch)))

        @router.post(f"/{{version}}{_VERTEX}/{{number}}:cancel")
        async def cancel_job(request: Request, parent: _Parent, number: _ID) -> Response:
            """Stop a job; what is finished is written."""
            await run_in_threadpool(self.server.batches.cancel, self._own_job(number, parent, request))
            return JSONResponse({})

    def files(self, router: APIRouter) -> None:
        """The Gemini API's."""
        store = self.server.store

        @router.post("/upload/{version}/files")
        async def begin_upload(request: Request, version: _Version) -> Response:
            """Announce a file; its bytes go to the address that comes back in a header."""
            upload = self._uploads.begin(_owner(request).name, await json_object(await request.body()))
            address = f"{str(request.base_url).rstrip('/')}/google/upload/{version}/files/{upload}"
            if (key := request.query_params.get("key")) is not None:  # who gives it so sends the bytes without one
                address += f"?{urlencode({'key': key})}"
            return JSONResponse({}, headers={"X-Goog-Upload-URL": address, "X-Goog-Upload-Status": "active"})

        @router.post("/upload/{version}/files/{upload}")
        async def continue_upload(request: Request, upload: _ID) -> Response:
            """Take in bytes of a file, the last of which make it whole."""
            file = await self._uploads.take(upload, _owner(request).name, request.headers, request.stream())
            if file is None:
                return JSONResponse({}, headers={"X-Goog-Upload-Status": "active"})
            return JSONResponse({"file": file_object(file)}, headers={"X-Goog-Upload-Status": "final"})

        @router.get("/{version}/files")
        async def list_files(request: Request, size: _Size = 10, token: _Token = None) -> Response:
            """The files of the key's owner."""
            found = store.files(_owner(request).name, purpose=None, after=token, limit=size + 1, descending=True)
            following = {"nextPageToken": found[size - 1].id} if len(found) > size else {}
            return JSONResponse({"files": list(map(file_object, found[:size])), **following})

        @router.get("/{version}/files/{file_id}:download", response_class=FileResponse)
        async def download_file(request: Request, file_id: _ID) -> Response:
            """The bytes of a file."""
            file = self._file(file_id, request)
            return FileResponse(store.content(file.id), media_type="application/octet-stream", filename=file.filename)

        @router.get("/{version}/files/{file_id:name}")
        async def get_file(request: Request, file_id: _ID) -> Response:
            """What is known of a file."""
            return JSONResponse(file_object(self._file(file_id, request)))

        @router.delete("/{version}/files/{file_id:name}")
        async def delete_file(request: Request, file_id: _ID) -> Response:
            """Remove a file; a batch that was made of it has its own copy."""
            if not await run_in_threadpool(store.remove_file, file_id, _owner(request).name):
                raise not_found("file", file_id)
            return JSONResponse({})

    def batches(self, router: APIRouter) -> None:
        """The Gemini API's."""
        store, batches = self.server.store, self.server.batches

        @router.post("/{version}/models/{model}:batchGenerateContent")
        async def create_batch(
            request: Request, model: Annotated[str, StringConstraints(max_length=256)],
            given: JsonObject,
        ) -> Response:  # fmt: skip
            """Begin a batch of an uploaded file, or of requests that come with it."""
            batch, source = await run_in_threadpool(self._batch, model, given.get("batch"), _owner(request))
            try:
                await run_in_threadpool(batches.add, batch, source)
            except FileNotFoundError:
                raise _no_file(batch.given["input_file_id"]) from None
            finally:
                if not batch.given["input_file_id"]:
                    source.unlink(missing_ok=True)
            return JSONResponse(operation(batch, None))

        @router.get("/{version}/batches")
        async def list_batches(request: Request, size: _Size = 100, token: _Token = None) -> Response:
            """The batches of the key's owner, the newest first."""
            found, following = self._page(request, size, token, lambda batch: "parent" not in batch.given)
            return JSONResponse({"operations": [operation(b, self._snapshot(b)) for b in found], **following})

        @router.get("/{version}/batches/{batch_id:name}")
        async def get_batch(request: Request, batch_id: _ID) -> Response:
            """Where a batch stands; with its responses, where its requests came in its own creation."""
            batch = self._own(batch_id, request)
            responses = None if batch.given["input_file_id"] else await run_in_threadpool(inlined, batch, store)
            return JSONResponse(operation(batch, self._snapshot(batch), responses))

        @router.post("/{version}/batches/{batch_id}:cancel")
        async def cancel_batch(request: Request, batch_id: _ID) -> Response:
            """Stop a batch; what is finished is kept."""
            await run_in_threadpool(batches.cancel, self._own(batch_id, request))
            return JSONResponse({})

    # Details.

    def _snapshot(self, batch: Batch) -> Any:
        session = self.server.batches.session(batch.id)
        return None if session is None else session.snapshot

    def _page(
        self, request: Request, size: int, token: str | None, ours: Callable[[Batch], bool]
    ) -> tuple[list[Batch], dict[str, str]]:
        """A page of the owner's batches of one kind, and how the next one is asked for."""
        found = self.server.store.batches(_owner(request).name, front=self.name, after=token, limit=size + 1)
        following = {"nextPageToken": found[size - 1].id} if len(found) > size else {}
        return list(filter(ours, found[:size])), following

    def _own(self, batch_id: str, request: Request) -> Batch:
        batch = self.server.store.batch(batch_id, _owner(request).name)
        if batch is None or batch.front != self.name:
            raise not_found("batch", batch_id)
        return batch

    def _own_job(self, number: str, parent: str, request: Request) -> Batch:
        batch = self._own(f"vertex-{number}", request)
        if batch.given.get("parent") != parent:
            raise not_found("job", number)
        return batch

    def _file(self, file_id: str, request: Request) -> StoredFile:
        file = self.server.store.file(file_id, _owner(request).name)
        if file is None:
            raise not_found("file", file_id)
        return file

    def _model(self, given: Any) -> str:
        """The name of the model, by which it is served here. Raises ``ApiError``."""
        name = given.rpartition("/")[2].partition("@")[0] if isinstance(given, str) else ""
        if name not in self.server.settings.models:
            served = ", ".join(self.server.settings.models)
            raise ApiError(404, f"the model {str(given)[:100]!r} is not served here; {served} are (see --model-name)")
        return name

    def _job(self, document: dict[str, Any], parent: str, owner: Owner) -> Batch:
        """Raises ``ApiError`` for what can be said before the input is looked at."""
        system, place = Vertex(), Path("document")
        if not system.recognizes(document, place):
            raise ApiError(400, "a job has an inputConfig with a gcsSource and an outputConfig with a gcsDestination")
        name, now, number = self._model(document.get("model")), int(time.time()), str(secrets.randbits(62))
        sections, no_effect = self._documents.read(document)
        layout, to = sections["sinks"]["layout"], sections["sinks"]["to"]
        moment = datetime.fromtimestamp(now, UTC)
        settings = {**layout.get("settings", {}), "time": moment.isoformat()}
        folder = prediction_name("model" if layout["name"] == "gemini" else name, moment)
        kept = {key: value for key, value in document.items() if camel_case(key) not in OUTPUT_ONLY}
        given = {
            "document": kept, "parent": parent, "number": number, "name": name, "to": to,
            "layout": {**layout, "settings": settings}, "folder": f"{system.output(document, place).rstrip('/')}/{folder}",
            "sections": {key: sections[key] for key in ("input", "answer")}, "no_effect": no_effect,
        }  # fmt: skip
        return Batch(f"vertex-{number}", owner.name, self.name, now, None, given, weight=owner.weight)

    def _batch(self, model: str, given: Any, owner: Owner) -> tuple[Batch, Path]:
        """A batch of the Gemini API, and where its input lies. Raises ``ApiError``."""
        name, now, store = self._model(model), int(time.time()), self.server.store
        self.server.room(owner.name)
        if not isinstance(given, Mapping) or not isinstance(source := given.get("inputConfig"), Mapping):
            raise ApiError(
                400, 'the body is {"batch": {"displayName": ..., "inputConfig": {"fileName": ...}}}', param="batch"
            )
        batch_id, file_id, count = new_id(""), "", 0
        if (file_name := source.get("fileName")) is not None:
            file_id = str(file_name).rpartition("/")[2]
            if store.file(file_id, owner.name) is None:
                raise _no_file(file_id)
            place = store.content(file_id)
        else:
            place = store.upload(batch_id)
            count = _write_requests(source.get("requests"), place)
        given = {
            "model": f"models/{name}", "name": name, "display_name": str(given.get("displayName") or "")[:512],
            "input_file_id": file_id, "count": count, "layout": {"name": "gemini_api"},
        }  # fmt: skip
        batch = Batch(batch_id, owner.name, self.name, now, now + _GEMINI_SECONDS, given, weight=owner.weight)
        return batch, place


def _owner(request: Request) -> Owner:
    owner: Owner = request.state.owner
    return owner


def _no_file(file_id: str) -> ApiError:
    return ApiError(404, f"there is no file {file_id[:100]!r}", param="inputConfig.fileName")


def _write_requests(given: Any, place: Path) -> int:
    """Requests of a batch's creation as the lines of a file, with a number as their key. Raises ``ApiError`` and ``WriteError``."""
    requests = given.get("requests") if isinstance(given, Mapping) else None
    if not isinstance(requests, list) or not requests or not all(isinstance(each, Mapping) for each in requests):
        raise ApiError(
            400, "inputConfig must have a fileName, or requests.requests with at least one", param="inputConfig"
        )
    lines = []
    for number, each in enumerate(requests):
        metadata = {"metadata": each["metadata"]} if isinstance(each.get("metadata"), Mapping) else {}
        lines.append(json.dumps({"key": str(number), "request": each.get("request"), **metadata}).encode() + b"\n")
    atomic_write(place, lines)
    return len(lines)


__all__ = ["GoogleFront"]
