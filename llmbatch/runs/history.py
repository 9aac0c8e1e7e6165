"""A session's events in; what the run did over time, its earlier sessions first, out, and in its folder."""

from __future__ import annotations

import time
from pathlib import Path

from llmbatch.core.events import Event, Snapshot, Started
from llmbatch.folder.timeline import TIMELINE, read_timeline, write_timeline
from llmbatch.report.timeline import Timeline
from llmbatch.runs.latest import Latest

_WRITE_SECONDS = 2.0  # what a kill may take from it


class History:
    """Keeps the timeline of a run folder; one session after the other goes on with it."""

    def __init__(self, folder: Path, latest: Latest) -> None:
        self._folder = folder
        self._latest = latest
        self._timeline: Timeline | None = None  # until a session begins
        self._next_write = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            # a first session has none before it: what lies there is of a run that was removed
            earlier = read_timeline(self._folder) if event.session > 1 else None
            self._timeline = earlier or Timeline()
            self._timeline.began(event.session, event.rows_done)
            self._write(self._timeline)
        elif isinstance(event, Snapshot) and self._timeline is not None:
            self._timeline.snapshot(event)
            if time.monotonic() >= self._next_write:
                self._write(self._timeline)

    def close(self, outcome: str) -> None:
        """The session ends."""
        if self._timeline is not None:
            self._timeline.ended(outcome)
            self._write(self._timeline)

    def _write(self, timeline: Timeline) -> None:
        self._next_write = time.monotonic() + _WRITE_SECONDS
        data = timeline.as_dict()  # as it is now
        self._latest.put(TIMELINE, lambda: write_timeline(self._folder, data))


__all__ = ["History"]
