"""Events in, a view that is redrawn in place out: for a terminal.

The view is drawn by a thread of its own a few times a second, so an event costs the run no more than an assignment.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from llmbatch.core import words
from llmbatch.core.events import EngineReady, Event, Finished, Note, Planned, Snapshot, Started, Watcher
from llmbatch.core.styles import NOTE_STYLES, STYLES, note_text
from llmbatch.core.types import Status
from llmbatch.watch.base import own_stream
from llmbatch.watch.lines import accepted_text, replica_text, rows_text, worst_text

REDRAWS_PER_SECOND = 4
NOTES_SHOWN = 2
REPLICAS_SHOWN = 8


class LiveView:
    """A watcher that shows where the run stands. A context manager: the view is there inside of it and gone after it.

    Warnings, errors and what is said before the start stay on the screen above the view; other notes show inside of it.
    """

    def __init__(self, console: Console) -> None:
        self._live = Live(
            get_renderable=self.render,
            console=console,
            refresh_per_second=REDRAWS_PER_SECOND,
            transient=True,
            redirect_stdout=False,  # what libraries print belongs to the engine's log, not to the view
            redirect_stderr=False,
        )
        self._began = time.monotonic()
        self._started: Started | None = None
        self._engine: EngineReady | None = None
        self._snapshot: Snapshot | None = None
        self._notes: deque[str] = deque(maxlen=NOTES_SHOWN)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # a terminal that was closed
            self._live.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Snapshot():
                self._snapshot = event
            case Started():
                self._started = event
            case EngineReady():
                self._engine = event
            case Planned():
                self._notes.extend(event.notes)
            case Note(level="info") if self._started is not None:
                self._notes.append(event.message)
            case Note():
                self._live.console.print(note_text(event.level, event.message))
            case Finished():
                self._live.stop()

    def render(self) -> RenderableType:
        """The view as it stands now. Called by the drawing thread, where an error would end up nowhere."""
        try:
            return self._render()
        except Exception as error:
            return Text(f"the view failed: {error!r}", style="red")

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [self._heading()]
        if self._snapshot is not None:
            parts.append(snapshot_view(self._snapshot))
        parts += [_cut(words.one_line(note), NOTE_STYLES["info"]) for note in list(self._notes)]
        return Group(*parts)

    def _heading(self) -> RenderableType:
        elapsed = words.duration(time.monotonic() - self._began)
        if self._engine is None:
            return Spinner("dots", text=_cut(f"starting the engine, {elapsed}"))
        where = f"{self._started.folder}" if self._started else ""
        session = f", session {self._started.session}" if self._started and self._started.session > 1 else ""
        return _cut(f"{where}{session}, {elapsed}: {self._engine.description}", "bold")


def snapshot_view(snapshot: Snapshot) -> RenderableType:
    """Where a run stands, for rich to print."""
    return Group(_bar(snapshot), _figures(snapshot))


def _bar(snapshot: Snapshot) -> RenderableType:
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    seconds_left = snapshot.seconds_left or 0.0
    left = f", about {words.rough(seconds_left)} left" if seconds_left >= 1 else ""
    total = snapshot.rows_total
    bar = ProgressBar(total=total, completed=min(snapshot.rows, total or 0), pulse=not total)
    line.add_row(bar, Text(rows_text(snapshot) + left))
    return line


def _figures(snapshot: Snapshot) -> RenderableType:
    figures = Table.grid(padding=(0, 2))
    figures.add_column(style="dim", no_wrap=True, min_width=len("sent back"))
    figures.add_column(no_wrap=True, overflow="ellipsis")
    figures.add_row("rows", _statuses(snapshot))
    if accepted := accepted_text(snapshot):
        figures.add_row("accepted", accepted)
    if any(snapshot.by_failure.values()):
        figures.add_row("failures", words.counts(snapshot.by_failure))
    if snapshot.worst is not None:
        figures.add_row("worst", Text(worst_text(snapshot.worst), style="red"))
    if snapshot.attempts_retried:
        figures.add_row("sent back", f"{words.count(snapshot.attempts_retried)} answers")
    figures.add_row("speed", _speed(snapshot))
    figures.add_row("engine", _engine(snapshot))
    for replica in snapshot.replicas[:REPLICAS_SHOWN]:
        figures.add_row(f"replica {replica.number}", replica_text(replica))
    if (more := len(snapshot.replicas) - REPLICAS_SHOWN) > 0:
        figures.add_row("", f"and {more} more, see report.json")
    return figures


def _statuses(snapshot: Snapshot) -> Text:
    text = Text()
    for status in Status:
        if number := snapshot.by_status.get(status, 0):
            text.append(" · " if text else "")
            text.append(f"{status} {words.count(number)}", style=STYLES[status])
    return text or Text("none yet", style="dim")


def _speed(snapshot: Snapshot) -> str:
    parts = [
        f"{words.count(snapshot.rows_per_s)} rows/s",
        f"{words.count(snapshot.prompt_tokens_per_s)} tokens/s in",
        f"{words.count(snapshot.completion_tokens_per_s)} tokens/s out",
    ]
    if snapshot.usage.prompt_tokens:
        parts.append(f"{words.share(snapshot.usage.cached_tokens / snapshot.usage.prompt_tokens)} cached")
    return " · ".join(parts)


def _engine(snapshot: Snapshot) -> str:
    return " · ".join(
        (
            f"{words.count(snapshot.in_flight)} in flight",
            f"{words.count(snapshot.waiting)} waiting",
            f"idle {words.share(snapshot.idle_share)}",
            f"{snapshot.windows_open} windows open",
        )
    )


def _cut(text: str, style: str = "") -> Text:
    """A line that a narrow terminal cuts off instead of wrapping."""
    return Text(words.printable(text), style=style, no_wrap=True, overflow="ellipsis")


@contextlib.contextmanager
def watch_live() -> Iterator[Watcher]:
    """A view on stderr that is drawn anew."""
    with own_stream(sys.stderr) as stream, LiveView(Console(file=stream)) as view:
        yield view
