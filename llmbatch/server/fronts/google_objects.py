"""Our files, batches and errors in; the objects of Google's APIs that say the same, out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from llmbatch.core.events import Snapshot
from llmbatch.core.types import Status
from llmbatch.server.errors import ApiError
from llmbatch.server.store import Batch, StoredFile

_STATES = {
    "validating": "PENDING", "in_progress": "RUNNING", "finalizing": "RUNNING", "completed": "SUCCEEDED", "failed": "FAILED",
    "cancelling": "CANCELLING", "cancelled": "CANCELLED", "expired": "EXPIRED",
}  # fmt: skip
_REASONS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED", 409: "ABORTED", 413: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 507: "RESOURCE_EXHAUSTED",
}  # fmt: skip
_ENDED = ("completed", "failed", "expired", "cancelled")
_DONE = (Status.OK, Status.TRUNCATED)  # while it runs: what most likely comes to be a line of answers
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"


def error_object(error: ApiError) -> dict[str, Any]:
    reason = _REASONS.get(error.status, "INTERNAL" if error.status >= 500 else "FAILED_PRECONDITION")
    return {"error": {"code": error.status, "message": error.message, "status": reason}}


def job_object(batch: Batch, snapshot: Snapshot | None) -> dict[str, Any]:
    """A BatchPredictionJob of Vertex AI: the document that it was made of, and where it stands."""
    facts, given = batch.facts, batch.given
    job: dict[str, Any] = {
        **given["document"],
        "name": f"{given['parent']}/batchPredictionJobs/{given['number']}",
        "state": f"JOB_STATE_{_STATES[batch.state]}",
        **_times(batch),
    }
    if facts.rows:
        done, failed = _counts(batch, snapshot)
        left = max(0, facts.rows - done - failed)
        job["completionStats"] = {
            "successfulCount": str(done), "failedCount": str(failed), "incompleteCount": str(left),
        }  # fmt: skip
    if batch.ended and facts.done + facts.failed:
        job["outputInfo"] = {"gcsOutputDirectory": given["folder"]}
    return {**job, **_error(batch)}


def operation(batch: Batch, snapshot: Snapshot | None, inlined: list[Any] | None = None) -> dict[str, Any]:
    """A batch of the Gemini API. ``inlined`` are its responses, where its requests came in its own creation."""
    done, failed = _counts(batch, snapshot)
    total = batch.facts.rows or batch.given.get("count", 0)
    output: dict[str, Any] = {}
    if inlined is not None:
        output = {"inlinedResponses": {"inlinedResponses": inlined}}
    elif "output" in batch.facts.results:
        output = {"responsesFile": f"files/{batch.facts.results['output']}"}
    name = f"batches/{batch.id}"
    metadata = {
        "@type": _TYPE,
        "name": name,
        "model": batch.given["model"],
        "displayName": batch.given["display_name"],
        "inputConfig": {"fileName": f"files/{batch.given['input_file_id']}"} if batch.given["input_file_id"] else {},
        "state": f"BATCH_STATE_{_STATES[batch.state]}",
        "batchStats": {
            "requestCount": str(total), "successfulRequestCount": str(done), "failedRequestCount": str(failed),
            "pendingRequestCount": str(max(0, total - done - failed)),
        },
        **_times(batch),
        **({"output": output} if output else {}),
    }  # fmt: skip
    made: dict[str, Any] = {"name": name, "metadata": metadata, "done": batch.ended}
    if batch.ended:
        made |= _error(batch) or {"response": {"@type": f"{_TYPE}.Output", **output}}
    return made


def file_object(file: StoredFile) -> dict[str, Any]:
    """A file of the Gemini API."""
    made = {
        "name": f"files/{file.id}",
        "displayName": file.filename,
        "mimeType": "application/jsonl",
        "sizeBytes": str(file.bytes),
        "createTime": time_text(file.created),
        "updateTime": time_text(file.created),
        "state": "ACTIVE",
        "source": "GENERATED" if file.purpose == "batch_output" else "UPLOADED",
    }
    return made if file.expires is None else {**made, "expirationTime": time_text(file.expires)}


def time_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _times(batch: Batch) -> dict[str, str]:
    times = batch.facts.times
    started = times.get("in_progress")
    ended = next((times[state] for state in _ENDED if state in times), None)
    made = {"createTime": batch.created, "startTime": started, "endTime": ended}
    made["updateTime"] = max([batch.created, *times.values()])
    return {name: time_text(seconds) for name, seconds in made.items() if seconds is not None}


def _counts(batch: Batch, snapshot: Snapshot | None) -> tuple[int, int]:
    """(answers, errors) so far."""
    facts = batch.facts
    if batch.ended or snapshot is None:
        return facts.done, facts.failed
    done = sum(snapshot.by_status.get(status, 0) for status in _DONE)
    return done, sum(snapshot.by_status.values()) - done


def _error(batch: Batch) -> Mapping[str, Any]:
    """Why a batch did not come to its end."""
    if batch.state not in ("failed", "expired", "cancelled"):
        return {}
    codes = {"failed": 3, "expired": 4, "cancelled": 1}
    said = "; ".join(str(error.get("message", "")) for error in batch.facts.errors[:20])
    return {"error": {"code": codes[batch.state], "message": said or f"the batch is {batch.state}"}}


__all__ = ["error_object", "file_object", "job_object", "operation", "time_text"]
