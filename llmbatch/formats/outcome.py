"""A record in; what the systems call it, a success with its answer or an error with its codes, out: the same rule for all of them.

The codes are ours: of the originals only a few are documented.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmbatch.core.fast_dataclass import fast_dataclass
from llmbatch.core.types import FailureKind
from llmbatch.formats.base import HowAsked


class Code(NamedTuple):
    """What an error is called: by HTTP, by OpenAI (its type), and by Google (a code of google.rpc)."""

    http: int
    openai: str
    rpc: int
    rpc_name: str


_BAD_REQUEST = Code(400, "invalid_request_error", 3, "INVALID_ARGUMENT")
_ENGINE = Code(500, "server_error", 13, "INTERNAL")
_CODES = {
    FailureKind.MALFORMED_ROW: _BAD_REQUEST,
    FailureKind.PROMPT: _BAD_REQUEST,
    FailureKind.EMPTY_PROMPT: _BAD_REQUEST,
    FailureKind.IMAGE: _BAD_REQUEST,
    FailureKind.TOO_LONG: _BAD_REQUEST,
    FailureKind.REFUSED: _BAD_REQUEST,
    FailureKind.ENGINE: _ENGINE,
    FailureKind.NOT_FINITE: _ENGINE,
    FailureKind.ENGINE_DIED: Code(503, "server_error", 14, "UNAVAILABLE"),
}
EXPIRED = Code(408, "batch_expired", 4, "DEADLINE_EXCEEDED")
CANCELLED = Code(499, "batch_cancelled", 1, "CANCELLED")
"""What rows are called that were never run, as the time was over or somebody stopped the job."""

NOT_RUN = {"expired": EXPIRED, "cancelled": CANCELLED}
"""By the kind of error that such rows are given where a job ends without them."""

_CHECKED = frozenset(
    {
        FailureKind.INVALID_JSON,
        FailureKind.SCHEMA,
        FailureKind.CHOICE,
        FailureKind.REGEX,
        FailureKind.GRAMMAR,
    }
)
"""What a check says that a request itself may ask for."""

_AS_IT_CAME = frozenset({FailureKind.TRUNCATED, FailureKind.EMPTY})
"""What is a success wherever nobody asked for a check."""


def code_of(kind: str) -> Code:
    """What a failure of this kind is called; an answer that did not pass a check is a failed precondition."""
    if kind in NOT_RUN:
        return NOT_RUN[kind]
    return _CODES.get(FailureKind(kind), Code(422, kind, 9, "FAILED_PRECONDITION"))


@fast_dataclass(frozen=True, slots=True)
class Success:
    """``output`` is as a record has it: text, a JSON value, numbers, or a list where several answers were asked for."""

    output: Any
    finish_reason: str | None

    @property
    def text(self) -> str:
        """The answer as text: JSON where it is another value."""
        return self.output if isinstance(self.output, str) else json.dumps(self.output, ensure_ascii=False)


@fast_dataclass(frozen=True, slots=True)
class Error:
    kind: str
    message: str

    @property
    def code(self) -> Code:
        return code_of(self.kind)


def outcome_of(record: Mapping[str, Any], asked: HowAsked, *, strict: bool = False) -> Success | Error:
    """What became of a row.

    Where the row itself asked for a check, an answer that did not pass it is a success with the text as it came, as the systems
    have it, unless ``strict``; and so are one that was cut off, whose finish reason says so, and one that is empty. What only the
    job checks is an error: where it checks at all, an answer that was cut off or is empty, too.

    How the row was asked is looked at only where there is a text that did not do.
    """
    if record["status"] == "ok":
        return Success(record["output"], record["finish_reason"])
    error = record.get("error") or {"kind": record["status"], "message": ""}
    kind, raw = error["kind"], record.get("raw")
    if raw is not None and not strict and _is_told(kind, asked):
        if not isinstance(record["output"], list) or asked.samples == 1:
            return Success(raw, record["finish_reason"])
        if None not in (answers := _as_they_came(record, raw)):
            return Success(answers, record["finish_reason"])
    return Error(kind, error["message"])


def plain_text(record: Mapping[str, Any]) -> str | None:
    """The text of a row that was answered with one and nothing more, as nearly all of a batch are; ``None`` for any other.

    Such a record has no reasoning, log-probabilities, stop sequence or attempts that failed, and how its row was asked is of no
    account.
    """
    output = record["output"]
    return output if len(record) == _PLAIN and output.__class__ is str and record["status"] == "ok" else None


_PLAIN = 7  # keys of a record that has only what all have


def _is_told(kind: str, asked: HowAsked) -> bool:
    return asked.own_check if kind in _CHECKED else kind in _AS_IT_CAME and (asked.own_check or not asked.job_check)


def _as_they_came(record: Mapping[str, Any], raw: str | None) -> list[Any]:
    """The several answers of a record, those that a check refused as their texts; ``None`` for one without text.

    ``raw`` is that of the first that was refused, those of others are in the record's history.
    """
    last = {attempt["sample"]: attempt.get("text") for attempt in record.get("history", ())}
    found = list(record["output"])
    for sample, output in enumerate(found):
        if output is None:
            found[sample], raw = (last.get(sample) if raw is None else raw), None
    return found
