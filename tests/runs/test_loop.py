from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbatch.core.events import Event, Planned, Snapshot
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.parts import Parts
from llmbatch.runs.session import open_session


class SlowDisk(Parts):
    """Seals nothing before it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.free = threading.Event()

    def seal(self, bounds: Bounds, lines: Any, *, ledger: Mapping[str, Any], input_sha256: str | None) -> None:
        self.free.wait()
        super().seal(bounds, lines, ledger=ledger, input_sha256=input_sha256)


def test_a_slow_disk_does_not_stop_the_engine_until_as_many_windows_wait_for_it_as_may_be_open(jobs: Any) -> None:
    rows = jobs.rows([{"text": f"text {i}"} for i in range(200)])
    job = jobs.job(rows, run={"window": 10, "windows_open": 2})
    done: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Snapshot) and not disk.free.is_set():
            done.append(event.rows)
            if len(done) > 3 and done[-3] == done[-1] > 0:
                disk.free.set()

    with open_session(job, [watch]) as session:
        disk = session._folder.parts = SlowDisk(session._folder.parts.folder)
        for _ in session.windows():
            pass
    assert 20 <= max(done) <= 40
    assert len(jobs.records()) == 200


def test_rows_total_is_estimated_until_the_input_is_read_to_its_end_and_exact_then(jobs: Any) -> None:
    rows = jobs.rows([{"text": f"text {i % 10}"} for i in range(400)])
    jobs.run(
        jobs.job(rows, {"latency": 0.05, "concurrency": 8}, run={"window": 20, "windows_open": 2}, plan={"fold": False})
    )
    totals = [event.rows_total for event in jobs.events if isinstance(event, Snapshot) and event.rows_total is not None]
    assert totals[-1] == 400
    assert all(300 < total < 500 for total in totals)


def test_the_time_left_is_told_while_there_is_work_and_is_nothing_at_the_end(jobs: Any) -> None:
    jobs.run(jobs.job(jobs.rows([{"text": f"text {i}"} for i in range(60)]), {"latency": 0.2, "concurrency": 6}))
    left = [event.seconds_left for event in jobs.events if isinstance(event, Snapshot)]
    assert any(seconds is not None and seconds > 0 for seconds in left)
    assert left[-1] == 0


def test_each_window_is_told_when_it_is_planned(jobs: Any) -> None:
    jobs.run(jobs.job(jobs.rows([{"text": f"text {i % 5}"} for i in range(20)]), run={"window": 10}))
    planned = [(event.window, event.rows, event.folded) for event in jobs.events if isinstance(event, Planned)]
    assert [(window, rows) for window, rows, _ in planned] == [(0, 10), (1, 10)]
    assert planned[0][2] == 5
