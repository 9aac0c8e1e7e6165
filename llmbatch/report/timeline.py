"""Snapshots of a run's sessions in; what it did over time out: a fixed number of buckets, however long it takes.

The time is that in which the run went on: its sessions one behind the other, without the pauses between them. When the buckets are
full, each two of them become one that is twice as wide. It is for show: nothing goes by it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmbatch.core.events import Snapshot

TIMELINE_VERSION = 1
BUCKETS = 240
_WIDTH = 0.5  # seconds, at first
_REPLICAS = 64  # whose lanes are kept
_SESSIONS = 100  # that are kept: the first one and the last ones

COLUMNS = ("rows", "not_ok", "sent_back", "prompt_tokens", "cached_tokens", "completion_tokens", "busy", "up", "deaths")
"""What is counted in each bucket. ``busy`` and ``up`` are seconds: those in which an engine was up, and of them had work."""
LANE = ("completion_tokens", "busy", "up", "deaths")
"""The same of one of several engines."""

Columns = dict[str, list[float]]


@dataclass(slots=True)
class Began:
    """A session, ``at`` so many seconds of the run. ``outcome`` stays None where it was killed, or goes on."""

    session: int
    at: float
    started: float  # since the epoch
    rows: int  # that were there before
    ready_at: float | None = None  # when its engine was up
    outcome: str | None = None


@dataclass(slots=True)
class Timeline:
    """What a run did over time. Grows by ``began``, ``snapshot`` and ``ended``."""

    width: float = _WIDTH
    seconds: float = 0.0
    columns: Columns = field(default_factory=lambda: _empty(COLUMNS))
    lanes: dict[int, Columns] = field(default_factory=dict)
    sessions: list[Began] = field(default_factory=list)
    _offset: float = 0.0  # when the session began
    _last: Snapshot | None = None

    def began(self, session: int, rows: int) -> None:
        """A session begins, with so many rows done."""
        if len(self.sessions) >= _SESSIONS:
            del self.sessions[1]
        if self.sessions:
            self._settle(rows - self.sessions[0].rows)
        self._offset, self._last = self.seconds, None
        self.sessions.append(Began(session, self.seconds, time.time(), rows))

    def snapshot(self, now: Snapshot) -> None:
        """Where the run stands: what came since the snapshot before is spread over the time since."""
        if not self.sessions:
            return
        session, last, start = self.sessions[-1], self._last, self.seconds
        end = max(start, self._offset + now.elapsed)
        if session.ready_at is None and now.ready_seconds > 0:
            session.ready_at = min(end, max(start, end - now.ready_seconds))
        rows = session.rows if last is None else last.rows
        before, after = _counts(last, rows), _counts(now, now.rows)
        if last is None:  # what earlier sessions left
            before["not_ok"], before["sent_back"] = after["not_ok"], after["sent_back"]
        _add(self.columns, self._parts(start, end), before, after)
        lanes = {} if last is None else {each.number: each for each in last.replicas}
        for replica in now.replicas[:_REPLICAS]:
            lane = self.lanes.setdefault(replica.number, _empty(LANE))
            earlier = lanes.get(replica.number)
            of_it = {
                "completion_tokens": (replica.usage.completion_tokens, earlier and earlier.usage.completion_tokens),
                "busy": (replica.busy_seconds, earlier and earlier.busy_seconds),
                "up": (replica.ready_seconds, earlier and earlier.ready_seconds),
                "deaths": (replica.deaths, earlier and earlier.deaths),
            }
            then = {name: float(old or 0) for name, (_, old) in of_it.items()}
            _add(lane, self._parts(start, end), then, {name: float(new) for name, (new, _) in of_it.items()})
        self.seconds, self._last = end, now

    def _settle(self, rows: int) -> None:
        """So many rows are there of what the sessions until now did. A kill took some that were counted, or the count of some."""
        values = self.columns["rows"]
        less = sum(values) - rows
        if less < 0 and values:
            values[-1] -= less
        for at in range(len(values) - 1, -1, -1):
            if less <= 0:
                break
            taken = min(less, values[at])
            values[at] -= taken
            less -= taken

    def ended(self, outcome: str) -> None:
        """The session ended itself."""
        if self.sessions:
            self.sessions[-1].outcome = outcome

    def _parts(self, start: float, end: float) -> list[tuple[int, float]]:
        """The buckets from one second to another, each with its part of what came between; at first there may be too few."""
        while end >= self.width * BUCKETS:
            self.width *= 2
            for columns in (self.columns, *self.lanes.values()):
                for name, values in columns.items():
                    columns[name] = [sum(values[at : at + 2]) for at in range(0, len(values), 2)]
        first, last = int(start / self.width), int(end / self.width)
        if end <= start:
            return [(last, 1.0)]
        within = ((at, min(end, (at + 1) * self.width) - max(start, at * self.width)) for at in range(first, last + 1))
        return [(at, seconds / (end - start)) for at, seconds in within if seconds > 0]

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "llmbatch_timeline": TIMELINE_VERSION,
            "seconds": round(self.seconds, 3),
            "seconds_a_bucket": self.width,
            "buckets": _rounded(self.columns),
            "replicas": {str(number): _rounded(lane) for number, lane in self.lanes.items()},
            "sessions": [
                {
                    "session": each.session,
                    "at": round(each.at, 3),
                    "started": each.started,
                    "rows_before": each.rows,
                    "ready_at": each.ready_at,
                    "outcome": each.outcome,
                }
                for each in self.sessions
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Timeline:
        """The timeline whose ``as_dict`` this is. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        if data["llmbatch_timeline"] != TIMELINE_VERSION:
            raise ValueError("of another version")
        sessions = [
            Began(each["session"], each["at"], each["started"], each["rows_before"], each["ready_at"], each["outcome"])
            for each in data["sessions"]
        ]
        columns = {name: [float(value) for value in data["buckets"][name]] for name in COLUMNS}
        lanes = {
            int(number): {name: [float(value) for value in lane[name]] for name in LANE}
            for number, lane in data["replicas"].items()
        }
        return cls(float(data["seconds_a_bucket"]), float(data["seconds"]), columns, lanes, sessions)


def _counts(snapshot: Snapshot | None, rows: int) -> dict[str, float]:
    if snapshot is None:
        return {**dict.fromkeys(COLUMNS, 0.0), "rows": float(rows)}
    usage = snapshot.usage
    return {
        "rows": float(rows),
        "not_ok": float(sum(number for status, number in snapshot.by_status.items() if status != "ok")),
        "sent_back": float(snapshot.attempts_retried),
        "prompt_tokens": float(usage.prompt_tokens),
        "cached_tokens": float(usage.cached_tokens),
        "completion_tokens": float(usage.completion_tokens),
        "busy": snapshot.busy_seconds,
        "up": snapshot.ready_seconds,
        "deaths": float(snapshot.deaths),
    }


def _add(
    columns: Columns, parts: list[tuple[int, float]], before: Mapping[str, float], after: Mapping[str, float]
) -> None:
    """Spread what is more now than before over buckets. Deaths are whole: they are in the last one."""
    most = parts[-1][0] + 1
    for name, values in columns.items():
        values.extend([0.0] * (most - len(values)))
        more = max(0.0, after[name] - before[name])
        if not more:
            continue
        for at, part in parts if name != "deaths" else [(parts[-1][0], 1.0)]:
            values[at] += more * part


def _empty(names: tuple[str, ...]) -> Columns:
    return {name: [] for name in names}


def _rounded(columns: Columns) -> dict[str, list[float]]:
    return {name: [round(value, 3) for value in values] for name, values in columns.items()}


__all__ = ["BUCKETS", "Began", "Timeline"]
