"""A row with what became of it in; its line of a batch's output file, or of its error file, out, as OpenAI's Batch API has them.

Only what was answered (status 200) stands in the output file. A line depends on the row, its record and the run's beginning alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from llmbatch.core.types import FailureKind
from llmbatch.formats.base import Answered
from llmbatch.formats.openai.body import RequestError
from llmbatch.formats.openai.format import answer, read_line
from llmbatch.formats.outcome import Error, Success, outcome_of

NotRun = Literal["batch_expired", "batch_cancelled"]
_NOT_RUN: Mapping[NotRun, str] = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request was not executed, as the batch was cancelled before.",
}
_CODES: Mapping[str, str] = {FailureKind.TOO_LONG: "context_length_exceeded"}  # that OpenAI has a word for


class Line(NamedTuple):
    """A line, and whether it belongs to the output file."""

    ok: bool
    data: dict[str, Any]


def line_of(answered: Answered, *, strict: bool = False) -> Line:
    """The line of a row. ``strict``: an answer that did not pass the check which its request asks for is an error."""
    record = answered.record
    outcome = outcome_of(record, answered.asked, strict=strict)
    status = 200 if isinstance(outcome, Success) else outcome.code.http
    said = answer(answered, outcome) if isinstance(outcome, Success) else {"error": _error(answered, outcome)}
    number = f"{answered.created:x}{record['index']:010x}"
    response = {"status_code": status, "request_id": f"req_{number}", "body": said}
    data = {"id": f"batch_req_{number}", "custom_id": str(record["id"]), "response": response, "error": None}
    return Line(status == 200, data)


def line_not_run(index: int, custom_id: str | int, created: int, code: NotRun) -> dict[str, Any]:
    """The line of the error file for a row that nobody got to."""
    error = {"code": code, "message": _NOT_RUN[code]}
    return {"id": f"batch_req_{created:x}{index:010x}", "custom_id": str(custom_id), "response": None, "error": error}


def _error(answered: Answered, error: Error) -> dict[str, Any]:
    said = error.code.openai if error.code.http != 422 else "invalid_request_error"
    param = _param(answered.row) if error.kind == FailureKind.PROMPT else None
    return {"message": error.message, "type": said, "param": param, "code": _CODES.get(error.kind, error.kind)}


def _param(row: Mapping[str, Any]) -> str | None:
    """The key of a request that cannot be done."""
    try:
        read_line(row, ())
    except RequestError as error:
        return error.param
    return None


__all__ = ["Line", "NotRun", "line_not_run", "line_of"]
