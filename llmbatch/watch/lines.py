"""Events in, plain lines of a log out: for a terminal's scroll-back, a file or a job scheduler."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from llmbatch.core import words
from llmbatch.core.events import EngineReady, Event, Finished, Note, Planned, Replica, Snapshot, Started, Watcher
from llmbatch.core.ledger import WorstFailure
from llmbatch.core.types import Status
from llmbatch.watch.base import own_stream

SECONDS_BETWEEN_LINES = 30.0
SHARE_BETWEEN_LINES = 0.1


class LineLog:
    """A watcher that writes a line for what happened, and where the run stands every 30 s or 10% of the rows.

    ``at_once``: the first line of these comes at once, as of a run that goes on already.
    """

    def __init__(self, stream: TextIO, *, at_once: bool = False) -> None:
        self._stream = stream
        self._last_elapsed = -math.inf if at_once else 0.0
        self._last_share = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case Snapshot():
                if self._due(event):
                    self._write(progress_line(event))
            case Started():
                self._write(started_line(event))
            case EngineReady():
                self._write(f"engine ready after {words.duration(event.seconds)}: {event.description}")
            case Planned():
                for note in event.notes:
                    self._write(f"window {event.window}: {note}")
            case Note():
                self._write(event.message if event.level == "info" else f"{event.level}: {event.message}")
            case Finished():
                self._write(f"{event.outcome}")

    def _due(self, snapshot: Snapshot) -> bool:
        """Whether enough time or work has passed since the last line."""
        done = snapshot.rows / snapshot.rows_total if snapshot.rows_total else 0.0
        late = snapshot.elapsed - self._last_elapsed >= SECONDS_BETWEEN_LINES
        if not late and done - self._last_share < SHARE_BETWEEN_LINES:
            return False
        self._last_elapsed, self._last_share = snapshot.elapsed, done
        return True

    def _write(self, line: str) -> None:
        self._stream.write(f"{time.strftime('%H:%M:%S')} {words.printable(line)}\n")
        self._stream.flush()


def started_line(event: Started) -> str:
    """How a session begins, in words."""
    if event.session == 1:
        return f"run folder {event.folder}"
    return f"run folder {event.folder}, session {event.session}: {words.count(event.rows_done)} rows were done before"


def progress_line(snapshot: Snapshot) -> str:
    """Where the run stands, on one line."""
    parts = [rows_text(snapshot)]
    if accepted := accepted_text(snapshot):
        parts.append(accepted)
    bad = {name: n for name, n in snapshot.by_status.items() if name != Status.OK}
    if any(bad.values()):
        parts.append(words.counts(bad))
    parts.append(f"{words.count(snapshot.rows_per_s)} rows/s")
    parts.append(
        f"tokens/s {words.count(snapshot.prompt_tokens_per_s)} in, {words.count(snapshot.completion_tokens_per_s)} out"
    )
    parts.append(f"in flight {words.count(snapshot.in_flight)}")
    if snapshot.seconds_left is not None and snapshot.seconds_left >= 1:
        parts.append(f"about {words.rough(snapshot.seconds_left)} left")
    if snapshot.worst is not None:
        parts.append(f"worst: {worst_text(snapshot.worst)}")
    return "; ".join(parts)


def rows_text(snapshot: Snapshot) -> str:
    """``1,204 of 10,000 rows (12%)``."""
    if not snapshot.rows_total:
        return f"{words.count(snapshot.rows)} rows"
    part = min(1.0, snapshot.rows / snapshot.rows_total)
    return f"{words.count(snapshot.rows)} of {words.count(snapshot.rows_total)} rows ({words.share(part)})"


def accepted_text(snapshot: Snapshot) -> str:
    """``370 of 1,000 accepted``; nothing where the job does not say how many are wanted."""
    if snapshot.accepted is None or snapshot.accepted_wanted is None:
        return ""
    return f"{words.count(snapshot.accepted)} of {words.count(snapshot.accepted_wanted)} accepted"


def replica_text(replica: Replica) -> str:
    """``busy 97% · 1,240 tokens/s in · 320 tokens/s out · 45% cached · 2 deaths``, over the time in which it was up."""
    if replica.busy_share is None:
        return replica.state
    usage, seconds = replica.usage, replica.ready_seconds
    parts: list[str] = [] if replica.state == "up" else [replica.state]
    parts.append(f"busy {words.share(replica.busy_share)}")
    parts.append(f"{words.count(usage.prompt_tokens / seconds)} tokens/s in")
    parts.append(f"{words.count(usage.completion_tokens / seconds)} tokens/s out")
    if usage.prompt_tokens:
        parts.append(f"{words.share(usage.cached_tokens / usage.prompt_tokens)} cached")
    if replica.deaths:
        parts.append("1 death" if replica.deaths == 1 else f"{words.count(replica.deaths)} deaths")
    return " · ".join(parts)


def worst_text(worst: WorstFailure) -> str:
    """``schema 12, as at row 'c': 'age' is missing``: the kind that most rows failed with, and an example's first line."""
    said = words.one_line(worst.message.strip().partition("\n")[0])
    row = f"row {words.short(worst.id)}"
    return f"{worst.kind} {words.count(worst.rows)}, as at {said if said.startswith(row) else f'{row}: {said}'}"


@contextlib.contextmanager
def watch_lines() -> Iterator[Watcher]:
    """Lines on stderr."""
    with own_stream(sys.stderr) as stream:
        yield LineLog(stream)
