"""SageMaker's transform jobs, for its clients (boto3, the SageMaker SDK): ``POST /`` with the operation in ``X-Amz-Target``."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from llmbatch.core.words import clip
from llmbatch.server.base import Checked, Ended, Finished
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.aws import account_of, check_input, counted, failure_of, owner_of, region_of, sections_of
from llmbatch.server.keys import Owner
from llmbatch.server.server import Server
from llmbatch.server.store import Batch
from llmbatch.systems.sagemaker import SageMakerTransform

_TARGET = "SageMaker."
_TYPE = "application/x-amz-json-1.1"
_REASON = 1024  # characters of a FailureReason
_PAGE, _MOST = 10, 100
_ECHOED = (
    "ModelName", "MaxConcurrentTransforms", "ModelClientConfig", "MaxPayloadInMB", "BatchStrategy", "Environment",
    "TransformInput", "TransformOutput", "TransformResources", "DataProcessing", "ExperimentConfig",
)  # fmt: skip
_ERRORS = {
    "not_found": "ResourceNotFound", "ResourceInUse": "ResourceInUse", "invalid_api_key": "AccessDeniedException",
    "UnknownOperationException": "UnknownOperationException",
}  # fmt: skip


class SageMakerFront:
    """The front. A model of any name is the server's; a job is its owner's, by its name."""

    name = "sagemaker"
    prefixes = ("/",)

    def __init__(self, server: Server) -> None:
        self.server = server
        self._creating = threading.Lock()
        self._operations: dict[str, Callable[[dict[str, Any], Request], dict[str, Any] | None]] = {
            "CreateTransformJob": self._create,
            "DescribeTransformJob": self._describe,
            "StopTransformJob": self._stop,
            "ListTransformJobs": self._list,
            "DescribeModel": self._model,
        }

    def uploads(self, path: str) -> bool:  # noqa: ARG002
        return False

    def refusal(self, error: ApiError) -> Response:
        kind = _ERRORS.get(error.code or "", "InternalFailure" if error.status >= 500 else "ValidationException")
        status = error.status if error.status >= 500 or error.status in (401, 403, 429) else 400
        headers = {"x-amzn-errortype": kind}
        return JSONResponse({"__type": kind, "message": error.message}, status, headers, media_type=_TYPE)

    # What is known of a batch here.

    def check(self, batch: Batch, path: Path, stopped: Callable[[], bool]) -> Checked | None:  # noqa: ARG002
        return check_input(batch, self.server.settings, self.server.store, stopped)

    def sections(self, batch: Batch, path: Path) -> Mapping[str, Any]:  # noqa: ARG002
        sections: Mapping[str, Any] = batch.given["sections"]
        return sections

    def finish(self, ended: Ended) -> Finished:
        """A run that came to its end has written its objects; of one that was stopped nothing is stored, as there."""
        return counted(ended)

    # Paths.

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name])

        @router.post("/")
        async def operate(request: Request) -> Response:
            """An operation of SageMaker, by its name in ``X-Amz-Target``."""
            target = request.headers.get("x-amz-target", "")
            operation = self._operations.get(target.removeprefix(_TARGET)) if target.startswith(_TARGET) else None
            if operation is None:
                known = ", ".join(self._operations)
                raise ApiError(
                    400, f"X-Amz-Target is {target[:100]!r}, and the operations here are {known}",
                    code="UnknownOperationException",
                )  # fmt: skip
            given = _body(await request.body())
            answer = await run_in_threadpool(operation, given, request)
            return Response(status_code=200) if answer is None else JSONResponse(answer, media_type=_TYPE)

        return router

    # Operations.

    def _create(self, given: dict[str, Any], request: Request) -> dict[str, Any]:
        sections = sections_of(SageMakerTransform(), "CreateTransformJob", given)
        owner, now = owner_of(request), int(time.time())
        batch = Batch(
            _batch_id(owner, given["TransformJobName"]), owner.name, self.name, now, None,
            {"document": given, "sections": sections, "region": region_of(request)}, weight=owner.weight,
        )  # fmt: skip
        with self._creating:
            if self.server.store.batch(batch.id) is not None:
                raise ApiError(
                    400, "Job name must be unique within an AWS account and region, and a job with this name already exists",
                    code="ResourceInUse",
                )  # fmt: skip
            self.server.batches.add(batch)
        return {"TransformJobArn": _arn(batch)}

    def _describe(self, given: dict[str, Any], request: Request) -> dict[str, Any]:
        batch = self._own(given, request)
        document = batch.given["document"]
        return {**self._summary(batch), **{key: document[key] for key in _ECHOED if key in document}}

    def _stop(self, given: dict[str, Any], request: Request) -> None:
        batch = self._own(given, request)
        if batch.ended or batch.state == "finalizing":
            status = self._status(batch)
            raise ApiError(400, f"The request was rejected because the transform job is in status {status}.")
        self.server.batches.cancel(batch)

    def _list(self, given: dict[str, Any], request: Request) -> dict[str, Any]:
        most = given.get("MaxResults", _PAGE)
        if not isinstance(most, int) or not 1 <= most <= _MOST:
            raise ApiError(400, f"MaxResults is from 1 to {_MOST}")
        summaries: list[dict[str, Any]] = []
        after = given.get("NextToken")
        while True:
            page = self.server.store.batches(owner_of(request).name, front=self.name, after=after, limit=_MOST)
            for batch in page:
                summary = self._summary(batch)
                if _is_wanted(summary, given):
                    summaries.append(summary)
                if len(summaries) == most and batch is not page[-1]:
                    return {"TransformJobSummaries": summaries, "NextToken": batch.id}
                after = batch.id
            if len(page) < _MOST:
                return {"TransformJobSummaries": summaries}

    def _model(self, given: dict[str, Any], request: Request) -> dict[str, Any]:
        """The server's model, by whatever name: the SDK asks for it before it creates a job."""
        name = given.get("ModelName")
        if not isinstance(name, str) or not name:
            raise ApiError(400, "ModelName is missing")
        arn = f"arn:aws:sagemaker:{region_of(request)}:{account_of(None)}:model/{name.lower()}"
        container = {"Image": "llmbatch", "Environment": {"model": self.server.settings.model}}
        return {"ModelName": name, "ModelArn": arn, "CreationTime": 0, "PrimaryContainer": container}

    # Details.

    def _own(self, given: dict[str, Any], request: Request) -> Batch:
        name = given.get("TransformJobName")
        if not isinstance(name, str):
            raise ApiError(400, "TransformJobName is missing")
        owner = owner_of(request)
        batch = self.server.store.batch(_batch_id(owner, name), owner.name)
        if batch is None:
            raise ApiError(400, f"Could not find requested job with name: {clip(name, 100)}", code="not_found")
        return batch

    def _summary(self, batch: Batch) -> dict[str, Any]:
        times, status = batch.facts.times, self._status(batch)
        told: dict[str, Any] = {
            "TransformJobName": batch.given["document"]["TransformJobName"],
            "TransformJobArn": _arn(batch),
            "TransformJobStatus": status,
            "CreationTime": batch.created,
        }
        if status == "Failed":
            told["FailureReason"] = clip(failure_of(batch, self.server.store) or "the job failed", _REASON)
        if (began := times.get("in_progress")) is not None:
            told["TransformStartTime"] = began
        if batch.ended:
            told["TransformEndTime"] = told["LastModifiedTime"] = times.get(batch.state, batch.created)
        return told

    def _status(self, batch: Batch) -> str:
        if batch.state == "completed":
            return "Failed" if failure_of(batch, self.server.store) else "Completed"
        return {"cancelling": "Stopping", "cancelled": "Stopped", "failed": "Failed", "expired": "Failed"}.get(
            batch.state, "InProgress"
        )


def _body(raw: bytes) -> dict[str, Any]:
    try:
        given = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        raise ApiError(400, "the request is not JSON", code="SerializationException") from None
    if not isinstance(given, dict):
        raise ApiError(400, "the request is no JSON object", code="SerializationException")
    return given


def _batch_id(owner: Owner, name: str) -> str:
    """A job is known by its name, which nobody else's is."""
    return f"transform_{hashlib.sha256(f'{owner.name}/{name}'.encode()).hexdigest()[:24]}"


def _arn(batch: Batch) -> str:
    name = batch.given["document"]["TransformJobName"].lower()
    return f"arn:aws:sagemaker:{batch.given['region']}:{account_of(None)}:transform-job/{name}"


def _is_wanted(summary: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    wanted = given.get("StatusEquals")
    return str(given.get("NameContains", "")) in summary["TransformJobName"] and wanted in (
        None, summary["TransformJobStatus"],
    )  # fmt: skip


__all__ = ["SageMakerFront"]
