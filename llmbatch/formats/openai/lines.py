"""A row with what became of it in; its line of a batch's output file, or of its error file, out, as OpenAI's Batch API has them.

Only what was answered (status 200) stands in the output file. A line depends on the row, its record and the run's beginning alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from llmbatch.core.quick_json import Form, hole, text_json, value_json
from llmbatch.core.types import FailureKind
from llmbatch.formats.base import Answered
from llmbatch.formats.openai import chat, completions, responses
from llmbatch.formats.openai.body import RequestError
from llmbatch.formats.openai.format import CHAT, COMPLETIONS, RESPONSES, answer, endpoint_of, read_line
from llmbatch.formats.openai.responses import asked_of
from llmbatch.formats.outcome import Error, Success, outcome_of, plain_text

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
    number = _number(answered.created, record["index"])
    return Line(status == 200, _line(number, str(record["id"]), status, said))


def _number(created: int, index: int) -> str:
    return f"{created:x}{index:010x}"


def _line(number: str, custom_id: str, status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    response = {"status_code": status, "request_id": f"req_{number}", "body": body}
    return {"id": f"batch_req_{number}", "custom_id": custom_id, "response": response, "error": None}


class PlainLines:
    """The lines of rows that are answered with one text and nothing more, as bytes: as ``line_of`` and ``json_line`` make them.

    ``created`` is in Unix seconds.
    """

    def __init__(self, model: str, created: int) -> None:
        self._created = created
        known = {"created": str(created), "model": text_json(model)}
        self._forms = {
            endpoint: [
                Form(_line(hole("number"), hole("id"), 200, form(cut=cut)), known={**known, "reason": f'"{reason}"'})
                for cut, reason in ((False, "stop"), (True, "length"))
            ]
            for endpoint, form in _PLAIN.items()
        }

    def line(self, record: Mapping[str, Any], row: Mapping[str, Any]) -> bytes | None:
        """The line of a row's record, or ``None`` where it is another kind of row, for ``line_of``."""
        text = plain_text(record)
        if text is None:
            return None
        endpoint, body = endpoint_of(row.get("url")), row.get("body")
        if endpoint not in _PLAIN or body.__class__ is not dict or body.get("echo"):
            return None
        usage, index = record["usage"], record["index"]
        asked, given = usage["prompt_tokens"], usage["completion_tokens"]
        texts: dict[str, str | int] = {
            "number": _number(self._created, index),
            "id": text_json(str(record["id"])),
            "index": index,
            "text": text_json(text),
            "asked": asked,
            "given": given,
            "together": asked + given,
        }
        if endpoint == RESPONSES:
            texts["cached"] = usage["cached_tokens"]
            texts.update(_NOTHING_ASKED)
            if names := _NOTHING_ASKED.keys() & body.keys():
                told = asked_of(body)
                texts.update((name, value_json(told[name])) for name in names)
        cut: bool = record["finish_reason"] == "length"
        return self._forms[endpoint][cut].line(texts)


_PLAIN = {CHAT: chat.plain, COMPLETIONS: completions.plain, RESPONSES: responses.plain}
_NOTHING_ASKED = {name: value_json(value) for name, value in asked_of({}).items()}
"""What a response says of a request that says nothing of it: few say more than one of these."""


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


__all__ = ["Line", "NotRun", "PlainLines", "line_not_run", "line_of"]
