"""SageMaker's transform jobs, for AWS's clients (``endpoint_url``): one path, ``POST /``, with the operation in a header."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.documents import DocumentBatches
from llmbatch.server.keys import Owner
from llmbatch.server.server import Server
from llmbatch.server.store import Batch
from llmbatch.systems.sagemaker import SageMakerTransform

_ARN = "arn:aws:sagemaker:us-east-1:000000000000"
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_CONTENT_TYPE = "application/x-amz-json-1.1"
_STATES = {
    "validating": "InProgress", "in_progress": "InProgress", "finalizing": "InProgress", "completed": "Completed",
    "failed": "Failed", "expired": "Failed", "cancelling": "Stopping", "cancelled": "Stopped",
}  # fmt: skip
_CODES = {401: "AccessDeniedException", 403: "AccessDeniedException", 404: "ResourceNotFound", 409: "ResourceInUse"}
_LONGEST_REASON = 1024
_ECHOED = (
    "ModelName", "TransformInput", "TransformOutput", "TransformResources", "DataProcessing", "BatchStrategy",
    "MaxConcurrentTransforms", "MaxPayloadInMB", "ModelClientConfig", "Environment", "ExperimentConfig",
)  # fmt: skip


class SageMakerFront(DocumentBatches):
    """The front."""

    name = "sagemaker"
    prefixes = ("/",)

    def __init__(self, server: Server) -> None:
        super().__init__(server, SageMakerTransform())
        self._operations: dict[str, Callable[[Owner, Mapping[str, Any]], Awaitable[Any]]] = {
            "CreateTransformJob": self._create,
            "DescribeTransformJob": self._describe,
            "StopTransformJob": self._stop,
            "ListTransformJobs": self._list,
            "DescribeModel": self._model,
        }

    def refusal(self, error: ApiError) -> Response:
        code = _CODES.get(error.status, "ValidationException" if error.status < 500 else "InternalFailure")
        status = 400 if error.status < 500 else error.status
        return JSONResponse({"__type": code, "message": error.message}, status, media_type=_CONTENT_TYPE)

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name])

        @router.post("/", include_in_schema=False)
        async def operate(request: Request) -> Response:
            """One operation of SageMaker's."""
            name = request.headers.get("x-amz-target", "").removeprefix("SageMaker.")
            operation = self._operations.get(name)
            if operation is None:
                known = ", ".join(self._operations)
                raise ApiError(400, f"the operation {name[:60]!r} is not served here; there are {known}")
            try:
                body = json.loads(await request.body() or b"{}")
            except ValueError as error:
                raise ApiError(400, "the body is not JSON") from error
            if not isinstance(body, dict):
                raise ApiError(400, "the body is not a JSON object")
            said = await operation(request.state.owner, body)
            return Response(b"" if said is None else json.dumps(said).encode(), media_type=_CONTENT_TYPE)

        return router

    async def _create(self, owner: Owner, document: Mapping[str, Any]) -> dict[str, str]:
        name = document.get("TransformJobName")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ApiError(400, "TransformJobName is a text of letters, digits and hyphens, at most 63 of them")
        model = self.model_of(str(document.get("ModelName")))
        await run_in_threadpool(self.read, document)
        given = {"document": dict(document), "model": model, "name": name, "metadata": None}
        batch = Batch(
            _id(owner, name),
            owner.name,
            self.name,
            int(time.time()),
            None,
            given,
            priority=min(0, owner.priority),
            weight=owner.weight,
        )
        if self.server.store.batch(batch.id) is not None:
            raise ApiError(409, f"Job name must be unique, and {name} is in use")
        await run_in_threadpool(self.server.batches.add, batch)
        return {"TransformJobArn": _arn(name)}

    async def _describe(self, owner: Owner, asked: Mapping[str, Any]) -> dict[str, Any]:
        batch = self._own(owner, asked)
        document, times = batch.given["document"], batch.facts.times
        state, reason = _state(batch)
        said = {
            "TransformJobName": batch.given["name"],
            "TransformJobArn": _arn(batch.given["name"]),
            "TransformJobStatus": state,
            "CreationTime": batch.created,
            "TransformStartTime": times.get("in_progress"),
            "TransformEndTime": times.get(batch.state) if batch.ended else None,
            "FailureReason": reason,
            **{key: document.get(key) for key in _ECHOED},
        }
        return {key: value for key, value in said.items() if value is not None}

    async def _stop(self, owner: Owner, asked: Mapping[str, Any]) -> None:
        batch = self._own(owner, asked)
        if batch.ended:
            raise ApiError(400, f"the job {batch.given['name']} is {_state(batch)[0]}, and cannot be stopped")
        await run_in_threadpool(self.server.batches.cancel, batch)

    async def _list(self, owner: Owner, asked: Mapping[str, Any]) -> dict[str, Any]:
        limit = asked.get("MaxResults", 10)
        after = asked.get("NextToken")
        if not isinstance(limit, int) or not 1 <= limit <= 100 or not isinstance(after, str | None):
            raise ApiError(400, "MaxResults is from 1 to 100, and NextToken a text")
        found = self.server.store.batches(owner.name, front=self.name, after=after, limit=limit + 1)
        shown = [
            {
                "TransformJobName": batch.given["name"],
                "TransformJobArn": _arn(batch.given["name"]),
                "CreationTime": batch.created,
                "TransformJobStatus": _state(batch)[0],
            }
            for batch in found[:limit]
        ]
        more = {"NextToken": found[limit - 1].id} if len(found) > limit else {}
        return {"TransformJobSummaries": shown, **more}

    async def _model(self, _owner: Owner, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The SDK's ``Transformer`` asks for it first."""
        name = self.model_of(str(asked.get("ModelName")))
        return {
            "ModelName": name, "ModelArn": f"{_ARN}:model/{name}", "CreationTime": 0, "PrimaryContainer": {},
            "ExecutionRoleArn": "arn:aws:iam::000000000000:role/llmbatch",
        }  # fmt: skip

    def _own(self, owner: Owner, asked: Mapping[str, Any]) -> Batch:
        name = str(asked.get("TransformJobName"))
        batch = self.server.store.batch(_id(owner, name), owner.name)
        if batch is None:
            raise ApiError(404, f"Could not find job {name[:100]!r}")
        return batch


def _id(owner: Owner, name: str) -> str:
    return f"transform_{hashlib.sha256(f'{owner.name} {name}'.encode()).hexdigest()[:24]}"


def _arn(name: str) -> str:
    return f"{_ARN}:transform-job/{name.lower()}"


def _state(batch: Batch) -> tuple[str, str | None]:
    """The status, and why it failed. A job of which a record failed is one that failed, though all others are there."""
    errors = batch.facts.errors
    reason = errors[0]["message"][:_LONGEST_REASON] if errors else None
    if batch.state == "completed" and reason is not None:
        return "Failed", reason
    return _STATES[batch.state], reason if batch.state in ("failed", "expired") else None
