"""A run's events in; a run in MLflow that follows it, out, written by a thread of its own: the run never waits for a server.

A tracking server that is away is told once. What is to be logged waits for it, and what is left at the end is tried once more then;
what does not get there even so the same command logs when it is given again.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llmbatch.core.events import Event, Finished, Note, Sealed, Snapshot, Started, Watcher
from llmbatch.core.words import one_line
from llmbatch.folder.folder import RunFolder
from llmbatch.integrations.mlflow_run import MlflowRun, final_metrics, library, metrics_of
from llmbatch.watch.lines import LineLog

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between tries of a server that is away
_END_SECONDS = 60.0  # for what is left when the run is over
_POINTS = 1000  # metrics at so many times are kept for a server that is away, the newest of them


class Point(NamedTuple):
    """What was measured when so many windows were sealed."""

    metrics: dict[str, float]
    step: int
    milliseconds: int


class MlflowTracker:
    """A watcher of one run. It takes an event in no time; ``end`` waits for what is left, up to a minute."""

    def __init__(self, tell: Watcher, experiment: str | None = None) -> None:
        self._tell = tell
        self._experiment = experiment
        self._said: deque[Note] = deque()  # by the thread, for whoever brings the next event
        self._lock = threading.Condition()  # for what follows
        self._points: deque[Point] = deque(maxlen=_POINTS)
        self._folder: Path | None = None
        self._finished: Finished | None = None
        self._over = False
        self._sealed = 0
        self._shown = -1
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        self._pass_on()
        match event:
            case Started():
                self._begin(event.folder)
            case Sealed():
                self._sealed += 1
            case Snapshot() if self._folder is not None and self._sealed > self._shown:
                self._shown = self._sealed
                with self._lock:
                    self._points.append(Point(metrics_of(event), self._sealed, _now()))
                    self._lock.notify()
            case Finished():
                self._finished = event
                if self._folder is None:  # there was nothing to do, but it may not be in MLflow yet
                    self._begin(Path(event.report["folder"]))

    def end(self) -> None:
        """Log what is left, and how the run ended."""
        if self._thread is None:
            return
        with self._lock:
            self._over = True
            self._lock.notify()
        self._thread.join(_END_SECONDS)
        self._pass_on()
        if self._thread.is_alive():
            self._tell(Note("warning", f"MLflow took more than {_END_SECONDS:g} s for what was left; {_LATER}"))

    def _begin(self, folder: Path) -> None:
        self._sealed = len(RunFolder(folder).parts.scan()[0])
        self._folder = folder
        self._thread = threading.Thread(target=self._work, args=(folder,), name="llmbatch-mlflow", daemon=True)
        self._thread.start()

    def _work(self, folder: Path) -> None:
        """The thread."""
        run = MlflowRun(folder, self._experiment)
        if self._finished is not None and run.is_whole:
            return
        pause, told = _FIRST_PAUSE, False
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._over or bool(self._points) or not run.begun)
                over, points = self._over, list(self._points)
            try:
                self._log(run, points, over)
                pause = _FIRST_PAUSE
            except Exception as error:  # whatever the library and the network below it raise
                if not told or over:
                    told = True
                    self._note(
                        "warning", f"MLflow: {one_line(str(error) or repr(error), 300)}; {_LATER if over else _AWAY}"
                    )
                if not over:
                    with self._lock:
                        self._lock.wait_for(lambda: self._over, pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
            if over:
                return

    def _log(self, run: MlflowRun, points: list[Point], over: bool) -> None:
        if not run.begun:
            run.begin()
            self._note("info", f"MLflow: this run is {run.place}")
        run.log([(point.metrics, point.step, point.milliseconds) for point in points])
        with self._lock:
            for point in points:
                if self._points and self._points[0] is point:
                    self._points.popleft()
        if over:
            outcome = "broken" if self._finished is None else self._finished.outcome
            if self._finished is not None:
                run.log([(final_metrics(self._finished.report), self._sealed, _now())])
            run.end(outcome)

    def _note(self, level: str, message: str) -> None:
        self._said.append(Note("warning" if level == "warning" else "info", message))

    def _pass_on(self) -> None:
        while self._said:
            self._tell(self._said.popleft())


_AWAY = "the run goes on, and what is not logged is tried again until its end"
_LATER = "the same command with the same tracker, given again, logs the rest"


def _now() -> int:
    return int(time.time() * 1000)


@contextlib.contextmanager
def track_mlflow(tell: Watcher | None = None, experiment: str | None = None) -> Iterator[MlflowTracker]:
    """A tracker for the length of a run, at the tracking server that MLflow's own settings name (``MLFLOW_TRACKING_URI``).

    ``experiment`` is a name; by default ``MLFLOW_EXPERIMENT_ID`` or ``MLFLOW_EXPERIMENT_NAME`` say which, and else it is Default.

        with llmbatch.mlflow.track() as tracker:
            llmbatch.run(..., watchers=[tracker])

    Raises ``JobError`` where MLflow is not installed.
    """
    library()
    tracker = MlflowTracker(LineLog(sys.stderr) if tell is None else tell, experiment)
    try:
        yield tracker
    finally:
        tracker.end()


__all__ = ["MlflowTracker", "track_mlflow"]
