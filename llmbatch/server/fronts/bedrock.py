"""Bedrock's model invocation jobs, for AWS's clients (``endpoint_url``): paths below ``/model-invocation-job``."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from llmbatch.core.words import clip
from llmbatch.server.base import Ended, Finished
from llmbatch.server.bodies import JsonObject, JsonRoute
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.aws import account_of, region_of
from llmbatch.server.fronts.documents import DocumentBatches, write_what_is_done
from llmbatch.server.keys import Owner
from llmbatch.server.server import Server
from llmbatch.server.store import Batch
from llmbatch.sinks.base import LAYOUT_FOLDER
from llmbatch.sinks.layouts.bedrock import MANIFEST
from llmbatch.systems.bedrock import BedrockInvocation, job_id

_MOST = 1000
_STATES = {
    "validating": "Validating", "in_progress": "InProgress", "finalizing": "InProgress", "completed": "Completed",
    "failed": "Failed", "cancelling": "Stopping", "cancelled": "Stopped",
}  # fmt: skip
_CODES = {
    401: (403, "AccessDeniedException"), 403: (403, "AccessDeniedException"), 404: (404, "ResourceNotFoundException"),
    405: (405, "UnknownOperationException"), 409: (400, "ConflictException"), 429: (429, "ThrottlingException"),
}  # fmt: skip
_ECHOED = (
    "jobName", "modelId", "clientRequestToken", "roleArn", "inputDataConfig", "outputDataConfig", "vpcConfig",
    "timeoutDurationInHours", "modelInvocationType",
)  # fmt: skip


class BedrockFront(DocumentBatches):
    """The front. Of a job that is stopped, or over its time, what is finished is written."""

    name = "bedrock"
    prefixes = ("/model-invocation-job",)

    def __init__(self, server: Server) -> None:
        super().__init__(server, BedrockInvocation())
        self._creating = threading.Lock()

    def refusal(self, error: ApiError) -> Response:
        known = (400, "ValidationException") if error.status < 500 else (error.status, "InternalServerException")
        status, code = _CODES.get(error.status, known)
        return JSONResponse({"message": error.message}, status, {"x-amzn-errortype": code})

    def finish(self, ended: Ended) -> Finished:
        if ended.state in ("cancelled", "expired"):
            write_what_is_done(ended, lambda folder: _count_all(folder, ended.batch))
        return super().finish(ended)

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name], route_class=JsonRoute)

        @router.post("/model-invocation-job")
        async def create_job(request: Request, document: JsonObject) -> Response:
            """Begin a job; the same document, or the same token, is the same job."""
            return JSONResponse({"jobArn": _arn(await run_in_threadpool(self._create, document, request))})

        @router.post("/model-invocation-job/{job:path}/stop")
        async def stop_job(request: Request, job: str) -> Response:
            """Stop a job; what is finished is kept, and written."""
            batch = self._own(job, request)
            if batch.ended:
                raise ApiError(409, f"the job is {self._state(batch)}, and cannot be stopped")
            await run_in_threadpool(self.server.batches.cancel, batch)
            return JSONResponse({})

        @router.get("/model-invocation-job/{job:path}")
        async def get_job(request: Request, job: str) -> Response:
            """Where a job stands, by its ARN or its id."""
            return JSONResponse(self._object(self._own(job, request)))

        @router.get("/model-invocation-jobs")
        async def list_jobs(
            request: Request,
            most: Annotated[int, Query(alias="maxResults", ge=1, le=_MOST)] = 100,
            after: Annotated[str | None, Query(alias="nextToken", max_length=100)] = None,
            status: Annotated[str | None, Query(alias="statusEquals", max_length=40)] = None,
            name: Annotated[str, Query(alias="nameContains", max_length=63)] = "",
        ) -> Response:
            """The jobs of the key's owner, the newest first."""
            return JSONResponse(await run_in_threadpool(self._list, request, most, after, status, name))

        return router

    # Details.

    def _create(self, document: Mapping[str, Any], request: Request) -> Batch:
        no_effect = self.read(document).no_effect
        owner: Owner = request.state.owner
        name, now, hours = job_id(document), int(time.time()), document.get("timeoutDurationInHours")
        given = {
            "document": dict(document), "model": self.model_of(document["modelId"]), "job": name,
            "region": region_of(request), "metadata": None, "no_effect": no_effect,
        }  # fmt: skip
        batch = Batch(
            _id(owner, name), owner.name, self.name, now, None if hours is None else now + 3600 * hours, given,
            priority=min(0, owner.priority), weight=owner.weight,
        )  # fmt: skip
        with self._creating:
            before = self.server.store.batch(batch.id)
            if before is None:
                self.server.batches.add(batch)
        if before is not None and before.given["document"] != batch.given["document"]:
            raise ApiError(409, "the clientRequestToken is that of another job")
        return before or batch

    def _list(self, request: Request, most: int, after: str | None, status: str | None, name: str) -> dict[str, Any]:
        found: list[Batch] = []
        while len(found) <= most:
            page = self.server.store.batches(request.state.owner.name, front=self.name, after=after, limit=_MOST)
            found += [
                batch
                for batch in page
                if name in batch.given["document"]["jobName"] and status in (None, self._state(batch))
            ]
            if len(page) < _MOST:
                break
            after = page[-1].id
        more = {"nextToken": found[most - 1].id} if len(found) > most else {}
        return {"invocationJobSummaries": list(map(self._object, found[:most])), **more}

    def _own(self, job: str, request: Request) -> Batch:
        owner: Owner = request.state.owner
        name = job.rpartition("/")[2]
        batch = self.server.store.batch(_id(owner, name), owner.name)
        if batch is None or job not in (name, _arn(batch)):
            raise ApiError(404, f"Could not find the job {clip(job, 200)}")
        return batch

    def _state(self, batch: Batch) -> str:
        if batch.state == "expired":  # what was finished by then is kept
            return "PartiallyCompleted" if batch.facts.done or batch.facts.failed else "Expired"
        if batch.state in ("validating", "in_progress") and self.server.batches.session(batch.id) is None:
            return "Submitted" if batch.state == "validating" else "Scheduled"
        return _STATES[batch.state]

    def _object(self, batch: Batch) -> dict[str, Any]:
        document, errors, times = batch.given["document"], batch.facts.errors, batch.facts.times
        said = {
            "jobArn": _arn(batch),
            **{key: document.get(key) for key in _ECHOED},
            "status": self._state(batch),
            "message": clip(str(errors[0]["message"]), 2048) if errors else None,
            "submitTime": _time(batch.created),
            "lastModifiedTime": _time(max([batch.created, *times.values()])),
            "endTime": _time(times.get(batch.state, batch.created)) if batch.ended else None,
            "jobExpirationTime": None if batch.expires is None else _time(batch.expires),
        }
        return {key: value for key, value in said.items() if value is not None}


def _count_all(folder: Path, batch: Batch) -> None:
    """The manifest of a job that ended early: the records of its input, of which not all were processed."""
    path = folder / LAYOUT_FOLDER / batch.given["job"] / MANIFEST
    counts = {**json.loads(path.read_bytes()), "totalRecordCount": batch.facts.rows}
    path.write_text(json.dumps(counts) + "\n", encoding="utf-8")


def _id(owner: Owner, name: str) -> str:
    return f"invocation_{hashlib.sha256(f'{owner.name} {name}'.encode()).hexdigest()[:24]}"


def _arn(batch: Batch) -> str:
    account = account_of(batch.given["document"].get("roleArn"))
    return f"arn:aws:bedrock:{batch.given['region']}:{account}:model-invocation-job/{batch.given['job']}"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


__all__ = ["BedrockFront"]
