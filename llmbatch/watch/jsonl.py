"""Events in, one JSON object a line out: for programs that watch a run (``--json``).

Each has ``event`` (started, engine_ready, planned, snapshot, sealed, note or finished), ``time`` (seconds since the
epoch) and the event's own fields, as ``llmbatch/events.py`` documents them.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from llmbatch.core.events import Event, Replica, Watcher
from llmbatch.core.ledger import WorstFailure
from llmbatch.core.types import Usage
from llmbatch.watch.base import own_stream


class JsonLog:
    """A watcher that writes every event as a line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        line = {"event": event_name(event), "time": round(time.time(), 3), **event_to_dict(event)}
        self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._stream.flush()


def event_name(event: Event) -> str:
    """``engine_ready`` for an ``EngineReady``."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", type(event).__name__).lower()


def event_to_dict(event: Event | Replica) -> dict[str, Any]:
    """An event's fields as JSON data."""
    return {field.name: _plain(getattr(event, field.name)) for field in fields(event)}


def _plain(value: Any) -> Any:
    if isinstance(value, Usage):
        return value.as_dict()
    if isinstance(value, Replica):
        return event_to_dict(value)
    if isinstance(value, WorstFailure):
        return value._asdict()
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Path):
        return str(value)
    return value


@contextlib.contextmanager
def watch_jsonl() -> Iterator[Watcher]:
    """JSON lines on stdout. What a library prints there meanwhile, as Ray does, goes to stderr: each line of stdout is an event."""
    with own_stream(sys.stdout) as stream, contextlib.redirect_stdout(sys.stderr):
        yield JsonLog(stream)
