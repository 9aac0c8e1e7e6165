from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llmbatch.core.record import record_to_line
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Status, Usage

TOO_LONG = Failure(FailureKind.TOO_LONG, "the prompt has 9,000 tokens, the context 4,096: shorten “text”")
SCHEMA = Failure(FailureKind.SCHEMA, "'age' is a required property")

RECORDS = (
    Record(0, "a", Status.OK, "Hello, “world” 😀\n", "stop", 1, Usage(10, 5, 4), input={"text": "héllo"}),
    Record(1, 1, Status.FAILED, failure=TOO_LONG),
    Record(2, 'tricky","status":"ok"', Status.INVALID, None, "stop", 2, Usage(20, 10, 8), Usage(20, 10, 8), SCHEMA, "{}",
           history=(Attempt(RequestKey(2), SCHEMA, Usage(10, 5, 4), "{}", "stop"),)),
    Record(3, "status", Status.OK, {"status": "failed", "n": [1, None, 2.5]}, "stop", 1, Usage(1, 2, 0), reasoning="hm",
           logprobs=[{"token": "x", "logprob": -0.5, "top": [{"token": "x", "logprob": -0.5}, {"token": "y", "logprob": -1.0}]}]),
    Record(4, 10**30, Status.OK, ["one", {"n": 2}], "length", 1, Usage(1, 2, 0)),
)  # fmt: skip


@pytest.fixture
def records() -> tuple[Record, ...]:
    """Records of every kind: with and without an answer, with texts that look like other records' statuses."""
    return RECORDS


@pytest.fixture
def seal(tmp_path: Path) -> Callable[[Sequence[Record], int], list[Path]]:
    """Write records as sealed parts of so many lines each, below the test's folder."""

    def seal(records: Sequence[Record], rows: int) -> list[Path]:
        folder = tmp_path / "parts"
        folder.mkdir(exist_ok=True)
        parts = []
        for start in range(0, len(records), rows):
            part = folder / f"part-{start // rows:05d}.jsonl"
            part.write_bytes(b"".join(map(record_to_line, records[start : start + rows])))
            parts.append(part)
        return parts

    return seal
