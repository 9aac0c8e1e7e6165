from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from llmbatch.core.events import Event, Note, Replica, Snapshot
from llmbatch.core.ledger import WorstFailure
from llmbatch.core.types import Usage
from llmbatch.report.report import Report
from llmbatch.watch.jsonl import JsonLog, event_to_dict, watch_jsonl


def test_every_event_is_a_line_of_json_with_its_name_and_its_fields(events: list[Event], report: Report) -> None:
    stream = io.StringIO()
    log = JsonLog(stream)
    for event in events:
        log(event)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        "started",
        "engine_ready",
        "planned",
        "snapshot",
        "note",
        "sealed",
        "finished",
    ]
    assert all(isinstance(line["time"], float) for line in lines)
    assert lines[0]["folder"] == "out/my run"
    assert lines[3]["by_status"] == {"ok": 1180, "invalid": 12, "failed": 12}
    assert lines[3]["usage"] == {"prompt_tokens": 10_000, "completion_tokens": 2_000, "cached_tokens": 7_000}
    assert lines[6]["report"] == report


def test_the_engines_of_a_snapshot_are_plain_data(snapshot: Snapshot) -> None:
    told = event_to_dict(replace(snapshot, replicas=(Replica(0, "up", 2.0, 1.0, Usage(3, 2, 1), 0),)))
    assert json.loads(json.dumps(told))["replicas"] == [
        {
            "number": 0, "state": "up", "ready_seconds": 2.0, "busy_seconds": 1.0,
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1}, "deaths": 0,
        }
    ]  # fmt: skip


def test_the_worst_failure_of_a_snapshot_is_plain_data(snapshot: Snapshot) -> None:
    told = event_to_dict(replace(snapshot, worst=WorstFailure("schema", 12, "c", "'age' is missing")))
    assert told["worst"] == {"kind": "schema", "rows": 12, "id": "c", "message": "'age' is missing"}


def test_what_is_printed_while_events_go_to_stdout_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with watch_jsonl() as watcher:
        print("a library's word")
        watcher(Note("info", "an event"))
    out, err = capfd.readouterr()
    assert [json.loads(line)["message"] for line in out.splitlines()] == ["an event"]
    assert err == "a library's word\n"
