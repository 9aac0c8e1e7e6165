"""One small run as its events and its report, for the tests of all that shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbatch.core.events import EngineReady, Event, Finished, Note, Planned, Sealed, Snapshot, Started
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Reused, Status, Usage
from llmbatch.report import Facts, Report, Session, build_report


def make_snapshot(**changes: object) -> Snapshot:
    fields: dict[str, object] = {
        "elapsed": 74.0,
        "rows": 1204,
        "rows_total": 10_000,
        "by_status": {"ok": 1180, "invalid": 12, "failed": 12},
        "by_failure": {"schema": 12, "malformed_row": 12},
        "attempts_retried": 40,
        "usage": Usage(10_000, 2_000, 7_000),
        "rows_per_s": 12.3,
        "prompt_tokens_per_s": 12_345.0,
        "completion_tokens_per_s": 3_210.0,
        "in_flight": 256,
        "waiting": 3_100,
        "windows_open": 3,
        "idle_share": 0.004,
        "seconds_left": 2_520.0,
    }
    return Snapshot(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def snapshot() -> Snapshot:
    return make_snapshot()


@pytest.fixture
def ledger() -> Ledger:
    """Four rows: two ok, of which one is a duplicate; one invalid after two answers; one that could not be read."""
    ledger = Ledger()
    ledger.add(Record(0, "a", Status.OK, "x", attempts=1, usage=Usage(100, 10, 50)))
    ledger.add(Record(1, "b", Status.OK, "x", attempts=1, usage=Usage(100, 10, 50)), Reused(Usage(100, 10, 50)))
    wrong = Failure(FailureKind.SCHEMA, "'age' is missing [bold]\x1b[31m")
    back = Attempt(RequestKey(2), wrong, Usage(80, 20, 0), text="{}")
    usage = Usage(160, 40, 0)
    ledger.add(
        Record(2, "c", Status.INVALID, attempts=2, usage=usage, wasted=back.usage, failure=wrong, history=(back,))
    )
    ledger.add(Record(3, 3, Status.FAILED, failure=Failure(FailureKind.MALFORMED_ROW, "rows.jsonl:4: not JSON")))
    return ledger


@pytest.fixture
def session(ledger: Ledger) -> Session:
    return Session(1, "2025-01-01T00:00:00+00:00", "finished", 30.0, 10.0, 4, ledger.computed, busy_seconds=15.0)


@pytest.fixture
def facts() -> Facts:
    return Facts(
        folder="out/my run",
        job={"digest": "d1", "model": "m", "prompt": "p"},
        input={"path": "rows.jsonl"},
        versions={"llmbatch": "0.1.0"},
        engine={"name": "vllm", "version": "0.32", "model": "m", "device": "cpu"},
        rows_total=4,
        outputs=["results.jsonl"],
    )


@pytest.fixture
def report(ledger: Ledger, session: Session, facts: Facts) -> Report:
    return build_report(ledger, session, facts)


@pytest.fixture
def events(snapshot: Snapshot, report: Report) -> list[Event]:
    """One event of each kind, in the order of a run."""
    return [
        Started(Path("out/my run"), rows_done=0, session=1),
        EngineReady(10.0, "vllm 0.32 on cpu"),
        Planned(0, 4, 1, 280, ("43% of the prompt tokens will come from the cache",)),
        snapshot,
        Note("warning", "the engine died [once]\x1b[31m"),
        Sealed(0, 4),
        Finished("finished", report),
    ]
