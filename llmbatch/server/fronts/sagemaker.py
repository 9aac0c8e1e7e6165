"""SageMaker's transform jobs, for AWS's clients (``endpoint_url``): one path, ``POST /``, with the operation in a header."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from llmbatch.core.words import clip
from llmbatch.server.bodies import json_object
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.aws import NO_ACCOUNT, region_of
from llmbatch.server.fronts.documents import DocumentBatches
from llmbatch.server.keys import Owner
from llmbatch.server.server import Server
from llmbatch.server.store import Batch
from llmbatch.systems.sagemaker import SageMakerTransform

_TARGET = "SageMaker."
_CONTENT_TYPE = "application/x-amz-json-1.1"
_STATES = {
    "validating": "InProgress", "in_progress": "InProgress", "finalizing": "InProgress", "completed": "Completed",
    "failed": "Failed", "expired": "Failed", "cancelling": "Stopping", "cancelled": "Stopped",
}  # fmt: skip
_CODES = {401: "AccessDeniedException", 403: "AccessDeniedException", 404: "ResourceNotFound", 409: "ResourceInUse"}
_LONGEST_REASON = 1024  # characters
_PAGE, _MOST = 10, 100
_ECHOED = (
    "ModelName", "TransformInput", "TransformOutput", "TransformResources", "DataProcessing", "BatchStrategy",
    "MaxConcurrentTransforms", "MaxPayloadInMB", "ModelClientConfig", "Environment", "ExperimentConfig",
)  # fmt: skip


class SageMakerFront(DocumentBatches):
    """The front. A job is its owner's, by its name; one that is stopped stores nothing."""

    name = "sagemaker"
    prefixes = ("/",)

    def __init__(self, server: Server) -> None:
        super().__init__(server, SageMakerTransform())
        self._creating = threading.Lock()
        self._operations: dict[str, Callable[[Mapping[str, Any], Request], dict[str, Any] | None]] = {
            "CreateTransformJob": self._create,
            "DescribeTransformJob": self._describe,
            "StopTransformJob": self._stop,
            "ListTransformJobs": self._list,
            "DescribeModel": self._model,
        }

    def refusal(self, error: ApiError) -> Response:
        code = _CODES.get(error.status, "ValidationException" if error.status < 500 else "InternalFailure")
        status = 400 if error.status < 500 else error.status
        headers = {"x-amzn-errortype": code}
        return JSONResponse({"__type": code, "message": error.message}, status, headers, media_type=_CONTENT_TYPE)

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name])

        @router.post("/", include_in_schema=False)
        async def operate(request: Request) -> Response:
            """One operation of SageMaker's."""
            target = request.headers.get("x-amz-target", "")
            operation = self._operations.get(target.removeprefix(_TARGET)) if target.startswith(_TARGET) else None
            if operation is None:
                known = ", ".join(self._operations)
                raise ApiError(
                    400, f"the operation {target[:60]!r} is not served here; the operations here are {known}"
                )
            body = await json_object(await request.body())
            said = await run_in_threadpool(operation, body, request)
            return Response(b"" if said is None else json.dumps(said).encode(), media_type=_CONTENT_TYPE)

        return router

    # Operations.

    def _create(self, document: Mapping[str, Any], request: Request) -> dict[str, Any]:
        no_effect = self.read(document).no_effect
        owner, name = _owner(request), document["TransformJobName"]
        given = {
            "document": dict(document), "model": self.model_of(document["ModelName"]), "name": name,
            "region": region_of(request), "metadata": None, "no_effect": no_effect,
        }  # fmt: skip
        batch = Batch(
            _id(owner, name), owner.name, self.name, int(time.time()), None, given, priority=min(0, owner.priority),
            weight=owner.weight,
        )  # fmt: skip
        with self._creating:  # of two at once with one name, one is refused
            if self.server.store.batch(batch.id) is not None:
                raise ApiError(409, f"Job name must be unique, and a job with the name {name} already exists")
            self.server.batches.add(batch)
        return {"TransformJobArn": _arn(batch)}

    def _describe(self, asked: Mapping[str, Any], request: Request) -> dict[str, Any]:
        batch = self._own(asked, request)
        document = batch.given["document"]
        return {**_summary(batch), **{key: document[key] for key in _ECHOED if document.get(key) is not None}}

    def _stop(self, asked: Mapping[str, Any], request: Request) -> None:
        batch = self._own(asked, request)
        if batch.ended:
            raise ApiError(400, f"the job {batch.given['name']} is {_state(batch)[0]}, and cannot be stopped")
        self.server.batches.cancel(batch)

    def _list(self, asked: Mapping[str, Any], request: Request) -> dict[str, Any]:
        most, after, name = asked.get("MaxResults", _PAGE), asked.get("NextToken"), asked.get("NameContains", "")
        if not isinstance(most, int) or not 1 <= most <= _MOST:
            raise ApiError(400, f"MaxResults is from 1 to {_MOST}")
        if not isinstance(after, str | None) or not isinstance(name, str):
            raise ApiError(400, "NextToken and NameContains are texts")
        found: list[Batch] = []
        while len(found) <= most:
            page = self.server.store.batches(_owner(request).name, front=self.name, after=after, limit=_MOST)
            found += [
                batch
                for batch in page
                if name in batch.given["name"] and asked.get("StatusEquals") in (None, _state(batch)[0])
            ]
            if len(page) < _MOST:
                break
            after = page[-1].id
        more = {"NextToken": found[most - 1].id} if len(found) > most else {}
        return {"TransformJobSummaries": list(map(_summary, found[:most])), **more}

    def _model(self, asked: Mapping[str, Any], request: Request) -> dict[str, Any]:
        """The SDK's ``Transformer`` asks for it first."""
        name = self.model_of(str(asked.get("ModelName")))
        return {
            "ModelName": name, "ModelArn": f"{_place(region_of(request))}:model/{name.lower()}", "CreationTime": 0,
            "PrimaryContainer": {"Image": "llmbatch"}, "ExecutionRoleArn": f"arn:aws:iam::{NO_ACCOUNT}:role/llmbatch",
        }  # fmt: skip

    def _own(self, asked: Mapping[str, Any], request: Request) -> Batch:
        owner, name = _owner(request), str(asked.get("TransformJobName"))
        batch = self.server.store.batch(_id(owner, name), owner.name)
        if batch is None:
            raise ApiError(404, f"Could not find requested job with name: {clip(name, 100)}")
        return batch


def _owner(request: Request) -> Owner:
    owner: Owner = request.state.owner
    return owner


def _id(owner: Owner, name: str) -> str:
    return f"transform_{hashlib.sha256(f'{owner.name} {name}'.encode()).hexdigest()[:24]}"


def _place(region: str) -> str:
    return f"arn:aws:sagemaker:{region}:{NO_ACCOUNT}"


def _arn(batch: Batch) -> str:
    return f"{_place(batch.given['region'])}:transform-job/{batch.given['name'].lower()}"


def _state(batch: Batch) -> tuple[str, str | None]:
    """The status, and why it failed. A job of which a record failed is one that failed, though all others are there."""
    errors = batch.facts.errors
    reason = clip(str(errors[0]["message"]), _LONGEST_REASON) if errors else None
    if batch.state == "completed" and reason is not None:
        return "Failed", reason
    return _STATES[batch.state], reason if batch.state in ("failed", "expired") else None


def _summary(batch: Batch) -> dict[str, Any]:
    state, reason = _state(batch)
    times = batch.facts.times
    ended = times.get(batch.state, batch.created) if batch.ended else None
    said = {
        "TransformJobName": batch.given["name"], "TransformJobArn": _arn(batch), "TransformJobStatus": state,
        "CreationTime": batch.created, "TransformStartTime": times.get("in_progress"), "TransformEndTime": ended,
        "LastModifiedTime": ended, "FailureReason": reason,
    }  # fmt: skip
    return {key: value for key, value in said.items() if value is not None}


__all__ = ["SageMakerFront"]
