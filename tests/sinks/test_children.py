from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmbatch.core.types import Failure, FailureKind, Record, Status
from llmbatch.sinks.base import Finished, SinkSettings, write_sinks

Seal = Callable[..., Finished]


def child(item: Any, **other: Any) -> dict[str, Any]:
    return {
        "item": item,
        "status": "ok",
        "output": f"on {item}",
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        **other,
    }


def test_a_line_for_each_child_in_the_order_of_the_rows_and_what_became_of_them_is_counted(
    tmp_path: Path, seal: Seal
) -> None:
    error = {"kind": "empty", "message": "the answer is empty"}
    bad = child("b", status="invalid", output=None, error=error)
    records = [
        Record(0, "x", Status.OK, {"children": 2, "ok": 1, "repeated": 1}, details={"children": [child("a"), bad]}),
        Record(1, "y", Status.INVALID, None, failure=Failure(FailureKind.EMPTY, "the answer is empty")),
        Record(
            2, 7, Status.OK, {"children": 1, "ok": 1, "left_out": 4}, details={"children": [child({"q": 1}, steps=[])]}
        ),
    ]
    counted: dict[str, Any] = {}
    written = write_sinks(SinkSettings(), seal(records, 2, sinks=("children",), counted=counted.__setitem__), tmp_path)
    assert [path.name for path in written] == ["errors.jsonl", "results.jsonl", "children.jsonl"]
    lines = [json.loads(line) for line in (tmp_path / "children.jsonl").read_text().splitlines()]
    assert [(line["id"], line["index"], line["parent"], line["parent_index"], line["number"]) for line in lines] == [
        ("x/0", 0, "x", 0, 0),
        ("x/1", 1, "x", 0, 1),
        ("7/0", 2, 7, 2, 0),
    ]
    assert lines[1]["error"] == error and (lines[1]["status"], lines[1]["output"]) == ("invalid", None)
    assert (lines[2]["item"], lines[2]["steps"], lines[2]["usage"]["prompt_tokens"]) == ({"q": 1}, [], 3)
    assert list(lines[0])[:4] == ["id", "index", "status", "output"], "as a record begins"
    assert counted == {"children": {"ok": 2, "invalid": 1, "repeated": 1, "left_out": 4}}


def test_children_are_written_in_constant_memory(tmp_path: Path, seal: Seal) -> None:
    records = [
        Record(n, n, Status.OK, {"children": 100, "ok": 100}, details={"children": [child("x" * 200)] * 100})
        for n in range(300)
    ]
    finished = seal(records, 300, sinks=("children",))
    del records
    tracemalloc.start()
    write_sinks(SinkSettings(), finished, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "children.jsonl").stat().st_size > 10_000_000
    assert peak < 6_000_000


def test_other_programs_have_no_children(tmp_path: Path, seal: Seal) -> None:
    write_sinks(SinkSettings(), seal([Record(0, "x", Status.OK, "a")], 1), tmp_path)
    assert not (tmp_path / "children.jsonl").exists()
