from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.record import record_to_line
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Status, Usage
from llmbatch.formats.base import Asked
from llmbatch.sinks.base import Finished
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.opening import open_source

TOO_LONG = Failure(FailureKind.TOO_LONG, "the prompt has 9,000 tokens, the context 4,096: shorten “text”")
SCHEMA = Failure(FailureKind.SCHEMA, "'age' is a required property")

RECORDS = (
    Record(0, "a", Status.OK, "Hello, “world” 😀\n", "stop", 1, Usage(10, 5, 4), input={"text": "héllo"}),
    Record(1, 1, Status.FAILED, failure=TOO_LONG),
    Record(2, 'tricky","status":"ok"', Status.INVALID, None, "stop", 2, Usage(20, 10, 8), Usage(20, 10, 8), SCHEMA, "{}",
           history=(Attempt(RequestKey(2), SCHEMA, Usage(10, 5, 4), "{}", "stop"),)),
    Record(3, "status", Status.OK, {"status": "failed", "n": [1, None, 2.5]}, "stop", 1, Usage(1, 2, 0), reasoning="hm",
           logprobs=[{"token": "x", "logprob": -0.5, "top": [{"token": "x", "logprob": -0.5}, {"token": "y", "logprob": -1.0}]}]),
    Record(4, 10**30, Status.OK, ["one", {"n": 2}], "length", 1, Usage(1, 2, 0), details={"steps": [{"step": "a", "output": "ö"}]}),
)  # fmt: skip


@pytest.fixture
def records() -> tuple[Record, ...]:
    """Records of every kind: with and without an answer, with texts that look like other records' statuses."""
    return RECORDS


@pytest.fixture
def finished(tmp_path: Path) -> Callable[..., Finished]:
    """A run of these parts, over an input of rows with these ids; ``facts`` are other fields of ``Finished``."""

    def finished(parts: Sequence[Path], records: Sequence[Record] = (), **facts: Any) -> Finished:
        path = tmp_path.parent / f"{tmp_path.name}.jsonl"
        path.write_text("".join(json.dumps({"id": record.id}) + "\n" for record in records), encoding="utf-8")
        source = partial(open_source, SourceSettings(path=str(path)))
        return Finished(parts, source, **{"asked": lambda row: Asked(), **facts})

    return finished


@pytest.fixture
def seal(tmp_path: Path, finished: Callable[..., Finished]) -> Callable[..., Finished]:
    """A run whose records are sealed in parts of so many lines each, below the test's folder."""

    def seal(records: Sequence[Record], rows: int, **facts: Any) -> Finished:
        folder = tmp_path / "parts"
        folder.mkdir(exist_ok=True)
        parts = []
        for start in range(0, len(records), rows):
            part = folder / f"part-{start // rows:05d}.jsonl"
            part.write_bytes(b"".join(map(record_to_line, records[start : start + rows])))
            parts.append(part)
        return finished(parts, records, **facts)

    return seal
