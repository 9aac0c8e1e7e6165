"""An open window's finished rows and answers in, the lines of its journal out, and back; a torn last line ends what is read."""

from __future__ import annotations

import json
from array import array
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError
from llmbatch.core.ledger import Ledger
from llmbatch.core.record import record_from_dict
from llmbatch.core.types import (
    Completion,
    Failure,
    FailureKind,
    Outcome,
    Record,
    Refusal,
    RequestKey,
    Reused,
    Score,
    Usage,
)
from llmbatch.folder.bounds import Bounds, bounds_from_dict

JOURNAL_VERSION = 1

_RECORD, _REUSED, _TAIL = b'"record":', b'{"reused":{', b"}\n"


@dataclass(slots=True)
class Replay:
    """What the journal of an open window holds: finished rows' lines and, of unfinished rows, the outcomes so far."""

    bounds: Bounds
    input_sha256: str | None = None
    lines: dict[int, bytes] = field(default_factory=dict)  # row index -> line of results.jsonl
    reused: dict[int, Reused] = field(default_factory=dict)  # row index -> the part of its usage not computed for it
    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)

    def record(self, index: int) -> Record | None:
        """The record of a row; ``None`` where there is none, or what is there is not one: then the row is owed again."""
        line = self.lines.get(index)
        try:
            return None if line is None else record_from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError):
            return None

    def ledger(self) -> Ledger:
        """The account of the rows that have a record."""
        ledger = Ledger()
        for index in self.lines:
            if (record := self.record(index)) is not None:
                ledger.add(record, self.reused.get(index))
        return ledger


def record_entry(line: bytes, reused: Reused | None = None) -> bytes:
    """The journal entry of a finished row; ``line`` is its line of results.jsonl, kept byte for byte."""
    if reused is None:
        return b"{" + _RECORD + line[:-1] + _TAIL
    body = json.dumps({**reused.usage.as_dict(), "cached": reused.cached}).encode()
    return b'{"reused":' + body + b"," + _RECORD + line[:-1] + _TAIL


def outcome_entry(outcome: Outcome) -> bytes:
    """The journal entry of an outcome after which its row is not finished."""
    if isinstance(outcome, Refusal):
        body: dict[str, Any] = {"kind": outcome.failure.kind.value, "message": outcome.failure.message}
    else:
        body = {
            "text": outcome.text,
            "finish_reason": outcome.finish_reason,
            "usage": outcome.usage.as_dict(),
            "token_ids": list(outcome.token_ids),
            "reasoning": outcome.reasoning,
            "stop_reason": outcome.stop_reason,
            "logprobs": outcome.logprobs,
        }
        if outcome.reused_from is not None:
            body["reused_from"] = outcome.reused_from
        if outcome.score is not None:
            body["score"] = list(outcome.score)
        if outcome.numbers is not None:  # as bytes, as there may be NaN among them
            body["numbers"] = b64encode(outcome.numbers.tobytes()).decode()
        if outcome.tool_calls is not None:
            body["tool_calls"] = outcome.tool_calls
    return json.dumps({"outcome": {"key": outcome.key[:4], **body}}, separators=(",", ":")).encode() + b"\n"


def read_journal(path: Path) -> tuple[Replay | None, int]:
    """(what a journal holds, how many of its bytes are whole entries). The first entry that is not whole ends it.

    ``None`` where not even the header is whole. Raises ``FolderError`` for a journal of a newer version.
    """
    with path.open("rb") as file:
        header = _parse(file.readline())
        if header is None:
            return None, 0
        try:
            if header["llmbatch_journal"] > JOURNAL_VERSION:
                raise FolderError(
                    f"{path}: written by a newer llmbatch (journal version {header['llmbatch_journal']}); upgrade llmbatch to go on"
                )
            replay = Replay(bounds_from_dict(header), header["input_sha256"])
        except (KeyError, TypeError, ValueError):
            return None, 0
        good = file.tell()
        for line in file:
            if not _replay(line, replay):
                break
            good += len(line)
    return replay, good


def _replay(line: bytes, replay: Replay) -> bool:
    """Take one entry in; ``False`` where it is not whole."""
    entry = _parse(line)
    if entry is None:
        return False
    try:
        if "record" in entry:
            index = int(entry["record"]["index"])
            if not line.startswith((b"{" + _RECORD, _REUSED)):
                return False
            if "reused" in entry:
                replay.reused[index] = _reused(entry["reused"])
            replay.lines[index] = line[line.index(_RECORD) + len(_RECORD) : -len(_TAIL)] + b"\n"
            replay.outcomes.pop(index, None)
        else:
            outcome = _outcome(entry["outcome"])
            replay.outcomes.setdefault(outcome.key.index, []).append(outcome)
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _outcome(body: dict[str, Any]) -> Outcome:
    key = RequestKey(*body["key"])
    if "kind" in body:
        return Refusal(key, Failure(FailureKind(body["kind"]), body["message"]))
    return Completion(
        key,
        body["text"],
        body["finish_reason"],
        Usage(**body["usage"]),
        tuple(body["token_ids"]),
        body["reasoning"],
        body["stop_reason"],
        body["logprobs"],
        body.get("reused_from"),
        Score(*body["score"]) if "score" in body else None,
        array("f", b64decode(body["numbers"], validate=True)) if "numbers" in body else None,
        body.get("tool_calls"),
    )


def _reused(body: dict[str, Any]) -> Reused:
    cached = body.pop("cached")
    return Reused(Usage(**body), bool(cached))
