"""Where a run stands in, a run folder's ``progress.json`` out, and back: for another terminal than the run's."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from llmbatch.core.events import Replica, Snapshot
from llmbatch.core.files import writing
from llmbatch.core.ledger import WorstFailure
from llmbatch.core.types import Usage

PROGRESS = "progress.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """A run's last snapshot. ``written_at`` is in seconds since the epoch."""

    snapshot: Snapshot
    written_at: float


class Sign(NamedTuple):
    """The last that a process said: when, and what its engines had taken by then."""

    pid: int
    written_at: float
    usage: Usage
    up: float = 0.0  # seconds in which engines were up, where there were several: those of all of them together


def read_progress(folder: Path) -> Progress | None:
    """What the run of a folder last said; ``None`` where it said nothing, or another version of llmbatch did."""
    try:
        data = json.loads((folder / PROGRESS).read_bytes())
        values = {field.name: data[field.name] for field in fields(Snapshot)}
        replicas = tuple(Replica(**{**each, "usage": Usage(**each["usage"])}) for each in values["replicas"])
        worst = WorstFailure(*values["worst"]) if values["worst"] is not None else None
        usage = Usage(**values["usage"])
        snapshot = Snapshot(**{**values, "usage": usage, "replicas": replicas, "worst": worst})
        return Progress(snapshot, float(data["written_at"]))
    except (OSError, ValueError, KeyError, TypeError):  # it is only for show
        return None


def write_progress(folder: Path, snapshot: Snapshot) -> None:
    """Write where the run stands. Not through ``atomic_write``: nothing is lost with it, so it need not wait for the disk.

    Raises ``WriteError``.
    """
    body = {"written_at": time.time(), "pid": os.getpid(), **asdict(snapshot)}
    path = folder / PROGRESS
    temporary = path.with_name(f"{PROGRESS}.tmp")
    with writing(path):
        temporary.write_text(json.dumps(body), encoding="utf-8")
        temporary.replace(path)


def last_sign(folder: Path) -> Sign | None:
    """The last sign of life of a folder's run, also where another version of llmbatch gave it; ``None`` where there is none."""
    try:
        data = json.loads((folder / PROGRESS).read_bytes())
        up = sum(float(each["ready_seconds"]) for each in data.get("replicas", ()))
        return Sign(int(data["pid"]), float(data["written_at"]), Usage(**data["usage"]), up)
    except (OSError, ValueError, KeyError, TypeError):
        return None
