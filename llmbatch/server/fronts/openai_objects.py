"""Our files, batches and errors in; the objects of OpenAI's API that say the same, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmbatch.core.events import Snapshot
from llmbatch.core.types import Status
from llmbatch.server.errors import ApiError
from llmbatch.server.store import Batch, StoredFile

_TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
_DONE = (Status.OK, Status.TRUNCATED)  # while it runs: what most likely comes to be a line of answers


def file_object(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "expires_at": file.expires,
        "status_details": None,
    }


def batch_object(batch: Batch, snapshot: Snapshot | None) -> dict[str, Any]:
    """``snapshot`` is where it stands, while it runs."""
    facts, given = batch.facts, batch.given
    errors = {"object": "list", "data": facts.errors} if facts.errors else None
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": given["endpoint"],
        "model": facts.model,
        "errors": errors,
        "input_file_id": given["input_file_id"],
        "completion_window": given["completion_window"],
        "status": batch.state,
        "output_file_id": facts.results.get("output"),
        "error_file_id": facts.results.get("error"),
        "created_at": batch.created,
        "expires_at": given["expires_at"],
        **{f"{state}_at": facts.times.get(state) for state in _TIMES},
        "request_counts": _counts(batch, snapshot),
        "usage": None if facts.usage is None else usage_object(facts.usage),
        "metadata": given["metadata"],
    }


def usage_object(usage: Mapping[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": usage["input"],
        "input_tokens_details": {"cached_tokens": usage["cached"]},
        "output_tokens": usage["output"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["input"] + usage["output"],
    }


def page(objects: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page of a list; one object more than ``limit`` says that there is a next page."""
    shown = objects[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(objects) > limit,
    }


def deleted(file_id: str) -> dict[str, Any]:
    return {"id": file_id, "object": "file", "deleted": True}


def model_object(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "llmbatch"}


def error_object(error: ApiError) -> dict[str, Any]:
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    kind = error.code if error.code == "insufficient_quota" else kind
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def _counts(batch: Batch, snapshot: Snapshot | None) -> dict[str, int]:
    facts = batch.facts
    if batch.ended or snapshot is None:
        return {"total": facts.rows, "completed": facts.done, "failed": facts.failed}
    done = sum(snapshot.by_status.get(status, 0) for status in _DONE)
    return {"total": facts.rows, "completed": done, "failed": sum(snapshot.by_status.values()) - done}


__all__ = ["batch_object", "deleted", "error_object", "file_object", "model_object", "page", "usage_object"]
