"""A server that is killed at every point of a batch's life: started again, it loses nothing and doubles nothing."""

from __future__ import annotations

import errno
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from llmbatch.audit.audit import audit
from llmbatch.core.errors import Locked, WriteError
from llmbatch.server.running import open_server
from llmbatch.server.server import Server
from llmbatch.server.store import ENDED, Batch, Store, StoredFile, new_id

ROWS = 30
WINDOW = {"run": {"window": 8, "grace": 0.1}}
FAULTS = [
    "file-stored", "batch-folder-made", "batch-created", "batch-checked", "part-sealed:2", "results-written", "report-written",
    "batch-run", "temp-written/file-*", "batch-results-written",
]  # fmt: skip


def settings(sites, **given: Any):
    return sites.settings(
        {"latency": 0.01, "concurrency": 4, "rules": [{"when": {"contains": "7"}, "fail": "no"}]}, job=WINDOW, **given
    )


def upload(server: Server, content: bytes) -> StoredFile:
    file = StoredFile("file-input", "", "batch", "input.jsonl", len(content), int(time.time()))
    server.store.upload(file.id).write_bytes(content)
    server.store.keep(file)
    return file


def create(server: Server) -> Batch:
    given = {
        "endpoint": "/v1/chat/completions", "input_file_id": "file-input", "completion_window": "24h", "metadata": None,
        "expires_at": 0, "output_seconds": None,
    }  # fmt: skip
    batch = Batch("batch_one", "", "openai", int(time.time()), None, given)
    server.batches.add(batch, server.store.content("file-input"))
    return batch


def go_on(server: Server, content: bytes) -> Batch:
    """What a client does, whatever is there already; returns the batch once it is over."""
    if server.store.file("file-input", "") is None:
        upload(server, content)
    if server.store.batch("batch_one") is None:
        create(server)
    end = time.monotonic() + 60
    while not (batch := server.store.batch("batch_one")).ended:  # type: ignore[union-attr]
        assert time.monotonic() < end
        time.sleep(0.005)
    assert batch is not None
    return batch


def results(server: Server, batch: Batch) -> dict[str, list[dict[str, Any]]]:
    found = {role: server.store.content(file_id).read_bytes() for role, file_id in batch.facts.results.items()}
    return {role: [without_times(json.loads(line)) for line in content.splitlines()] for role, content in found.items()}


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    line["response"]["body"].pop("created", None)
    return line


def served(given, content: bytes) -> Batch:
    with open_server(given) as server:
        server.start()
        return go_on(server, content)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_killed_server_brings_the_batch_to_the_same_end(sites, lines, kill_at, fault: str) -> None:
    given, content = settings(sites), lines.many(ROWS)
    name = "output"
    point = fault.replace("file-*", _result_id(name))
    kill_at(point, lambda: served(given, content))
    with open_server(given) as server:
        server.start()
        batch = go_on(server, content)
        found = results(server, batch)
        seen = audit(server.store.run_folder(batch.id))
    assert batch.state == "completed"
    assert (seen.complete, seen.rows_done) == (True, ROWS), seen.checks
    assert lines.ids(found["output"]) == [f"row-{i}" for i in range(ROWS) if "7" not in str(i)]
    assert lines.ids(found["error"]) == [f"row-{i}" for i in range(ROWS) if "7" in str(i)]
    kept = {file.name for file in (given.data / "files").iterdir()}
    assert kept == {"file-input", *batch.facts.results.values()}
    assert list((given.data / "uploads").iterdir()) == []
    shutil.rmtree(given.data)
    with open_server(given) as server:
        server.start()
        assert results(server, go_on(server, content)) == found


def _result_id(role: str) -> str:
    from hashlib import sha256

    return f"file-{sha256(f'batch_one {role}'.encode()).hexdigest()[:24]}"


def test_a_server_that_is_stopped_goes_on_with_batches_in_every_state(
    sites, begin, ended, until, lines, moved, monkeypatch
) -> None:
    site = sites.start({"latency": 0.5, "concurrency": 2}, job=WINDOW, sessions=1)
    client, front = site.openai(), site.server.fronts["openai"]
    finish = front.finish

    def full(over: Any) -> Any:
        if over.batch.facts.rows == 4:
            raise WriteError("no space") from OSError(errno.ENOSPC, "no space")
        return finish(over)

    monkeypatch.setattr(front, "finish", full)
    batches = {"completed": begin(client, lines.many(1)), "failed": begin(client, b"{broken\n")}
    for batch in batches.values():
        ended(client, batch)
    moved.forward(hours=25)
    batches["expired"] = begin(client, lines.many(2))
    ended(client, batches["expired"])
    moved.forward(hours=-25)
    batches["finalizing"] = begin(client, lines.many(4))
    until(lambda: client.batches.retrieve(batches["finalizing"]).status, lambda state: state == "finalizing")
    batches["in_progress"] = begin(client, lines.many(200))
    until(lambda: client.batches.retrieve(batches["in_progress"]).request_counts.completed, bool)
    batches["cancelled"] = begin(client, lines.many(5))
    client.batches.cancel(batches["cancelled"])
    ended(client, batches["cancelled"])
    batches["validating"], batches["cancelling"] = begin(client, lines.many(3)), begin(client, lines.many(6))
    client.batches.cancel(batches["cancelling"])
    states = {name: client.batches.retrieve(batch).status for name, batch in batches.items()}
    before = {name: client.batches.retrieve(batch) for name, batch in batches.items() if states[name] in ENDED}
    site.stop()
    states.pop("cancelling")  # it may be over by now
    assert states == {name: name for name in states}
    client = sites.start({"concurrency": 2}, job=WINDOW).openai()
    ends = {name: ended(client, batch) for name, batch in batches.items()}
    assert {name: end.status for name, end in ends.items()} == {
        **dict.fromkeys(("completed", "finalizing", "in_progress", "validating"), "completed"),
        **{"failed": "failed", "expired": "expired", "cancelled": "cancelled", "cancelling": "cancelled"},
    }
    assert {name: ends[name] for name in before} == before  # what was over stays as it was
    for name, rows in (("in_progress", 200), ("finalizing", 4), ("validating", 3)):
        assert lines.ids(lines.of(client, ends[name].output_file_id)) == [f"row-{i}" for i in range(rows)]
        assert audit(site.server.store.run_folder(batches[name])).complete


def test_a_row_that_is_done_is_not_run_again_after_a_kill(sites, lines, kill_at) -> None:
    given, content = settings(sites), lines.many(ROWS)
    kill_at("part-sealed:2", lambda: served(given, content))
    with open_server(given) as server:
        parts = server.store.run_folder("batch_one") / "parts"
        before = {path.name: path.stat().st_ino for path in parts.glob("*.jsonl")}
        server.start()
        go_on(server, content)
        after = {path.name: path.stat().st_ino for path in parts.glob("*.jsonl")}
    assert before
    assert before.items() <= after.items()


def test_one_server_has_a_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(Locked):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_new_ids_differ() -> None:
    assert len({new_id("file-") for _ in range(100)}) == 100
