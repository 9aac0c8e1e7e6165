"""Vertex AI's batch prediction jobs, for Google's clients: paths below ``/VERSION/projects/P/locations/L/batchPredictionJobs``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.documents import DocumentBatches
from llmbatch.server.keys import Owner
from llmbatch.server.server import Server
from llmbatch.server.store import Batch
from llmbatch.systems.vertex import Vertex

_VERSIONS = ("v1", "v1beta", "v1beta1")
_STATES = {
    "validating": "JOB_STATE_PENDING", "in_progress": "JOB_STATE_RUNNING", "finalizing": "JOB_STATE_RUNNING",
    "completed": "JOB_STATE_SUCCEEDED", "failed": "JOB_STATE_FAILED", "expired": "JOB_STATE_EXPIRED",
    "cancelling": "JOB_STATE_CANCELLING", "cancelled": "JOB_STATE_CANCELLED",
}  # fmt: skip
_CODES = {
    400: (3, "INVALID_ARGUMENT"), 401: (16, "UNAUTHENTICATED"), 403: (7, "PERMISSION_DENIED"), 404: (5, "NOT_FOUND"),
    409: (9, "FAILED_PRECONDITION"), 429: (8, "RESOURCE_EXHAUSTED"),
}  # fmt: skip
_PARENT = "/{version}/projects/{project}/locations/{location}/batchPredictionJobs"
_INTERNAL, _INVALID = (13, "INTERNAL"), (3, "INVALID_ARGUMENT")


class VertexFront(DocumentBatches):
    """The front."""

    name = "vertex"
    prefixes = tuple(f"/{version}/projects/" for version in _VERSIONS)

    def __init__(self, server: Server) -> None:
        super().__init__(server, Vertex())

    def refusal(self, error: ApiError) -> Response:
        _, status = _CODES.get(error.status, _INVALID if error.status < 500 else _INTERNAL)
        return JSONResponse({"error": {"code": error.status, "message": error.message, "status": status}}, error.status)

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name])

        @router.post(_PARENT)
        async def create_job(
            request: Request, version: str, project: str, location: str, document: Annotated[dict[str, Any], Body()]
        ) -> Response:
            """Begin a batch prediction job."""
            _see(version)
            return JSONResponse(
                _object(await self._create(request.state.owner, f"projects/{project}/locations/{location}", document))
            )

        @router.get(_PARENT)
        async def list_jobs(
            request: Request,
            version: str,
            project: str,
            location: str,
            size: Annotated[int, Query(alias="pageSize", ge=0, le=1000)] = 100,
            token: Annotated[str | None, Query(alias="pageToken", max_length=100)] = None,
        ) -> Response:
            """The jobs of the key's owner, the newest first."""
            _see(version)
            owner: Owner = request.state.owner
            parent, most = f"projects/{project}/locations/{location}", size or 100
            found = self.server.store.batches(owner.name, front=self.name, after=token or None, limit=most + 1)
            jobs = [_object(batch) for batch in found[:most] if batch.given["parent"] == parent]
            more = {"nextPageToken": found[most - 1].id} if len(found) > most else {}
            return JSONResponse({"batchPredictionJobs": jobs, **more})

        @router.get(f"{_PARENT}/{{job}}")
        async def get_job(request: Request, version: str, project: str, location: str, job: str) -> Response:  # noqa: ARG001
            """Where a job stands."""
            _see(version)
            return JSONResponse(_object(self._own(request.state.owner, job)))

        @router.post(f"{_PARENT}/{{job}}:cancel")
        async def cancel_job(request: Request, version: str, project: str, location: str, job: str) -> Response:  # noqa: ARG001
            """Stop a job."""
            _see(version)
            batch = self._own(request.state.owner, job)
            await run_in_threadpool(self.server.batches.cancel, batch)
            return JSONResponse({})

        return router

    async def _create(self, owner: Owner, parent: str, document: Mapping[str, Any]) -> Batch:
        document = _whole(document)
        named = str(document.get("model"))
        short = named.rpartition("/")[2].partition("@")[0]
        model = self.model_of(named if named in self.server.settings.models else short)
        await run_in_threadpool(self.read, document)
        number = str(10**18 + secrets.randbelow(9 * 10**18))
        given = {"document": dict(document), "model": model, "parent": parent, "job": number, "metadata": None}
        batch = Batch(
            _id(number),
            owner.name,
            self.name,
            int(time.time()),
            None,
            given,
            priority=min(0, owner.priority),
            weight=owner.weight,
        )
        await run_in_threadpool(self.server.batches.add, batch)
        return batch

    def _own(self, owner: Owner, job: str) -> Batch:
        batch = self.server.store.batch(_id(job), owner.name)
        if batch is None:
            raise ApiError(404, f"The BatchPredictionJob {job[:100]!r} does not exist.")
        return batch


def _see(version: str) -> None:
    if version not in _VERSIONS:
        raise ApiError(404, "There is no such version of this API")


def _id(job: str) -> str:
    return f"prediction_{job}"


def _object(batch: Batch) -> dict[str, Any]:
    facts, errors = batch.facts, batch.facts.errors
    prefix = _output(batch.given["document"])
    stats = {
        "successfulCount": str(facts.done), "failedCount": str(facts.failed),
        "incompleteCount": str(facts.rows - facts.done - facts.failed) if batch.ended else "-1",
    }  # fmt: skip
    failed = batch.state == "failed" and errors
    said = {
        **batch.given["document"],
        "name": f"{batch.given['parent']}/batchPredictionJobs/{batch.given['job']}",
        "state": _STATES[batch.state],
        "createTime": _time(batch.created),
        "startTime": _time(facts.times.get("in_progress")),
        "endTime": _time(facts.times[batch.state]) if batch.ended else None,
        "updateTime": _time(max([batch.created, *facts.times.values()])),
        "error": {"code": 3, "message": errors[0]["message"]} if failed else None,
        "completionStats": stats if batch.ended else None,
        "outputInfo": {"gcsOutputDirectory": prefix} if batch.state == "completed" and prefix else None,
    }
    return {key: value for key, value in said.items() if value is not None}


def _output(document: Mapping[str, Any]) -> str | None:
    for config, place, key in (
        ("outputConfig", "gcsDestination", "outputUriPrefix"), ("output_config", "gcs_destination", "output_uri_prefix"),
    ):  # fmt: skip
        found = document.get(config, {})
        if isinstance(found, Mapping) and isinstance(found.get(place), Mapping):
            return str(found[place].get(key))
    return None


def _whole(value: Any) -> Any:
    """Google's clients have no whole numbers in parameters: 64 comes as 64.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(each) for key, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list) else value


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
