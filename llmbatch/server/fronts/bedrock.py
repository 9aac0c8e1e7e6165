"""Bedrock's model invocation jobs, for its clients (boto3): paths below ``/model-invocation-job``."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from llmbatch.core.words import clip
from llmbatch.server.base import Checked, Ended, Finished
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.aws import (
    account_of,
    check_input,
    counted,
    failure_of,
    owner_of,
    region_of,
    sections_of,
    write_what_is_done,
)
from llmbatch.server.server import Server
from llmbatch.server.store import Batch
from llmbatch.sinks.base import LAYOUT_FOLDER
from llmbatch.sinks.layouts.bedrock import MANIFEST
from llmbatch.systems.bedrock import BedrockInvocation, job_id

_PREFIX = "invocation_"
_MOST = 1000
_STATES = {
    "validating": "Validating", "in_progress": "InProgress", "finalizing": "InProgress", "cancelling": "Stopping",
    "cancelled": "Stopped", "completed": "Completed", "failed": "Failed",
}  # fmt: skip
_KINDS = {
    "not_found": "ResourceNotFoundException", "ConflictException": "ConflictException",
    "invalid_api_key": "AccessDeniedException",
}  # fmt: skip
_ECHOED = (
    "jobName", "modelId", "roleArn", "inputDataConfig", "outputDataConfig", "timeoutDurationInHours", "vpcConfig",
    "modelInvocationType", "clientRequestToken",
)  # fmt: skip


class BedrockFront:
    """The front. Whatever the ``modelId``, the model is the server's; it says which bodies are taken."""

    name = "bedrock"
    prefixes = ("/model-invocation-job",)

    def __init__(self, server: Server) -> None:
        self.server = server
        self._creating = threading.Lock()

    def uploads(self, path: str) -> bool:  # noqa: ARG002
        return False

    def refusal(self, error: ApiError) -> Response:
        by_status = {429: "ThrottlingException", 401: "AccessDeniedException", 403: "AccessDeniedException"}
        usual = "InternalServerException" if error.status >= 500 else "ValidationException"
        kind = _KINDS.get(error.code or "", by_status.get(error.status, usual))
        status = 403 if error.status == 401 else error.status
        return JSONResponse({"message": error.message}, status, {"x-amzn-errortype": kind})

    # What is known of a batch here.

    def check(self, batch: Batch, path: Path, stopped: Callable[[], bool]) -> Checked | None:  # noqa: ARG002
        return check_input(batch, self.server.settings, self.server.store, stopped)

    def sections(self, batch: Batch, path: Path) -> Mapping[str, Any]:  # noqa: ARG002
        sections: Mapping[str, Any] = batch.given["sections"]
        return sections

    def finish(self, ended: Ended) -> Finished:
        """A run that came to its end has written its objects; of one that was stopped, what is done is written now."""
        done = counted(ended)
        if ended.state in ("cancelled", "expired"):
            write_what_is_done(ended, lambda folder: _count_all(folder, ended.batch))
        return done

    # Paths.

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name])

        @router.post("/model-invocation-job")
        async def create(request: Request) -> Response:
            """Begin a job; the same token of a client twice is the same job."""
            batch = await run_in_threadpool(self._create, _body(await request.body()), request)
            return JSONResponse({"jobArn": _arn(batch)})

        @router.get("/model-invocation-jobs")
        async def list_jobs(
            request: Request,
            most: Annotated[int, Query(alias="maxResults", ge=1, le=_MOST)] = _MOST,
            after: Annotated[str | None, Query(alias="nextToken", max_length=128)] = None,
            status: Annotated[str | None, Query(alias="statusEquals", max_length=40)] = None,
            name: Annotated[str, Query(alias="nameContains", max_length=63)] = "",
        ) -> Response:
            """The jobs of the key's owner, the newest first."""
            return JSONResponse(await run_in_threadpool(self._list, request, most, after, status, name))

        @router.get("/model-invocation-job/{job:path}")
        async def describe(request: Request, job: str) -> Response:
            """Where a job stands, by its ARN or its id."""
            return JSONResponse(await run_in_threadpool(self._told, self._own(job, request)))

        @router.post("/model-invocation-job/{job:path}/stop")
        async def stop(request: Request, job: str) -> Response:
            """Stop a job; what is finished is kept, and written."""
            batch = self._own(job, request)
            if batch.ended:
                raise ApiError(
                    400, f"the job is {self._status(batch)}, and cannot be stopped", code="ConflictException"
                )
            await run_in_threadpool(self.server.batches.cancel, batch)
            return JSONResponse({})

        return router

    # Details.

    def _create(self, given: dict[str, Any], request: Request) -> Batch:
        owner, now = owner_of(request), int(time.time())
        token = given.setdefault("clientRequestToken", secrets.token_hex(16))
        sections = sections_of(BedrockInvocation(), "CreateModelInvocationJob", given)
        job = job_id({"clientRequestToken": f"{owner.name}/{token}"})
        sections["sinks"]["layout"]["settings"]["job"] = job
        hours = given.get("timeoutDurationInHours")
        batch = Batch(
            f"{_PREFIX}{job}", owner.name, self.name, now, None if hours is None else now + 3600 * hours,
            {"document": given, "sections": sections, "region": region_of(request), "job": job}, weight=owner.weight,
        )  # fmt: skip
        with self._creating:
            known = self.server.store.batch(batch.id)
            if known is None:
                self.server.batches.add(batch)
        if known is not None and known.given["document"] != given:
            raise ApiError(400, "clientRequestToken is that of another job", code="ConflictException")
        return known or batch

    def _list(self, request: Request, most: int, after: str | None, status: str | None, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.server.store.batches(owner_of(request).name, front=self.name, after=after, limit=_MOST)
            for batch in page:
                told = self._told(batch)
                if name in told["jobName"] and status in (None, told["status"]):
                    found.append(told)
                if len(found) == most and batch is not page[-1]:
                    return {"invocationJobSummaries": found, "nextToken": batch.id}
                after = batch.id
            if len(page) < _MOST:
                return {"invocationJobSummaries": found}

    def _own(self, job: str, request: Request) -> Batch:
        name = job.rpartition("/")[2]
        batch = self.server.store.batch(f"{_PREFIX}{name}", owner_of(request).name)
        if batch is None or (job != name and job != _arn(batch)):
            raise ApiError(404, f"Could not find the job {clip(job, 200)}", code="not_found")
        return batch

    def _told(self, batch: Batch) -> dict[str, Any]:
        document, times = batch.given["document"], batch.facts.times
        last = max([batch.created, *times.values()])
        told: dict[str, Any] = {
            **{key: document[key] for key in _ECHOED if document.get(key) is not None},
            "jobArn": _arn(batch),
            "status": self._status(batch),
            "submitTime": _iso(batch.created),
            "lastModifiedTime": _iso(last),
        }
        if batch.expires is not None:
            told["jobExpirationTime"] = _iso(batch.expires)
        if batch.ended:
            told["endTime"] = _iso(last)
        if (message := failure_of(batch, self.server.store)) is not None:
            told["message"] = clip(message, 2048)
        return told

    def _status(self, batch: Batch) -> str:
        if batch.state == "expired":
            return "PartiallyCompleted" if batch.facts.done or batch.facts.failed else "Expired"
        running = self.server.batches.session(batch.id) is not None
        if not running and batch.state in ("validating", "in_progress"):
            return "Submitted" if batch.state == "validating" else "Scheduled"
        return _STATES[batch.state]


def _count_all(folder: Path, batch: Batch) -> None:
    """The manifest of a job that ended early: the records of its input, of which not all were processed."""
    path = folder / LAYOUT_FOLDER / batch.given["job"] / MANIFEST
    counts = {**json.loads(path.read_bytes()), "totalRecordCount": batch.facts.rows}
    path.write_text(json.dumps(counts) + "\n", encoding="utf-8")


def _body(raw: bytes) -> dict[str, Any]:
    try:
        given = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        raise ApiError(400, "the request is not JSON") from None
    if not isinstance(given, dict):
        raise ApiError(400, "the request is no JSON object")
    return given


def _arn(batch: Batch) -> str:
    account = account_of(batch.given["document"].get("roleArn"))
    return f"arn:aws:bedrock:{batch.given['region']}:{account}:model-invocation-job/{batch.given['job']}"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


__all__ = ["BedrockFront"]
