"""What the run tells those who watch it: the terminal, the log, the progress file. Watchers decide what to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmbatch.core.ledger import WorstFailure
from llmbatch.core.types import Usage


@dataclass(frozen=True, slots=True)
class Replica:
    """One of several engines, in this session. Seconds are those in which it was up, over its restarts."""

    number: int  # from 0
    state: Literal["waiting", "starting", "up", "left out"]
    ready_seconds: float
    busy_seconds: float  # of them, those in which it had work
    usage: Usage
    deaths: int

    @property
    def busy_share(self) -> float | None:
        return min(1.0, self.busy_seconds / self.ready_seconds) if self.ready_seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where the run stands, about twice a second. Times in seconds, rates per second over the last half minute."""

    elapsed: float
    rows: int  # records so far, those of earlier sessions included
    rows_total: int | None  # an estimate until the input is read to its end
    by_status: Mapping[str, int]
    by_failure: Mapping[str, int]
    attempts_retried: int
    usage: Usage  # of this session
    rows_per_s: float
    prompt_tokens_per_s: float
    completion_tokens_per_s: float
    in_flight: int
    waiting: int
    windows_open: int
    idle_share: float  # share of the time since the engine was ready in which it had nothing to do
    seconds_left: float | None
    accepted: int | None = None  # rows, where the job says how many are wanted
    accepted_wanted: int | None = None
    replicas: tuple[Replica, ...] = ()  # where there are several engines
    ready_seconds: float = 0.0  # of this session, those in which an engine was up: of several the mean
    busy_seconds: float = 0.0  # of them, those in which it had work
    deaths: int = 0  # of engines, in this session
    worst: WorstFailure | None = None  # the failure that most rows ended with


@dataclass(frozen=True, slots=True)
class Started:
    folder: Path
    rows_done: int  # records that earlier sessions sealed or journaled
    session: int  # 1 for a fresh run


@dataclass(frozen=True, slots=True)
class EngineReady:
    seconds: float
    description: str


@dataclass(frozen=True, slots=True)
class Planned:
    """One window was planned. ``notes`` are sentences for a person, such as the saving that an order is to bring."""

    window: int
    rows: int
    folded: int
    prompt_tokens: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sealed:
    window: int
    rows: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should know: an engine death and restart, a duplicate id, a setting that was lowered."""

    level: Literal["info", "warning", "error"]
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The session is over. ``report`` is the content of ``report.json``; ``outcome`` as in it."""

    outcome: Literal["finished", "stopped", "broken"]
    report: Mapping[str, Any] = field(default_factory=dict)


Event = Snapshot | Started | EngineReady | Planned | Sealed | Note | Finished
Watcher = Callable[[Event], None]
