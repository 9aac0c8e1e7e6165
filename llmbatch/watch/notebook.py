"""Events in, a display of a notebook that is drawn anew in its place out; plain text where only that can be shown.

It is IPython's own display with an id, so it needs no widget library and is kept with the notebook: Jupyter, VS Code, Colab and
nbclient show the last state of it.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from html import escape

from llmbatch.core import words
from llmbatch.core.events import EngineReady, Event, Finished, Note, Planned, Snapshot, Started, Watcher
from llmbatch.core.notebook import bar, table
from llmbatch.watch.lines import accepted_text, progress_line, replica_text, rows_text, started_line, worst_text

REPLICAS_SHOWN = 8
_NOTES_KEPT = 6

Bundle = Mapping[str, str]
"""One state of the display, by media type."""


class NotebookView:
    """A watcher that shows where the run stands. ``show`` is given every new state, the first one included."""

    def __init__(self, show: Callable[[Bundle], None]) -> None:
        self._show = show
        self._began = time.monotonic()
        self._heading = "llmbatch"
        self._engine = ""
        self._snapshot: Snapshot | None = None
        self._notes: deque[tuple[str, str]] = deque(maxlen=_NOTES_KEPT)
        self._ended: str | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Snapshot():
                self._snapshot = event
            case Started():
                self._heading = started_line(event)
            case EngineReady():
                self._engine = event.description
            case Planned():
                self._notes.extend(("info", note) for note in event.notes)
            case Note():
                self._notes.append((event.level, event.message))
            case Finished():
                self._ended = event.outcome
            case _:
                return  # a sealed window changes nothing that is shown
        self._show({"text/plain": self._plain(), "text/html": self._html()})

    def _state(self) -> str:
        if self._ended is not None:
            return f"{self._ended} after {words.duration(time.monotonic() - self._began)}"
        return self._engine or "starting the engine"

    def _plain(self) -> str:
        lines = [f"{self._heading}: {self._state()}"]
        if self._snapshot is not None:
            lines.append(progress_line(self._snapshot))
        lines += [message if level == "info" else f"{level}: {message}" for level, message in self._notes]
        return "\n".join(words.one_line(line) for line in lines)

    def _html(self) -> str:
        parts = [f"<div><b>{_escaped(self._heading)}</b>: {_escaped(self._state())}</div>"]
        if self._snapshot is not None:
            parts.append(_figures(self._snapshot))
        for level, message in self._notes:
            colour = {"warning": "#b07d00", "error": "#c8373a"}.get(level, "inherit")
            parts.append(f'<div style="color:{colour};opacity:.85">{_escaped(message)}</div>')
        return f'<div style="font-size:90%">{"".join(parts)}</div>'


def _figures(snapshot: Snapshot) -> str:
    rows = [("rows", rows_text(snapshot)), ("status", words.counts(snapshot.by_status) or "none yet")]
    if accepted := accepted_text(snapshot):
        rows.append(("accepted", accepted))
    if any(snapshot.by_failure.values()):
        rows.append(("failures", words.counts(snapshot.by_failure)))
    if snapshot.worst is not None:
        rows.append(("worst", worst_text(snapshot.worst)))
    speed = f"{words.count(snapshot.rows_per_s)} rows/s, {words.count(snapshot.completion_tokens_per_s)} tokens/s out"
    rows.append(("speed", speed))
    if snapshot.seconds_left is not None and snapshot.seconds_left >= 1:
        rows.append(("left", f"about {words.rough(snapshot.seconds_left)}"))
    rows += [(f"replica {each.number}", replica_text(each)) for each in snapshot.replicas[:REPLICAS_SHOWN]]
    total = max(snapshot.rows_total or 0, snapshot.rows)
    return bar(snapshot.by_status, total) + table([(_escaped(name), _escaped(value)) for name, value in rows])


def _escaped(text: str) -> str:
    return escape(words.one_line(text))


@contextlib.contextmanager
def watch_notebook() -> Iterator[Watcher]:
    """A display below the cell that runs."""
    handle = importlib.import_module("IPython.display").display({"text/plain": "starting"}, raw=True, display_id=True)
    if handle is None:  # no notebook, after all
        yield lambda _: None
        return
    yield NotebookView(lambda bundle: handle.update(dict(bundle), raw=True))
