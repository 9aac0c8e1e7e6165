"""Bedrock's model invocation jobs, for AWS's clients (``endpoint_url``): paths below ``/model-invocation-job``."""

from __future__ import annotations

import hashlib
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
from llmbatch.systems.bedrock import BedrockInvocation, job_id

_ARN = "arn:aws:bedrock:us-east-1:000000000000:model-invocation-job/"
_STATES = {
    "validating": "Validating", "in_progress": "InProgress", "finalizing": "InProgress", "completed": "Completed",
    "failed": "Failed", "cancelling": "Stopping", "cancelled": "Stopped",
}  # fmt: skip
_CODES = {
    401: (403, "AccessDeniedException"), 403: (403, "AccessDeniedException"), 404: (404, "ResourceNotFoundException"),
    409: (400, "ConflictException"), 429: (429, "ThrottlingException"),
}  # fmt: skip
_ECHOED = (
    "jobName", "modelId", "clientRequestToken", "roleArn", "inputDataConfig", "outputDataConfig", "vpcConfig",
    "timeoutDurationInHours", "modelInvocationType",
)  # fmt: skip


class BedrockFront(DocumentBatches):
    """The front."""

    name = "bedrock"
    prefixes = ("/model-invocation-job",)

    def __init__(self, server: Server) -> None:
        super().__init__(server, BedrockInvocation())

    def refusal(self, error: ApiError) -> Response:
        known = (400, "ValidationException") if error.status < 500 else (error.status, "InternalServerException")
        status, code = _CODES.get(error.status, known)
        return JSONResponse({"message": error.message}, status, {"x-amzn-errortype": code})

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name])

        @router.post("/model-invocation-job")
        async def create_job(request: Request, document: Annotated[dict[str, Any], Body()]) -> Response:
            """Begin a job; the same document, or the same token, is the same job."""
            return JSONResponse({"jobArn": await self._create(request.state.owner, document)})

        @router.post("/model-invocation-job/{job:path}/stop")
        async def stop_job(request: Request, job: str) -> Response:
            """Stop a job."""
            batch = self._own(request.state.owner, job)
            if batch.ended:
                raise ApiError(409, f"the job is {_state(batch)}, and cannot be stopped")
            await run_in_threadpool(self.server.batches.cancel, batch)
            return JSONResponse({})

        @router.get("/model-invocation-job/{job:path}")
        async def get_job(request: Request, job: str) -> Response:
            """Where a job stands."""
            return JSONResponse(_object(self._own(request.state.owner, job)))

        @router.get("/model-invocation-jobs")
        async def list_jobs(
            request: Request,
            max_results: Annotated[int, Query(alias="maxResults", ge=1, le=1000)] = 100,
            next_token: Annotated[str | None, Query(alias="nextToken", max_length=100)] = None,
        ) -> Response:
            """The jobs of the key's owner, the newest first."""
            owner: Owner = request.state.owner
            found = self.server.store.batches(owner.name, front=self.name, after=next_token, limit=max_results + 1)
            more = {"nextToken": found[max_results - 1].id} if len(found) > max_results else {}
            return JSONResponse({"invocationJobSummaries": list(map(_object, found[:max_results])), **more})

        return router

    async def _create(self, owner: Owner, document: Mapping[str, Any]) -> str:
        model = self.model_of(str(document.get("modelId")))
        await run_in_threadpool(self.read, document)
        name, now = job_id(document), int(time.time())
        hours = document.get("timeoutDurationInHours")
        given = {"document": dict(document), "model": model, "job": name, "metadata": None}
        batch = Batch(
            _id(owner, name), owner.name, self.name, now, None if hours is None else now + 3600 * int(hours), given,
            priority=min(0, owner.priority), weight=owner.weight,
        )  # fmt: skip
        before = self.server.store.batch(batch.id)
        if before is not None and before.given["document"] != batch.given["document"]:
            raise ApiError(409, "the clientRequestToken is that of another job")
        if before is None:
            await run_in_threadpool(self.server.batches.add, batch)
        return f"{_ARN}{name}"

    def _own(self, owner: Owner, job: str) -> Batch:
        batch = self.server.store.batch(_id(owner, job.rpartition("/")[2]), owner.name)
        if batch is None:
            raise ApiError(404, "there is no such job")
        return batch


def _id(owner: Owner, name: str) -> str:
    return f"invocation_{hashlib.sha256(f'{owner.name} {name}'.encode()).hexdigest()[:24]}"


def _state(batch: Batch) -> str:
    if batch.state == "expired":  # what was finished by then is kept
        return "PartiallyCompleted" if batch.facts.done else "Expired"
    return _STATES[batch.state]


def _object(batch: Batch) -> dict[str, Any]:
    document, errors, times = batch.given["document"], batch.facts.errors, batch.facts.times
    said = {
        "jobArn": f"{_ARN}{batch.given['job']}",
        **{key: document.get(key) for key in _ECHOED},
        "status": _state(batch),
        "message": errors[0]["message"] if errors else None,
        "submitTime": _time(batch.created),
        "lastModifiedTime": _time(max([batch.created, *times.values()])),
        "endTime": _time(times[batch.state]) if batch.ended else None,
        "jobExpirationTime": None if batch.expires is None else _time(batch.expires),
    }
    return {key: value for key, value in said.items() if value is not None}


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
